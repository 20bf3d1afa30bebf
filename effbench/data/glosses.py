"""The data set `glosses-384`: every WordNet gloss as a sentence embedding, and the examples of use as queries with known answers."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from . import minilm, wordnet
from .cache import Progress
from .wordpiece import WordPiece

SEED = 384  # of the order of rows: any prefix is a random sample
PART = 4096  # texts embedded between two files on disk: some twenty seconds on a CPU
TOKENS = {"numpy": 512, "torch": 512, "cuda": 65536}  # of a batch: what a CPU's cache holds, what fills a GPU


def make(folders: dict[str, Path], work: Path, progress: Progress | None) -> dict[str, Any]:
    """vectors float16[117659, 384] of unit length up to rounding, labels int64 in 0..44 (lexicographer files); example_vectors
    float16[n, 384] of the quoted examples of use and example_rows int64[n], the row whose gloss the example belongs to.

    A text that is quoted at two synsets has no one right answer and is left out. `work` keeps finished parts: an interrupted
    embedding goes on from there.
    """
    import numpy as np

    glosses, examples = texts(folders["wordnet"])
    folder = folders["minilm-l6-v2"]
    vocabulary = WordPiece(folder / "vocab.txt")
    rows = shuffled(len(glosses), SEED)
    place = np.empty_like(rows)
    place[rows] = np.arange(len(rows))
    asked = shuffled(len(examples), SEED + 1)
    corpus = [glosses[row].text for row in rows] + [examples[number][0] for number in asked]
    encode, how = minilm.encoder(minilm.read_safetensors(folder / "model.safetensors"))
    vectors = embed(corpus, vocabulary.encode, encode, how, work, progress)
    return {
        "vectors": vectors[: len(rows)],
        "labels": np.array([glosses[row].label for row in rows], np.int64),
        "example_vectors": vectors[len(rows) :],
        "example_rows": place[[examples[number][1] for number in asked]].astype(np.int64),
    }


def shuffled(count: int, seed: int) -> Any:
    """A random order from raw bits: numpy promises their stream for ever, but not that of `permutation`."""
    import numpy as np

    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")


def texts(folder: Path) -> tuple[list[wordnet.Synset], list[tuple[str, int]]]:
    """All synsets, and (example, number of its synset) for every example that belongs to one synset only."""
    glosses = list(wordnet.synsets(folder))
    owners: dict[str, set[int]] = {}
    for number, synset in enumerate(glosses):
        for example in synset.examples:
            owners.setdefault(example, set()).add(number)
    return glosses, [(example, min(numbers)) for example, numbers in owners.items() if len(numbers) == 1]


def embed(
    corpus: Sequence[str],
    tokenise: Callable[[str], list[int]],
    encode: minilm.Encoder,
    how: str,
    work: Path,
    progress: Progress | None,
) -> Any:
    """float16 [texts, 384]. Texts of one length go together, so that nothing is padded and no vector depends on its batch."""
    import numpy as np

    if progress:
        progress(f"glosses-384: {len(corpus)} texts to embed by {how}", 0, 0)
    tokens = [tokenise(text) for text in corpus]
    lengths = np.array([len(each) for each in tokens])
    order = np.argsort(lengths, kind="stable")
    vectors = np.empty((len(corpus), minilm.WIDTH), np.float16)
    starts = range(0, len(corpus), PART)
    total, done, begun, spent = int(lengths.sum()), 0, time.monotonic(), 0
    with ThreadPoolExecutor(1 if how == "cuda" else len(os.sched_getaffinity(0)), initializer=_single(how)) as pool:
        for start in starts:
            chosen = order[start : start + PART]
            amount = int(lengths[chosen].sum())
            # Named by its tokens: a part of other texts, or of another order, is another file.
            identity = hashlib.sha256(repr([tokens[row] for row in chosen]).encode()).hexdigest()[:16]
            file = work / f"part-{identity}.npy"
            part = _kept(file, len(chosen))
            if part is None:
                part = np.empty((len(chosen), minilm.WIDTH), np.float16)
                batches = list(_batches(lengths[chosen], TOKENS[how]))
                jobs = (np.array([tokens[chosen[at]] for at in batch], np.int64) for batch in batches)
                for batch, found in zip(batches, pool.map(encode, jobs)):
                    part[batch] = found
                _keep(file, part)
                spent += amount
            vectors[chosen] = part
            done += amount
            if progress:
                rate = spent / max(time.monotonic() - begun, 1e-9)
                left = f", about {(total - done) / rate / 60:.1f} min left" if spent and done < total else ""
                progress(f"glosses-384: {100 * done / total:.0f} % embedded{left}", 0, 0)
    return vectors


def _single(how: str) -> Callable[[], None] | None:
    """Several batches at once on one thread each: threads that share one batch wait for each other."""
    if how != "torch":
        return None
    import torch

    return lambda: torch.set_num_threads(1)


def _batches(lengths: Any, most: int):
    """Places [n] of one length, at most `most` tokens together; `lengths` ascends."""
    for length, run in groupby(range(len(lengths)), key=lambda at: int(lengths[at])):
        while batch := list(islice(run, max(1, most // length))):
            yield batch


def _kept(file: Path, count: int) -> Any:
    import numpy as np

    try:
        part = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    right = part.shape == (count, minilm.WIDTH) and part.dtype == np.float16
    return part if right and np.isfinite(part).all() else None


def _keep(file: Path, part: Any) -> None:
    """In one step, so that a kill leaves no half part."""
    import numpy as np

    scratch = file.with_suffix(".tmp")
    with scratch.open("wb") as stream:
        np.save(stream, part, allow_pickle=False)
    os.replace(scratch, file)

"""WordNet's `data.*` files (man page wndb(5WN)) as texts: a gloss for every synset, and the quoted examples of its use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..api.errors import DataError

PARTS = ("noun", "verb", "adj", "adv")
LABELS = 45  # lexicographer files: noun.animal, verb.motion, ...
MARKER = re.compile(r"\((?:a|p|ip)\)$")  # where an adjective may stand
EXAMPLE = re.compile(r'"([^"]+)"')


class Synset(NamedTuple):
    """`text` is "lemma, lemma: definition", without the examples; `label` the number of its lexicographer file, 0..44."""

    text: str
    label: int
    examples: tuple[str, ...]


def synsets(folder: Path) -> Iterator[Synset]:
    """Those of data.noun, data.verb, data.adj and data.adv, in the order of the files. DataError for a line that is none."""
    for part in PARTS:
        file = folder / f"data.{part}"
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.startswith("  "):  # the licence
                    continue
                try:
                    yield synset(line)
                except (ValueError, IndexError) as error:
                    raise DataError(
                        f"line {number} is no synset ({error})", where=str(file), remedy="Fetch the file again."
                    ) from error


def synset(line: str) -> Synset:
    """offset lexicographer-file type count(hex) word id ... | gloss"""
    head, bar, gloss = line.partition(" | ")
    fields = head.split(" ")
    label, count = int(fields[1]), int(fields[3], 16)
    words = fields[4 : 4 + 2 * count : 2]
    if not bar or not 0 <= label < LABELS or len(words) != count or not words:
        raise ValueError("damaged fields")
    lemmas = ", ".join(MARKER.sub("", word).replace("_", " ") for word in words)
    definition = gloss.partition('"')[0].strip(" ;:\n")
    if not definition:
        raise ValueError("no definition")
    # Unbalanced quotes leave scraps such as ";" between two examples.
    examples = tuple(found.strip() for found in EXAMPLE.findall(gloss) if found.count(" ") and any(map(str.isalpha, found)))
    return Synset(f"{lemmas}: {definition}", label, examples)

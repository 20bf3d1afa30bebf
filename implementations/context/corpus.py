"""Questions with documents: pairs to look up (`kvbook`), bytes that follow a piece of Python source (`stdlib-text`). numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KEYS = VALUES = 64  # kvbook: keys are tokens 0..63, values 64..127
PAD, VOCABULARY = 128, 129
UNASKED = -100


@dataclass(frozen=True, eq=False)
class Questions:
    """int64 documents [count, k, length] in reading order, inputs [count, n], targets [count, n], -100 where nothing is asked."""

    documents: np.ndarray
    inputs: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.inputs)

    def part(self, rows) -> Questions:
        return Questions(self.documents[rows], self.inputs[rows], self.targets[rows])


def kvbook(rng: np.random.Generator, count: int, documents: int, pairs: int, asked: int) -> Questions:
    """Every question has documents of its own, of `pairs` (key, value) each; each of `asked` keys is in one of them, once.

    Nothing can be remembered from training. The inputs are keys, the targets their values; chance is 1/64.
    """
    if not 1 <= asked <= min(documents * pairs, KEYS - pairs):
        most = f"at most {min(documents * pairs, KEYS - pairs)} of {KEYS}"
        raise ValueError(f"{documents} documents of {pairs} pairs have room for {most} keys to ask for, not {asked}")
    inputs, others = np.split(rng.random((count, KEYS)).argsort(-1), [asked], axis=1)
    drawn = rng.random((count, documents, KEYS - asked)).argsort(-1)[:, :, :pairs]  # distinct within a document
    keys = np.take_along_axis(others[:, None], drawn, -1).reshape(count, -1)
    slots = rng.random(keys.shape).argsort(-1)[:, :asked]
    np.put_along_axis(keys, slots, inputs, -1)
    values = KEYS + rng.integers(0, VALUES, keys.shape)
    book = np.stack((keys, values), -1).reshape(count, documents, 2 * pairs)
    return Questions(book, inputs, np.take_along_axis(values, slots, -1))


def passages(windows: np.ndarray, documents: int, length: int, prompt: int) -> Questions:
    """Windows of text [count, documents * length + prompt + answer]: the documents come first, then prompt and answer.

    The decoder reads prompt and answer; every byte of the answer is asked, none of the prompt.
    """
    m = documents * length
    book, rest = windows[:, :m].reshape(len(windows), documents, length), windows[:, m:]
    targets = rest[:, 1:].copy()
    targets[:, : prompt - 1] = UNASKED
    return Questions(book, rest[:, :-1], targets)


def blocks(text: np.ndarray, count: int, size: int) -> np.ndarray:
    """At most `count` windows of `size` bytes that do not overlap, evenly over the text: no answer is in another's document."""
    found = min(count, len(text) // size)
    if found < 3:
        raise ValueError(f"a text of {len(text)} bytes gives {found} questions of {size} bytes; 3 are needed")
    start = np.linspace(0, len(text) // size - 1, found).astype(int) * size
    return text[start[:, None] + np.arange(size)].astype(np.int64)


@dataclass(frozen=True, eq=False)
class Given:
    """Sizes as in the data's arguments (`documents` of `length` tokens each, `n` decoder tokens of which `prompt` are not asked).

    `library` int64 [count, documents, length] are the documents of the test, to encode after training, not to train on.
    """

    name: str
    text: np.ndarray  # uint8, to train on; empty for kvbook
    validation: Questions
    library: np.ndarray
    d: int
    heads: int
    layers: int
    documents: int
    length: int
    prompt: int
    n: int
    batch: int

    @property
    def context(self) -> int:
        """Context tokens of a question."""
        return self.documents * self.length

    @property
    def padded(self) -> bool:
        return bool((self.library == PAD).any())

    def draw(self, rng: np.random.Generator, count: int) -> Questions:
        """Fresh training questions."""
        if self.name == "kvbook":
            return kvbook(rng, count, self.documents, self.length // 2, self.n)
        from ..shared.text import windows

        found = windows(self.text, count, self.context + self.n + 1, rng)
        return passages(found, self.documents, self.length, self.prompt)


@dataclass(frozen=True, eq=False)
class Hidden:
    questions: Questions
    given: Given

"""WordPiece of lower-cased BERT models: text to token numbers, in plain Python (Schuster and Nakajima 2012; Devlin et al. 2019)."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from ..api.errors import DataError

LONGEST_WORD = 100  # characters; longer ones are unknown
ASCII = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")


class WordPiece:
    """`encode` gives [CLS] pieces [SEP], at most `longest` numbers. Words are remembered: a corpus has few different ones."""

    def __init__(self, vocabulary: Path, *, longest: int = 256):
        pieces = vocabulary.read_text(encoding="utf-8").splitlines()
        self.number = {piece: number for number, piece in enumerate(pieces)}
        absent = {"[CLS]", "[SEP]", "[UNK]"} - set(self.number)
        if absent:
            raise DataError(f"no {min(absent)} in it", where=str(vocabulary), remedy="Fetch the file again.")
        self.longest = longest
        self._known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        inner = [number for word in words(text) for number in self._word(word)][: self.longest - 2]
        return [self.number["[CLS]"], *inner, self.number["[SEP]"]]

    def _word(self, word: str) -> list[int]:
        if word not in self._known:
            self._known[word] = self._pieces(word)
        return self._known[word]

    def _pieces(self, word: str) -> list[int]:
        """The longest piece that fits, again and again; [UNK] for the whole word where none fits."""
        found, start = [], 0
        unknown = [self.number["[UNK]"]]
        if len(word) > LONGEST_WORD:
            return unknown
        while start < len(word):
            for stop in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:stop]
                if piece in self.number:
                    break
            else:
                return unknown
            found.append(self.number[piece])
            start = stop
        return found


def words(text: str) -> list[str]:
    """Lower case without accents, split at white space and around every punctuation mark and Chinese character."""
    if text.isascii() and text.isprintable():
        return ASCII.findall(text.lower())  # the same, ten times faster
    spaced = []
    for sign in text:
        kind = unicodedata.category(sign)
        if sign in "\t\n\r" or kind == "Zs":
            spaced.append(" ")
        elif sign == "\0" or sign == "\ufffd" or kind.startswith("C"):
            continue
        else:
            spaced.append(f" {sign} " if _chinese(sign) else sign)
    plain = unicodedata.normalize("NFD", "".join(spaced)).lower()
    plain = "".join(sign for sign in plain if unicodedata.category(sign) != "Mn")
    return "".join(f" {sign} " if _punctuation(sign) else sign for sign in plain).split()


def _punctuation(sign: str) -> bool:
    """ASCII signs that Unicode calls symbols ($, +, <, ...) count as well."""
    return (sign.isascii() and sign.isprintable() and not sign.isalnum() and sign != " ") or unicodedata.category(sign)[0] == "P"


def _chinese(sign: str) -> bool:
    code = ord(sign)
    return 0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x2FA1F

"""How numbers and foreign strings are written for people, in one place: tables, pages and plots all use these functions.

Records hold SI units; here they get prefixes (1.23 ms, 4.50 GFLOP, 12.3 MiB). A missing value is "-".
"""

from __future__ import annotations

import json
import math
import unicodedata
from typing import Any

MISSING = "-"
PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
SMALL = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
BINARY = tuple((2.0 ** (10 * i), name) for i, name in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB"), (0, "B")))
BYTES = {"B", "byte", "bytes"}
PLAIN = {"", "1"}
SCALED = {"J", "W", "FLOP", "1"}  # units that take prefixes below 1
# Direction and isolation controls may reorder what a reader sees; U+2028/9 end a line in places that look like one.
HIDDEN = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C, 0x2028, 0x2029, 0xFEFF}


def clean(text: Any, limit: int = 400) -> str:
    """A foreign value as one printable line: control characters, lone surrogates and direction marks are made visible."""
    text = text if isinstance(text, str) else json.dumps(text, sort_keys=True, ensure_ascii=False, default=str)
    if len(text) > limit:
        text = text[: limit - 3] + "..."
    if text.isascii() and text.isprintable():
        return text
    text = " ".join(text.split("\n")).replace("\t", " ")
    return "".join(_visible(char) for char in text)


def _visible(char: str) -> str:
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if code in HIDDEN or unicodedata.category(char) in ("Cc", "Cs", "Cn", "Co"):
        return f"\\u{code:04x}"
    return char


def scale(value: float, unit: str) -> tuple[float, str]:
    """The factor to divide by and the unit to print for a value of this size; intervals share the scale of their value."""
    size = abs(value)
    if unit == "s":
        return _seconds(size)
    if unit in BYTES:
        return next(((factor, name) for factor, name in BINARY if size >= factor), (1.0, "B"))
    if unit in PLAIN:
        factor, prefix = next(((f, p) for f, p in PREFIXES if size >= f and f >= 1e6), (1.0, ""))
        return factor, prefix
    if unit.startswith("%") or not unit.isascii():
        return 1.0, clean(unit, 20)
    if size < 1 and unit.split("/")[0] not in SCALED:  # 0.66 nat, not 660 mnat
        return 1.0, clean(unit, 20)
    table = PREFIXES if size >= 1 or size == 0 else SMALL
    factor, prefix = next(((f, p) for f, p in table if size >= f), (1.0, "") if size == 0 else SMALL[-1])
    if "/" in unit:  # a rate: 12.3 k/s, 4.56 Mqueries/s
        head, tail = unit.split("/", 1)
        return factor, f"{prefix}{'' if head == '1' else clean(head, 20)}/{clean(tail, 20)}"
    return factor, prefix + clean(unit, 20)


def _seconds(size: float) -> tuple[float, str]:
    if size >= 7200:
        return 3600.0, "h"
    if size >= 120:
        return 60.0, "min"
    if size >= 1 or size == 0:
        return 1.0, "s"
    return next(((factor, prefix + "s") for factor, prefix in SMALL if size >= factor), (1e-9, "ns"))


def digits(value: float, unit: str = "") -> int:
    """Decimals that show three significant digits; four for plain numbers, where 0.9512 and 0.9507 may differ."""
    wanted = 4 if unit in PLAIN else 3
    if value == 0 or not math.isfinite(value):
        return 0
    return max(0, wanted - 1 - math.floor(math.log10(abs(value)) + 1e-9)) if abs(value) >= 1e-3 else -1


def number(value: float | None, unit: str = "", *, with_unit: bool = True) -> str:
    """A value with its unit, e.g. number(0.00123, "s") == "1.23 ms"; None and what is not finite is "-"."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return MISSING
    factor, name = scale(value, unit)
    text = _fixed(value / factor, value / factor, unit, isinstance(value, int) and factor == 1.0)
    return f"{text} {name}" if with_unit and name else text


def interval(reading: dict | None) -> str:
    """A reading with its interval on one scale: "1.23 ms [1.20, 1.31]"; the value alone where there is no interval."""
    if not reading or reading.get("value") is None:
        return MISSING
    ends = bounds(reading)
    return f"{point(reading)} {ends}" if ends else point(reading)


def point(reading: dict) -> str:
    """The value of a reading; a whole number gets decimals where it has an interval (1.000 [0.990, 1.000])."""
    value = reading["value"]
    known = reading.get("low") is not None and reading.get("high") is not None
    return number(float(value) if known else value, reading["unit"])


def bounds(reading: dict | None) -> str:
    """The interval alone, on the scale of the value: "[1.20, 1.31]", or ""."""
    if not reading or reading.get("value") is None or reading.get("low") is None or reading.get("high") is None:
        return ""
    value, unit = reading["value"], reading["unit"]
    factor, _ = scale(value, unit)
    low, high = (_fixed(reading[end] / factor, value / factor, unit, False) for end in ("low", "high"))
    return f"[{low}, {high}]"


def _fixed(value: float, like: float, unit: str, whole: bool) -> str:
    """`value` with the decimals that suit `like`."""
    if whole and abs(value) < 1e6:
        return f"{value:.0f}"
    places = digits(like, unit)
    return f"{value:.3g}" if places < 0 else f"{value:.{places}f}"


def ticks(low: float, high: float, unit: str) -> tuple[list[float], list[str]]:
    """Places and texts for a logarithmic axis from low to high (both positive): at most eight, at round values."""
    base = 2.0 if unit in BYTES else 10.0
    first, last = math.floor(math.log(low, base) + 1e-9), math.ceil(math.log(high, base) - 1e-9)
    steps = (1.0, 2.0, 5.0) if base == 10 and high / low <= 60 else (1.0,)
    every = max(1, math.ceil((last - first) / 7))
    places = [base**power * step for power in range(first, last + 1, every) for step in steps]
    places = [place for place in places if low / 1.6 <= place <= high * 1.6]
    names = [(place, *scale(place * (1 + 1e-12), unit)) for place in places]
    return places, [f"{place / factor:.3g} {name}".rstrip() for place, factor, name in names]


def ratio(value: float | None) -> str:
    """A ratio to the baseline: "0.52x"."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{_fixed(value, value, '×', False)}×"


def settings(values: dict) -> str:
    """Settings in short form: "leaves=16 rescore=40"."""
    return " ".join(f"{clean(name, 40)}={clean(value, 60)}" for name, value in sorted(values.items()))

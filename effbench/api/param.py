"""The settings of a method: `param` is fixed before the build, `knob` may change between calls.

Both are written as class attributes with literal arguments, so that the registry can read them without importing the file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Scalar = bool | int | float | str


@dataclass(frozen=True)
class Log:
    """Tuning range, uniform in the logarithm. Integer bounds give integers."""

    low: float
    high: float

    def at(self, place: float) -> float | int:
        """The value at a place of 0..1."""
        value = math.exp(math.log(self.low) + place * (math.log(self.high) - math.log(self.low)))
        if isinstance(self.low, int) and isinstance(self.high, int):
            return int(min(max(round(value), self.low), self.high))
        return float(f"{value:.6g}")


@dataclass(frozen=True)
class Uniform:
    """Tuning range, uniform. Integer bounds give integers, both ends included."""

    low: float
    high: float

    def at(self, place: float) -> float | int:
        """The value at a place of 0..1, 1 left out."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return self.low + int(place * (self.high - self.low + 1))
        return float(f"{self.low + place * (self.high - self.low):.6g}")


@dataclass(frozen=True, init=False)
class Choice:
    """Tuning range over the named values."""

    values: tuple

    def __init__(self, *values: Scalar):
        object.__setattr__(self, "values", values)

    def at(self, place: float) -> Scalar:
        """The value at a place of 0..1, 1 left out."""
        return self.values[int(place * len(self.values))]


@dataclass(frozen=True)
class Setting:
    """One setting of a method. Reading it on an instance gives the value, on the class the setting itself."""

    default: Scalar
    kind: str  # "param" or "knob"
    sweep: tuple = ()
    tune: Log | Uniform | Choice | None = None

    def __set_name__(self, owner, name):
        object.__setattr__(self, "name", name)

    def __get__(self, instance, owner) -> Any:
        # No __set__: a value that the constructor stores in the instance's __dict__ takes precedence.
        return self if instance is None else self.default

    def accepts(self, value: Any) -> bool:
        return same_type(value, self.default)


def same_type(value: Any, default: Scalar) -> bool:
    """Whether a value may stand where the default stands: same type, an integer for a float allowed, no bool for a number."""
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, type(default))


def param(default: Scalar, *, sweep: Sequence = (), tune: Log | Uniform | Choice | None = None) -> Any:
    """A setting that needs a new build. `sweep` lists the values worth showing, `tune` the range a tuner may draw from."""
    return Setting(default, "param", tuple(sweep), tune)


def knob(default: Scalar, *, sweep: Sequence = ()) -> Any:
    """A setting that may change between calls of one built method."""
    return Setting(default, "knob", tuple(sweep))

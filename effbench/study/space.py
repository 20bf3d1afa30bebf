"""The settings that a tuner may choose from: a finite grid of knobs and params, the same for every sampler."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from ..api.errors import EffbenchError, suggest
from ..api.param import Choice, Log, Setting, Uniform
from ..plan.registry import MethodInfo
from ..plan.suite import expand

LEVELS = 9  # values taken from a range
Point = tuple[int, ...]  # one index for each axis


@dataclass(frozen=True)
class Axis:
    name: str
    kind: str  # "knob" or "param"
    values: tuple

    @property
    def numeric(self) -> bool:
        return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in self.values)

    def positions(self) -> list[float]:
        """Where the values lie, from 0 to 1; on a logarithmic scale where they span a factor of 8 or more."""
        if not self.numeric or len(self.values) < 2:
            return [float(i) for i in range(len(self.values))]
        values = [float(value) for value in self.values]
        if min(values) > 0 and max(values) >= 8 * min(values):
            values = [math.log(value) for value in values]
        return [(value - min(values)) / (max(values) - min(values)) for value in values]


@dataclass(frozen=True)
class Space:
    """`fixed` settings are the same at every point; those named nowhere keep their defaults."""

    axes: tuple[Axis, ...]
    fixed: Mapping[str, Any]
    kinds: Mapping[str, str]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis.values) for axis in self.axes)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def points(self) -> Iterator[Point]:
        return product(*map(range, self.shape))

    def settings(self, point: Point, kind: str = "") -> dict[str, Any]:
        found = dict(self.fixed) | {axis.name: axis.values[i] for axis, i in zip(self.axes, point)}
        return {name: value for name, value in found.items() if not kind or self.kinds[name] == kind}

    def label(self, point: Point) -> str:
        return ", ".join(f"{axis.name}={axis.values[i]}" for axis, i in zip(self.axes, point))


def levels(setting: Setting) -> tuple:
    """The values of a setting's range, or of its sweep with the default; in ascending order where they are numbers."""
    tune = setting.tune
    if isinstance(tune, Choice):
        values = list(tune.values)
    elif isinstance(tune, (Log, Uniform)):
        steps = [i / (LEVELS - 1) for i in range(LEVELS)]
        if isinstance(tune, Log):
            values = [tune.low * (tune.high / tune.low) ** step for step in steps]
        else:
            values = [tune.low + (tune.high - tune.low) * step for step in steps]
        whole = isinstance(tune.low, int) and isinstance(tune.high, int)
        values = [round(value) if whole else float(f"{value:.6g}") for value in values]
    else:
        values = [*setting.sweep, setting.default]
    values = list(dict.fromkeys(values))
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        values.sort()
    return tuple(values)


def make(info: MethodInfo, knobs: Iterable[str] = (), params: Iterable[str] = ()) -> Space:
    """The grid of a method: its knobs with a sweep and its params with a range, as the options change them.

    An option is `name=value` (fixed), `name=v1,v2,...` (these values) or `name` (the values of its sweep or range).
    """
    values: dict[str, tuple] = {}
    for name, setting in info.settings.items():
        if (setting.kind == "knob" and setting.sweep) or (setting.kind == "param" and setting.tune is not None):
            values[name] = levels(setting)
    for kind, options in (("knob", knobs), ("param", params)):
        for option in options:
            name, chosen = read(option, info, kind)
            values[name] = chosen
    axes = tuple(Axis(name, info.settings[name].kind, chosen) for name, chosen in values.items() if len(chosen) > 1)
    if not axes:
        known = ", ".join(info.settings) or "none"
        raise EffbenchError(
            f"method '{info.name}' leaves nothing to choose", where="effbench tune",
            remedy=f"Name values with --knob NAME=V1,V2 or --param NAME=V1,V2 (settings: {known}).",
        )  # fmt: skip
    fixed = {name: chosen[0] for name, chosen in values.items() if len(chosen) == 1}
    # Params outside: settings that share a build lie side by side.
    return Space(
        tuple(sorted(axes, key=lambda axis: axis.kind, reverse=True)), fixed, {n: s.kind for n, s in info.settings.items()}
    )


def read(option: str, info: MethodInfo, kind: str) -> tuple[str, tuple]:
    name, sign, text = (part.strip() for part in option.partition("="))
    where, settings = f"--{kind}", info.of_kind(kind)
    if name not in settings:
        other = f"'{name}' is a {info.settings[name].kind}. " if name in info.settings else ""
        raise EffbenchError(f"method '{info.name}' has no {kind} '{name}'", where=where, remedy=other + suggest(name, settings))
    if not sign:
        return name, levels(settings[name])
    chosen = tuple(dict.fromkeys(literal(item) for item in text.split(",")))
    expand({name: list(chosen)}, settings, where)
    return name, chosen


def literal(text: str) -> Any:
    text = text.strip()
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text.lower(), text)

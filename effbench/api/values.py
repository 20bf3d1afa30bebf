"""The small values that tasks and methods exchange with the engine. All are frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SIZES = ("smoke", "quick", "full")


@dataclass(frozen=True)
class Data:
    """A data set of a task: a name, its arguments with their defaults, and the downloads it needs.

    In a suite it is written as a call: `clustered(n=20000, d=128)`. Arguments change what is built.
    """

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    def __str__(self) -> str:
        inner = ", ".join(f"{key}={value}" for key, value in sorted(self.args.items()))
        return f"{self.name}({inner})" if inner else self.name


@dataclass(frozen=True)
class Case:
    """One way of calling a built method (batch, length, mode). `sizes` says where it is part of the default set."""

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)
    sizes: tuple[str, ...] = SIZES

    def __getitem__(self, key: str) -> Any:
        return self.args[key]


@dataclass(frozen=True)
class Budget:
    """What a build may spend: exactly one of `steps`, `samples`, `flops` (FLOP), `time` (s).

    `like` names a method of the task: the budget is then the FLOPs that this method spends in `steps` steps,
    turned into steps of one's own by `Method.step_flops`.
    """

    steps: int | None = None
    samples: int | None = None
    flops: float | None = None
    time: float | None = None
    like: str = ""

    def __post_init__(self):
        given = [name for name in ("steps", "samples", "flops", "time") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"a budget has exactly one of steps, samples, flops, time; this one has {given or 'none'}")
        if not getattr(self, given[0]) > 0:
            raise ValueError(f"budget {given[0]} must be positive, not {getattr(self, given[0])}")
        if self.like and given != ["steps"]:
            raise ValueError("a budget with `like` is given in steps of the method it names")


@dataclass(frozen=True)
class Step:
    """Yielded by `Method.build`: the clock stops, budget and deadline are looked at, a row of the curve is taken.

    `samples` counts what was consumed since the last Step: training examples, or environment steps.
    """

    steps: int = 1
    samples: int = 0


@dataclass(frozen=True)
class Flops:
    """FLOPs by formula; one add or one multiply is one FLOP.

    executed: matmul-like work that really runs (zeros that are multiplied count). useful: what the technique needs.
    dense: what the uncompressed method would need. other: elementwise, look-up and comparison work. bytes: what one call
    has to move between memory and the processor at least, if nothing were kept from the call before.
    """

    executed: float
    useful: float | None = None
    dense: float | None = None
    other: float | None = None
    bytes: float | None = None


@dataclass(frozen=True)
class Metric:
    """A quality: its unit, which direction is better ("higher" or "lower"), and what one sample of it is."""

    unit: str = "1"
    better: str = "higher"
    sample: str = "query"


@dataclass(frozen=True, eq=False)
class Curve:
    """A quality over an axis of cost. x ascends; both are sequences of the same length."""

    x: Any
    y: Any


@dataclass(frozen=True)
class Bound:
    """One promise: `metric` `op` `value`; `over` makes it a ratio to that method, `at` reads it off the front.

    `case` and `data` say where it is asked: one case by name, data as a suite writes it ("satellite(workers=1)"; arguments
    that are not named may be anything). Without them it must hold in every case, and each data set gets a verdict of its own.
    `params` and `over_params` say which arm is meant, where it is not the one with tuned or default settings; `over` may then
    be the method itself (an ablation). `budget` says under which equality it is asked: "steps", "samples", "flops" (which a
    budget `like` a method is, too) or "time"; without it each budget gets a verdict of its own.
    """

    metric: str
    op: str  # "<=", ">=", "<", ">"
    value: float
    over: str = ""
    at: str = ""  # "quality.recall@10 >= .95"
    case: str = field(default="", kw_only=True)
    data: str = field(default="", kw_only=True)
    params: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    over_params: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    budget: str = field(default="", kw_only=True)

    def __post_init__(self):
        if self.budget not in ("", "steps", "samples", "flops", "time"):
            raise ValueError(f"a bound's budget is steps, samples, flops or time, not '{self.budget}'")
        if self.over_params and not self.over:
            raise ValueError("over_params select an arm of the method that `over` names, and it names none")


@dataclass(frozen=True)
class Claim:
    """What a source promises, as data. The verdict is computed from records.

    `parts` must all hold with their whole interval for "reproduced"; `partly` names (by index) the parts that suffice
    for "partly". `size` is the smallest size at which the claim can be tested.
    """

    text: str
    source: str
    parts: tuple[Bound, ...] = ()
    partly: tuple[int, ...] = ()
    size: str = "full"
    untestable: str = ""  # why the claim cannot be tested here at all, if so

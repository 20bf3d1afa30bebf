"""What a person wants of a setting: one metric large or small, others within bounds; and which measured setting wins."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..api.errors import EffbenchError, suggest
from ..plan.registry import TaskInfo

OPS = {"<=": operator.le, ">=": operator.ge}
CONSTRAINT = re.compile(r"\s*(\S+?)\s*(<=|>=|<|>|==|=)\s*(\S+)\s*")
TIMED = ("serve.latency", "serve.cpu", "serve.throughput", "serve.first_call", "serve.latency.host", "serve.compile_time")
SERVE = (
    *TIMED, "serve.flops", "serve.flops.useful", "serve.flops.dense", "serve.flops.other", "serve.bytes", "serve.peak_memory",
    "serve.device_peak_memory", "serve.items",
)  # fmt: skip
BUILD = (
    "build.time", "build.flops", "build.peak_memory", "build.device_peak_memory", "build.steps", "build.samples",
    "build.compile_time", "size.parameters", "size.bytes",
)  # fmt: skip
OPEN = re.compile(r"serve\.tally\.[\w.-]+|build\.[\w-]+\.time")  # names that only a method knows
LEAST = 1e-3  # a share below it counts as this in a logarithm
Values = Mapping[str, float | None]


@dataclass(frozen=True)
class Constraint:
    metric: str
    op: str
    value: float

    def __str__(self) -> str:
        return f"{self.metric} {self.op} {self.value:g}"

    @property
    def better(self) -> str:
        return "higher" if self.op == ">=" else "lower"

    def met(self, value: float | None) -> bool:
        return value is not None and OPS[self.op](value, self.value)

    def distance(self, value: float | None) -> float:
        """How far a value is from the bound, as a share of it; 0 where it is met."""
        if value is None:
            return math.inf
        return 0.0 if self.met(value) else abs(value - self.value) / max(abs(self.value), 1e-12)


@dataclass(frozen=True)
class Wish:
    """`better` "higher": the metric is to be large; "lower": small."""

    metric: str
    better: str
    constraints: tuple[Constraint, ...] = ()

    def __str__(self) -> str:
        text = f"{'maximize' if self.better == 'higher' else 'minimize'} {self.metric}"
        return text + (f" subject to {' and '.join(map(str, self.constraints))}" if self.constraints else "")

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.metric, *(constraint.metric for constraint in self.constraints))))

    def feasible(self, values: Values) -> bool:
        return values.get(self.metric) is not None and all(c.met(values.get(c.metric)) for c in self.constraints)

    def loss(self, values: Values) -> float:
        value = values.get(self.metric)
        return math.inf if value is None else (-value if self.better == "higher" else value)

    def distance(self, values: Values) -> float:
        return sum(constraint.distance(values.get(constraint.metric)) for constraint in self.constraints)

    def best(self, measured: Sequence[tuple[tuple, Values]]) -> int | None:
        """Position of the best feasible one, the first of equals; None where none is feasible."""
        feasible = [(self.loss(values), i) for i, (_, values) in enumerate(measured) if self.feasible(values)]
        return min(feasible)[1] if feasible else None

    def nearest(self, measured: Sequence[tuple[tuple, Values]]) -> int | None:
        """Position of the one that comes nearest to the bounds; None where nothing was measured."""
        near = [(self.distance(values), self.loss(values), i) for i, (_, values) in enumerate(measured)]
        near = [item for item in near if math.isfinite(item[0])]
        return min(near)[2] if near else None


def wish(task: TaskInfo, maximize: str, minimize: str, subject_to: Iterable[str]) -> Wish:
    """From the words of a command line. Every mistake is an error that says what is known."""
    if bool(maximize) == bool(minimize):
        raise EffbenchError(
            "one of --maximize and --minimize is needed" if not maximize else "--maximize and --minimize exclude each other",
            where="effbench tune", remedy="For example --maximize serve.throughput --subject-to \"quality.recall@10>=0.95\".",
        )  # fmt: skip
    goal = known(maximize or minimize, task, "--maximize" if maximize else "--minimize")
    return Wish(goal, "higher" if maximize else "lower", tuple(constraint(text, task) for text in subject_to))


def constraint(text: str, task: TaskInfo) -> Constraint:
    found = CONSTRAINT.fullmatch(text)
    remedy = 'Write it as "quality.recall@10>=0.95" or "serve.latency<=0.002", in quotes, in SI units.'
    if not found:
        raise EffbenchError(f"'{text}' is no constraint", where="--subject-to", remedy=remedy)
    try:
        value = float(found[3])
        if not math.isfinite(value):
            raise ValueError
    except ValueError:
        raise EffbenchError(f"'{found[3]}' in '{text}' is no finite number", where="--subject-to", remedy=remedy) from None
    if found[2] not in OPS:
        raise EffbenchError(f"'{found[2]}' in '{text}' is neither <= nor >=", where="--subject-to", remedy=remedy)
    return Constraint(known(found[1], task, "--subject-to"), found[2], value)


def known(name: str, task: TaskInfo, where: str) -> str:
    """The metric's full name; `recall@10` stands for `quality.recall@10`. What the task's tuning looks at is a quality too."""
    qualities = [f"quality.{metric}" for metric in dict.fromkeys((*task.metrics, *filter(None, [task.objective])))]
    if f"quality.{name}" in qualities:
        return f"quality.{name}"
    serve = "serve" in task.phases
    names = [*qualities, *(SERVE if serve else ()), *BUILD]
    if name in names or (OPEN.fullmatch(name) and (serve or not name.startswith("serve."))):
        return name
    if name.startswith("serve.") and not serve:
        raise EffbenchError(f"task '{task.name}' has no serve phase, so no '{name}'", where=where, remedy=suggest(name, names))
    raise EffbenchError(f"unknown metric '{name}' of task '{task.name}'", where=where, remedy=suggest(name, names))


def scale(metric: str) -> str:
    """On which scale effects of settings add up: "reciprocal" for rates, "log" for shares, "linear" for costs."""
    if metric == "serve.throughput":
        return "reciprocal"
    return "log" if metric.startswith("quality.") else "linear"


def scaled(value: float, metric: str, better: str) -> float:
    """A value on its scale, turned so that less is better; monotone in the value."""
    kind = scale(metric)
    if kind == "log" and value < 0:
        kind = "linear"
    moved = {
        "linear": lambda: value,
        "log": lambda: math.log(max(value, LEAST)),
        "reciprocal": lambda: -1 / max(value, 1e-300),
    }[kind]()
    return -moved if better == "higher" else moved


def unscaled(moved: float, metric: str, better: str) -> float:
    """The way back from `scaled`, for values that are not negative."""
    moved = -moved if better == "higher" else moved
    kind = scale(metric)
    if kind == "log":
        return math.exp(min(moved, 700.0))
    return moved if kind == "linear" else -1 / min(moved, -1e-300)

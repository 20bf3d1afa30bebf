"""Puts readings, samples and provenance together into records."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from statistics import median

from ..api.record import MAX_SAMPLES, SCHEMA, reading
from ..measure import MEASURE_VERSION
from ..plan.trial import Trial
from ..stats.interval import geometric_interval
from .provenance import now


@dataclass(frozen=True)
class Provenance:
    """What is the same in every record of one run."""

    suite: str
    environment: str
    commit: str
    tree: str


@dataclass(frozen=True)
class Visit:
    """One turn: medians of its calls, its ratio to the baseline's turn of the same round, and what disturbed it."""

    wall: float
    cpu: float
    ratio: float | None = None
    cpu_ratio: float | None = None
    disturbed: str = ""


@dataclass
class Timing:
    """What the rounds saw of one (case, knobs)."""

    visits: list[Visit] = field(default_factory=list)
    raw: list[list[float]] = field(default_factory=list)  # seconds of single calls, a list per visit
    calls: int = 0
    spent: float = 0.0
    first: float | None = None
    host: list[float] = field(default_factory=list)  # median per visit from call to answer, where the device has its own clock
    how: str = ""
    compile: float | None = None  # seconds of compiling in all turns, where the framework tells

    def add(self, answer: dict, disturbed: str = "") -> None:
        self.visits.append(Visit(median(answer["wall"]), median(answer["cpu"]), disturbed=disturbed))
        self.raw.append(answer["wall"])
        self.calls += answer["calls"]
        self.spent += answer["spent"]
        if self.first is None:
            self.first = answer["first"]
        if "compile" in answer:
            self.compile = (self.compile or 0.0) + answer["compile"]
        if "host" in answer:
            self.host.append(median(answer["host"]))
            self.how = answer["how"]

    def compare(self, baseline: Visit) -> None:
        """Ratios of the last visit to the baseline's visit of the same round; a disturbance of either spoils them."""
        last = self.visits[-1]
        cpu = last.cpu / baseline.cpu if last.cpu > 0 and baseline.cpu > 0 else None
        self.visits[-1] = replace(
            last,
            ratio=last.wall / baseline.wall,
            cpu_ratio=cpu,
            disturbed=last.disturbed or (baseline.disturbed and "the baseline was disturbed"),
        )

    def clean(self) -> list[int]:
        """Visits to use: the undisturbed ones where they are at least half (and three), else all."""
        good = [i for i, visit in enumerate(self.visits) if not visit.disturbed]
        return good if len(good) >= max(3, (len(self.visits) + 1) // 2) else list(range(len(self.visits)))

    def unstable(self) -> str:
        """Why the times are not to be trusted, or ""."""
        bad = [visit.disturbed for visit in self.visits if visit.disturbed]
        if len(self.visits) - len(bad) >= max(3, (len(self.visits) + 1) // 2):
            return ""
        return f"{len(bad)} of {len(self.visits)} turns were disturbed, for example: {bad[0]}" if bad else ""

    def readings(self, items: float | None) -> dict[str, dict]:
        used = self.clean()
        if not used:
            return {}
        ordered = sorted(value for i in used for value in self.raw[i])
        center, low, high = geometric_interval([self.visits[i].wall for i in used])
        disturbed = len(self.visits) - len(used)
        how = (
            f"median of {len(used)} turns"
            + (f", {self.how}" if self.how else "")
            + (f", {disturbed} disturbed ones left out" if disturbed else "")
        )
        out = {
            "serve.latency": reading(
                center,
                "s",
                how=how,
                low=low,
                high=high,
                n=self.calls,
                min=ordered[0],
                p90=quantile(ordered, 0.9),
                p99=quantile(ordered, 0.99),
                cpu=median(self.visits[i].cpu for i in used) or None,
            ),
            "serve.first_call": reading(self.first, "s", how="first call: compilation and cold caches included"),
        }
        if self.host:
            value, below, above = geometric_interval([self.host[i] for i in used])
            out["serve.latency.host"] = reading(
                value, "s", how="from call to answer on the host, one at a time", low=below, high=above
            )
        if items:
            out["serve.throughput"] = reading(
                items / center,
                "item/s",
                how="items / latency",
                low=items / high if high else None,
                high=items / low if low else None,
            )
        for name, field_name in (("serve.latency.ratio", "ratio"), ("serve.cpu.ratio", "cpu_ratio")):
            ratios = [value for i in used if (value := getattr(self.visits[i], field_name)) is not None]
            if ratios:
                value, low, high = geometric_interval(ratios)
                out[name] = reading(value, "1", how="to the baseline's turn of the same round", low=low, high=high, n=len(ratios))
        return out

    def samples(self) -> dict[str, list[float]]:
        used = self.clean()
        raw = [value for i in used for value in self.raw[i]]
        step = max(1, math.ceil(len(raw) / 60))
        ratios = [visit.ratio for i in used if (visit := self.visits[i]).ratio is not None]
        found = {"serve.latency": raw[::step][:MAX_SAMPLES], "serve.latency.ratio": ratios[:MAX_SAMPLES]}
        return {name: values for name, values in found.items() if values}


def quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def record(
    trial: Trial, origin: Provenance, *, status: str = "ok", reason: str = "", case: str = "", knobs: dict | None = None,
    readings: dict | None = None, samples: dict | None = None, curve: dict | None = None, prepared: dict | None = None, loaded: str = "",
    data_digest: str = "", baseline: str = "", notes: list[str] | None = None,
) -> dict:  # fmt: skip
    budget = {name: value for name, value in asdict(trial.budget).items() if value not in (None, "")} if trial.budget else {}
    found = {
        "schema": SCHEMA, "role": trial.role, "key": trial.key, "suite": origin.suite, "area": trial.area, "task": trial.task,
        "task_version": trial.task_version, "method": trial.method, "method_version": trial.method_version, "backend": trial.backend,
        "data": str(trial.data), "size": trial.size, "seed": trial.seed, "device": trial.device, "threads": trial.threads,
        "dtype": trial.dtype, "params": trial.params, "knobs": knobs or {}, "case": case, "budget": budget, "status": status,
        "reason": reason, "readings": readings or {}, "group": trial.group, "environment": origin.environment, "commit": origin.commit,
        "tree": origin.tree, "loaded": loaded, "data_digest": data_digest, "measure_version": MEASURE_VERSION, "time": now(),
    }  # fmt: skip
    optional = {
        "samples": samples,
        "curve": curve,
        "prepared": prepared,
        "tuning": trial.tuning,
        "baseline": baseline,
        "notes": notes,
    }
    return {**found, **{name: value for name, value in optional.items() if value}}


def knobs_key(knobs: dict) -> str:
    return json.dumps(knobs, sort_keys=True)

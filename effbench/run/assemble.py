"""Puts readings, samples and provenance together into records."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
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


@dataclass
class Timing:
    """What the rounds saw of one (case, knobs): a median per turn, ratios to the baseline's turn of the same round."""

    wall: list[float]
    cpu: list[float]
    raw: list[float]
    ratios: list[float]
    cpu_ratios: list[float]
    calls: int = 0
    spent: float = 0.0
    first: float | None = None

    @classmethod
    def empty(cls) -> Timing:
        return cls([], [], [], [], [])

    def add(self, answer: dict) -> None:
        self.wall.append(median(answer["wall"]))
        self.cpu.append(median(answer["cpu"]))
        self.raw += answer["wall"]
        self.calls += answer["calls"]
        self.spent += answer["spent"]
        if self.first is None:
            self.first = answer["first"]

    def readings(self, items: float | None, device: str) -> dict[str, dict]:
        if not self.wall:
            return {}
        ordered = sorted(self.raw)
        center, low, high = geometric_interval(self.wall)
        out = {
            "serve.latency": reading(
                center,
                "s",
                how=f"median of {len(self.wall)} turns",
                low=low,
                high=high,
                n=self.calls,
                min=ordered[0],
                p90=quantile(ordered, 0.9),
                p99=quantile(ordered, 0.99),
                cpu=median(self.cpu),
            ),
            "serve.first_call": reading(self.first, "s", how="first call: compilation and cold caches included"),
        }
        if items:
            out["serve.throughput"] = reading(
                items / center,
                "item/s",
                how="items / latency",
                low=items / high if high else None,
                high=items / low if low else None,
            )
        for name, ratios in (("serve.latency.ratio", self.ratios), ("serve.cpu.ratio", self.cpu_ratios)):
            if ratios:
                value, low, high = geometric_interval(ratios)
                out[name] = reading(value, "1", how="to the baseline's turn of the same round", low=low, high=high, n=len(ratios))
        return out

    def samples(self) -> dict[str, list[float]]:
        step = max(1, math.ceil(len(self.raw) / 60))
        found = {"serve.latency": self.raw[::step][:MAX_SAMPLES], "serve.latency.ratio": self.ratios[:MAX_SAMPLES]}
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

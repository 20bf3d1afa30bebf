"""Tuned settings from committed tuning records: quick suites read them and never search."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ..api import record as records
from ..api.values import Budget
from ..plan.origins import beside
from ..plan.registry import Registry
from . import tuning


def folder() -> Path | None:
    """`results/tuning` in a checkout, its installed copy in a wheel."""
    root = beside("results", "effbench_results")
    return root / "tuning" if root and (root / "tuning").is_dir() else None


class Committed:
    """Looks up the best tuned params of (task, method, data, budget); marks them stale where the sources have changed."""

    def __init__(self, registry: Registry, size: str, where: Path | None = None):
        self.registry, self.size = registry, size
        self.records: list[dict] = []
        where = where or folder()
        for path in sorted(where.rglob("*.jsonl")) if where else []:
            for number, line in enumerate(path.read_bytes().splitlines(), 1):
                found = records.loads(line, f"{path}: line {number}")
                if found["role"] == "tuning":
                    self.records.append(found)

    def __call__(self, task: str, method: str, data: str, budget: Budget | None, device: str) -> tuple[dict, dict] | None:
        wanted = {name: value for name, value in asdict(budget).items() if value not in (None, "")} if budget else {}
        found = [
            record
            for record in self.records
            if (record["task"], record["method"], record["data"], record["budget"]) == (task, method, data, wanted)
            and record["size"] == self.size
        ]
        info = self.registry.methods.get((task, method))
        if info is None:
            return None
        # Trials of this version of the method where there are any; those of an older one only with a mark.
        found = [record for record in found if record["method_version"] == info.version] or found
        best = tuning.best(self.registry.task(task), found)
        if best is None:
            return None
        params = {name: value for name, value in best["params"].items() if name in info.of_kind("param")}
        spent = tuning.spent(found)
        if best["method_version"] != info.version:
            spent["stale"] = True
        return params, spent

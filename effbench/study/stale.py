"""Whether a record was made by the sources that lie here: its content key is built anew and compared."""

from __future__ import annotations

from typing import Any

from ..api.values import Budget
from ..measure import MEASURE_VERSION
from ..plan.registry import Registry
from ..plan.trial import content_key, framework_minor

CURRENT, STALE, UNKNOWN = "current", "stale", "unknown"
PACKAGE = {"native": "numpy"}


class Freshness:
    """Compares records with a registry; sources are digested once a method."""

    def __init__(self, registry: Registry, environments: dict[str, dict]):
        self._registry, self._environments = registry, environments
        self._sources: dict[tuple[str, str], str] = {}
        self._known: dict[tuple[str, str], tuple[str, str]] = {}

    def of(self, record: dict) -> tuple[str, str]:
        """(CURRENT, STALE or UNKNOWN, why). The framework is taken as the record's machine had it: only sources and settings count."""
        trial = (record["key"], record["environment"])
        if trial not in self._known:
            self._known[trial] = self._of(record)
        return self._known[trial]

    def _of(self, record: dict) -> tuple[str, str]:
        name = (record["task"], record["method"])
        if record["role"] == "prepared":
            return UNKNOWN, "prepared material belongs to no method"
        if name not in self._registry.methods or record["task"] not in self._registry.tasks:
            return UNKNOWN, "this tree has no such method"
        if record["measure_version"] != MEASURE_VERSION:
            return STALE, f"measured by version {record['measure_version']} of the measuring code; this is {MEASURE_VERSION}"
        if record["budget"].get("like"):
            return UNKNOWN, f"its budget copies that of {record['budget']['like']}, whose settings are not in the record"
        task, method = self._registry.tasks[record["task"]], self._registry.methods[name]
        if name not in self._sources:
            self._sources[name] = self._registry.source_digest(method.file.absolute, task.file.absolute)
        try:
            budget = Budget(**record["budget"]) if record["budget"] else None
        except (TypeError, ValueError):
            return UNKNOWN, "its budget cannot be read"
        now = content_key(
            self._registry, task, method, source=self._sources[name], framework=[method.backend, self._framework(record, method.backend)],
            data=record["data"], size=record["size"], params=record["params"], budget=budget, like=None, seed=record["seed"],
            dtype=record.get("dtype", ""), threads=record["threads"], device=record["device"], role=record["role"],
        )  # fmt: skip
        if now == record["key"]:
            return CURRENT, "made by the sources that lie here"
        return STALE, "method, task, settings or what they import have changed since"

    def _framework(self, record: dict, backend: str) -> str:
        versions: Any = self._environments.get(record["environment"], {}).get("versions")
        version = versions.get(PACKAGE.get(backend, backend)) if isinstance(versions, dict) else None
        return ".".join(version.split(".")[:2]) if isinstance(version, str) else framework_minor(backend)

"""What all pages of one site share: records by group, method and task, what the present sources say of them, and the drawer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...api.errors import EffbenchError
from ...plan.registry import MethodInfo, Registry, TaskInfo
from ...study.records import Loaded
from ...study.replay import commands, remark
from ...study.stale import CURRENT, STALE, UNKNOWN, Freshness
from .. import format as fmt
from ..drawing import Style
from ..groups import Directions, Group, groups, machine
from . import links
from .store import Shards


class Content:
    def __init__(self, loaded: Loaded, registry: Registry | None, claims: Sequence[dict], better: Directions):
        self.loaded, self.registry, self.claims = loaded, registry, list(claims)
        self.groups = groups(loaded, better=better)
        self._styles: dict[str, Style] = {}
        self.shards = Shards()
        self._places: dict[int, str] = {}
        self._fresh = Freshness(registry, loaded.environments) if registry else None
        self.areas: dict[str, dict[str, list[Group]]] = {}
        for group in self.groups:
            area = next((r["area"] for row in group.rows for r in row.records), "") or next(
                (r["area"] for r in (*group.failed, *group.prepared, *group.tuning)), ""
            )
            self.areas.setdefault(area, {}).setdefault(group.key["task"], []).append(group)
        self.tasks = {task: made for tasks in self.areas.values() for task, made in tasks.items()}
        self.area_of = {task: area for area, tasks in self.areas.items() for task in tasks}
        self.methods: dict[tuple[str, str], list[dict]] = {}
        for group in self.groups:
            for record in (*(r for row in group.rows for r in row.records), *group.failed, *group.tuning):
                self.methods.setdefault((record["task"], record["method"]), []).append(record)

    def style(self, task: str) -> Style:
        """The looks of a task's methods, the same on all its pages."""
        if task not in self._styles:
            self._styles[task] = Style([method for of, method in self.methods if of == task])
        return self._styles[task]

    # -- what the present sources say -----------------------------------------------------------------------------------

    def task(self, name: str) -> TaskInfo | None:
        return self.registry.tasks.get(name) if self.registry else None

    def method(self, task: str, name: str) -> MethodInfo | None:
        return self.registry.methods.get((task, name)) if self.registry else None

    def stale(self, records: Iterable[dict]) -> tuple[str, str]:
        """The worst state of several records, and why."""
        if self._fresh is None:
            return UNKNOWN, "the sources of this tree could not be read"
        found = dict(self._fresh.of(record) for record in records)
        state = next(state for state in (STALE, UNKNOWN, CURRENT) if state in found)
        return state, found[state]

    def quality(self, group: Group) -> str:
        """The quality that fronts are drawn with: the task's objective, else the first that has values."""
        task = self.task(group.key["task"])
        present = [n for n in group.names if n.startswith("quality.") and any(row.value(n) is not None for row in group.rows)]
        wanted = f"quality.{task.objective.removeprefix('quality.')}" if task and task.objective else ""
        return wanted if wanted in present else next(iter(present), "")

    # -- the drawer -------------------------------------------------------------------------------------------------------

    def drawer(self, records: Iterable[dict]) -> str:
        """Where the drawer finds these records: "shard:place,place"."""
        records = list(records)
        shard = f"{links.slug(records[0]['task'])}--{links.slug(records[0]['method'])}"
        places = []
        for record in records:
            if id(record) not in self._places:
                self._places[id(record)] = str(self.shards.add(shard, self._shown(record)))
            places.append(self._places[id(record)])
        return f"{shard}:{','.join(places)}"

    def _shown(self, record: dict) -> dict:
        state, why = self.stale([record])
        return {
            **record, "replay": commands(record), "remark": remark(record), "stale": state, "why": why,
            "machine": machine(record["environment"], self.loaded.environments), "anchor": links.anchor(record["environment"]),
        }  # fmt: skip

    # -- words ------------------------------------------------------------------------------------------------------------

    def machines(self, records: Iterable[dict]) -> list[str]:
        return sorted({machine(record["environment"], self.loaded.environments) for record in records})

    def counts(self) -> dict[str, int]:
        """How many claims have each verdict."""
        found: dict[str, int] = {}
        for claim in self.claims:
            found[claim["verdict"]] = found.get(claim["verdict"], 0) + 1
        return dict(sorted(found.items()))


def registry_or_none() -> tuple[Registry | None, list[str]]:
    """The present sources; without them a site is made all the same, and says so."""
    try:
        registry = Registry.read()
    except EffbenchError as error:
        return None, [f"no technique files: {error}"]
    return registry, []


def first_paragraph(text: str) -> str:
    return fmt.clean(" ".join(text.split("\n\n")[0].split()), 1000)

"""All tasks and methods, read from source text: listing them and checking a suite imports no technique and no framework."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..api.errors import RegistryError, suggest
from ..api.method import BACKENDS
from ..api.param import Setting
from ..api.values import Case, Claim, Data, Metric
from . import source
from .origins import Origin, digest_files, own_origin, plugin_origins
from .outline import Outlines
from .source import ClassText, SourceFile


@dataclass(frozen=True)
class TaskInfo:
    name: str
    version: int
    title: str
    area: str
    cls: str
    file: SourceFile = field(repr=False)
    interface: tuple[str, str]  # (absolute module, class name)
    phases: tuple[str, ...]
    data: tuple[Data, ...]
    cases: tuple[Case, ...]
    metrics: dict[str, Metric]
    baselines: tuple[str, ...]
    replicates: int
    objective: str
    prepares: tuple[str, ...] | None
    doc: str = ""


@dataclass(frozen=True)
class MethodInfo:
    name: str
    version: int
    backend: str
    deterministic: bool
    area: str
    cls: str
    file: SourceFile = field(repr=False)
    settings: dict[str, Setting]
    claims: tuple[Claim, ...]
    tasks: tuple[str, ...]
    doc: str = ""

    def of_kind(self, kind: str) -> dict[str, Setting]:
        return {name: setting for name, setting in self.settings.items() if setting.kind == kind}


class Registry:
    def __init__(self):
        self.tasks: dict[str, TaskInfo] = {}
        self.methods: dict[tuple[str, str], MethodInfo] = {}  # (task, method)
        self.problems: list[str] = []
        self.files: dict[str, SourceFile] = {}  # absolute module -> file

    def directions(self) -> dict[tuple[str, str], str]:
        """(task, "quality.x") -> "higher" or "lower": of each task its objective first, then its metrics as they are declared."""
        found = {}
        for name, task in self.tasks.items():
            for metric in sorted(task.metrics, key=lambda metric: metric != task.objective):
                found[name, f"quality.{metric}"] = task.metrics[metric].better
        return found

    @classmethod
    def read(cls, origins: Iterable[Origin] | None = None) -> Registry:
        """Read our own folder and every plug-in; what cannot be read is a problem with its origin, and the rest stays."""
        registry = cls()
        if origins is None:
            plugins, registry.problems = plugin_origins()
            origins = [own_origin(), *plugins]
        origins, outlines = list(origins), Outlines()
        for origin in origins:
            for path in sorted(origin.folder.rglob("*.py")):
                if any(part.startswith((".", "_")) and part != "__init__.py" for part in path.relative_to(origin.folder).parts):
                    continue
                found = source.read(origin, path, outlines)
                registry.files[found.absolute] = found
                registry.problems += found.problems
        for found in registry.files.values():
            for text in found.classes.values():
                if text.attributes.get("name") and registry._root(found, text) == "Task":
                    registry._add_task(found, text)
        for found in registry.files.values():
            for text in found.classes.values():
                if text.attributes.get("name") and registry._root(found, text) == "Method":
                    registry._add_method(found, text)
        outlines.keep()
        return registry

    # -- reading ------------------------------------------------------------------------------------------------------

    def _resolve(self, found: SourceFile, name: str) -> tuple[SourceFile, ClassText] | None:
        """The class that a name in a file means, followed through imports."""
        for _ in range(8):
            if name in found.classes:
                return found, found.classes[name]
            module, original = found.imports.get(name, ("", ""))
            if module not in self.files:
                return None
            found, name = self.files[module], original
            source.parse(found)
        return None

    def _lineage(self, found: SourceFile, text: ClassText) -> list[tuple[SourceFile, ClassText]]:
        """The class and its bases as far as they are technique files, nearest first."""
        line, queue = [], [(found, text)]
        while queue and len(line) < 32:
            item = queue.pop(0)
            line.append(item)
            queue += [base for name in item[1].bases if (base := self._resolve(item[0], name))]
        return line

    def _root(self, found: SourceFile, text: ClassText) -> str:
        """ "Task", "Method" or "": which of effbench's two classes the lineage ends in."""
        for file, item in self._lineage(found, text):
            for base in item.bases:
                module, original = file.imports.get(base, ("", ""))
                if original in ("Task", "Method") and module.split(".")[0] == "effbench":
                    return original
                if base in ("Task", "Method") and module == "effbench":
                    return base
        return ""

    def _attributes(self, found: SourceFile, text: ClassText) -> dict:
        merged: dict = {}
        for _, item in reversed(self._lineage(found, text)):
            merged.update(item.attributes)
        return merged

    def _add_task(self, found: SourceFile, text: ClassText) -> None:
        values = self._attributes(found, text)
        interface = next(((file, item.interface) for file, item in self._lineage(found, text) if item.interface), None)
        resolved = self._resolve(*interface) if interface else None
        if resolved is None:
            self.problems.append(
                f"{found.origin.source}: {found.path}: task '{values['name']}' names no interface class that can be found"
            )
            return
        other = self.tasks.get(values["name"])
        if other:
            self._clash("task", values["name"], found, other.file)
            return
        self.tasks[values["name"]] = TaskInfo(
            values["name"], values.get("version", 1), values.get("title", ""), found.area, text.name, found,
            (resolved[0].absolute, resolved[1].name), tuple(values.get("phases", ("build", "serve"))), tuple(values.get("data", ())),
            tuple(values.get("cases", ())), dict(values.get("metrics", {})), tuple(values.get("baselines", ())),
            values.get("replicates", 1), values.get("objective", ""), values.get("prepares"), text.doc or found.doc,
        )  # fmt: skip

    def _add_method(self, found: SourceFile, text: ClassText) -> None:
        values = self._attributes(found, text)
        lineage = {(file.absolute, item.name) for file, item in self._lineage(found, text)}
        tasks = tuple(sorted(task.name for task in self.tasks.values() if task.interface in lineage))
        where = f"{found.origin.source}: {found.path}"
        if not tasks:
            self.problems.append(f"{where}: method '{values['name']}' derives from no task's interface")
            return
        if values.get("backend", "numpy") not in BACKENDS:
            self.problems.append(
                f"{where}: method '{values['name']}': unknown backend '{values['backend']}' {suggest(values['backend'], BACKENDS)}"
            )
            return
        settings = {name: value for name, value in values.items() if isinstance(value, Setting)}
        for name, setting in settings.items():
            setting.__set_name__(None, name)
        info = MethodInfo(
            values["name"], values.get("version", 1), values.get("backend", "numpy"), values.get("deterministic", False),
            found.area, text.name, found, settings, tuple(values.get("claims", ())), tasks, found.doc,
        )  # fmt: skip
        for task in tasks:
            other = self.methods.get((task, info.name))
            if other:
                self._clash("method", f"{task}/{info.name}", found, other.file)
            else:
                self.methods[task, info.name] = info

    def _clash(self, kind: str, name: str, found: SourceFile, other: SourceFile) -> None:
        self.problems.append(
            f"{found.origin.source}: {found.path}: {kind} '{name}' is already registered by {other.origin.source} ({other.path}); "
            "this one is left out. Rename one of them."
        )

    # -- asking -------------------------------------------------------------------------------------------------------

    def task(self, name: str, where: str = "") -> TaskInfo:
        if name not in self.tasks:
            raise RegistryError(f"no task '{name}'", where=where, remedy=suggest(name, self.tasks))
        return self.tasks[name]

    def method(self, task: str, name: str, where: str = "") -> MethodInfo:
        if (task, name) not in self.methods:
            known = [method for of, method in self.methods if of == task]
            raise RegistryError(f"task '{task}' has no method '{name}'", where=where, remedy=suggest(name, known))
        return self.methods[task, name]

    def find(self, name: str) -> list[MethodInfo]:
        """All methods of this name, over all tasks; `task/name` and `area/name` narrow it."""
        head, _, tail = name.rpartition("/")
        found = [info for (task, method), info in self.methods.items() if method == tail and head in ("", task, info.area)]
        if not found:
            raise RegistryError(f"no method '{name}'", remedy=suggest(tail, {method for _, method in self.methods}))
        return list({id(info): info for info in found}.values())

    def methods_of(self, task: str) -> dict[str, MethodInfo]:
        return {name: info for (of, name), info in sorted(self.methods.items()) if of == task}

    def closure(self, *modules: str) -> list[Path]:
        """The technique files that these modules import, themselves included, across origins."""
        seen: set[str] = set()
        queue = list(modules)
        while queue:
            module = queue.pop()
            if module in seen or module not in self.files:
                continue
            seen.add(module)
            source.parse(self.files[module])
            queue += [name for name in self.files[module].modules if name in self.files]
            queue.append(module.rpartition(".")[0])
        return sorted(self.files[module].path for module in seen)

    def source_digest(self, *modules: str) -> str:
        """Digest of `closure`: the part of a content key that changes when the technique or what it builds on changes."""
        by_origin: dict[Path, list[Path]] = {}
        for path in self.closure(*modules):
            origin = next(file.origin for file in self.files.values() if file.path == path)
            by_origin.setdefault(origin.folder, []).append(path)
        return "-".join(digest_files(folder, files) for folder, files in sorted(by_origin.items()))

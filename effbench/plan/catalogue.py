"""What is there, as plain data for `effbench list` and `effbench show`."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from typing import Any

from ..api.errors import RegistryError, suggest
from . import suite as suites
from .registry import MethodInfo, Registry


def catalogue(area: str | None = None) -> dict[str, Any]:
    registry = Registry.read()
    tasks = [task for task in registry.tasks.values() if area in (None, task.area, task.name)]
    if not tasks:
        known = {task.area for task in registry.tasks.values()} | set(registry.tasks)
        raise RegistryError(f"no area or task '{area}'", remedy=suggest(area or "", known))
    return {
        "tasks": [
            {
                "name": task.name, "area": task.area, "title": task.title, "phases": list(task.phases), "data": [str(d) for d in task.data],
                "cases": [case.name for case in task.cases], "metrics": {name: metric.better for name, metric in task.metrics.items()},
                "baselines": list(task.baselines),
                "methods": [
                    {"name": name, "backend": info.backend, "claims": len(info.claims), "idea": first_sentence(info.doc),
                     "origin": info.file.origin.source}
                    for name, info in registry.methods_of(task.name).items()
                ],
            }
            for task in tasks
        ],
        "suites": [] if area else suites.names(),
        "problems": registry.problems,
    }  # fmt: skip


def first_sentence(doc: str) -> str:
    line = " ".join(doc.split("\n\n")[0].split())
    return line if len(line) <= 110 else line[:107].rsplit(" ", 1)[0] + "..."


def text(found: dict) -> str:
    lines = []
    for task in found["tasks"]:
        lines.append(f"{task['area']}: {task['name']}" + (f" - {task['title']}" if task["title"] else ""))
        lines.append(f"  data: {', '.join(task['data'])}")
        if task["cases"]:
            lines.append(f"  cases: {', '.join(task['cases'])}")
        for method in task["methods"]:
            mark = "*" if method["name"] in task["baselines"] else " "
            lines.append(f"  {mark} {method['name']:<22} {method['backend']:<7} {method['idea']}")
        lines.append("")
    if found["suites"]:
        lines.append(f"suites: {', '.join(found['suites'])}")
    lines.append("* is a baseline. Next: effbench show METHOD, effbench run SUITE --plan")
    lines += [f"problem: {problem}" for problem in found["problems"]]
    return "\n".join(lines)


def describe(name: str) -> list[dict[str, Any]]:
    registry = Registry.read()
    return [_method(info) for info in registry.find(name)]


def _method(info: MethodInfo) -> dict[str, Any]:
    return {
        "name": info.name, "version": info.version, "area": info.area, "tasks": list(info.tasks), "backend": info.backend,
        "deterministic": info.deterministic, "file": str(info.file.path), "origin": info.file.origin.source, "text": info.doc,
        "settings": {
            name: {"kind": s.kind, "default": s.default, "sweep": list(s.sweep), "tune": repr(s.tune) if s.tune else ""}
            for name, s in info.settings.items()
        },
        "claims": [asdict(claim) for claim in info.claims],
    }  # fmt: skip


def text_of_method(found: dict) -> str:
    lines = [
        f"{found['name']} (version {found['version']}, {found['backend']}, {found['origin']})",
        f"tasks: {', '.join(found['tasks'])}",
    ]
    lines += [f"file: {found['file']}", "", textwrap.indent(found["text"], "  "), ""]
    for name, setting in found["settings"].items():
        more = f", sweep {setting['sweep']}" if setting["sweep"] else ""
        more += f", tune {setting['tune']}" if setting["tune"] else ""
        lines.append(f"{setting['kind']} {name} = {setting['default']!r}{more}")
    for claim in found["claims"]:
        lines += ["", f"claim: {claim['text']}", f"  source: {claim['source']}"]
        for part in claim["parts"]:
            over = f" over {part['over']}" if part["over"] else ""
            at = f" at {part['at']}" if part["at"] else ""
            place = "".join(f" ({name} {part[name]})" for name in ("case", "data") if part[name])
            lines.append(f"  promises {part['metric']} {part['op']} {part['value']:g}{over}{at}{place}")
        if claim["untestable"]:
            lines.append(f"  not testable here: {claim['untestable']}")
    return "\n".join(lines)

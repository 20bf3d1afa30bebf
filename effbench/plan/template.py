"""`effbench new method`: the file of a new method and its test, ready to fill in. The task's interface is read, never imported."""

from __future__ import annotations

import ast
import keyword
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from ..api.errors import EffbenchError, suggest
from .origins import OWN
from .registry import Registry, TaskInfo
from .source import ClassText, SourceFile

KINDS = ("method",)

METHOD = '''\
"""{title}: the idea, in three lines. What is saved, and what is paid for it?

Paper: authors, title, year, arXiv id. What the paper promises, and at which size.
Left out: what the paper has and this file has not.
"""

from __future__ import annotations

from effbench import {imports}

from {module} import {interface}


class {cls}({interface}):
    name = "{name}"
    version = 1  # raise it when the answers or the work change
    backend = "{backend}"  # numpy | torch | jax | native
{settings}
{stubs}'''

TEST = '''\
"""{title}: it does what its source says, and the oracle here would notice if it did not."""

import pytest
from {package}.{file} import {cls}
from {task_module} import {task_cls}

{budget_import}from effbench.run.exercise import exercise

UNFINISHED = pytest.mark.xfail(raises=NotImplementedError, strict=True, reason="not written yet: remove this mark with the stubs")


def oracle(outcome: dict) -> bool:
    """Whether a trial's readings are what they must be, by a way that shares no code with the method: an identity, brute force
    in float64, a bound that is proved in the paper."""
    raise NotImplementedError("say what must hold of the readings, such as outcome['quality'] or outcome[case, knobs]")


class Broken({cls}):
    """The method with one deliberate slip that keeps the answer's form (a forgotten scale, an index one off)."""


def outcome(method) -> dict:
    """One trial at smoke size, in this process."""
    return exercise({task_cls}, method{budget})


@UNFINISHED
def test_the_oracle_accepts_the_method():
    assert oracle(outcome({cls}))


@UNFINISHED
def test_the_oracle_rejects_a_broken_variant():
    assert not oracle(outcome(Broken))
'''


@dataclass(frozen=True)
class Stub:
    """A method of the interface: its signature without annotations, its docstring, whether it must be written."""

    name: str
    signature: str
    doc: str
    required: bool


def make(kind: str, name: str, task: str, folder: Path | None = None) -> str:
    """Write the file and, in a checkout, its test. Returns what to do next. EffbenchError where something is in the way."""
    if kind not in KINDS:
        raise EffbenchError(f"cannot make a '{kind}'", where="effbench new", remedy=suggest(kind, KINDS))
    registry = Registry.read()
    info = registry.task(task, "--task")
    file_name = check_name(name)
    if (task, name) in registry.methods:
        other = registry.methods[task, name].file.path
        raise EffbenchError(f"task '{task}' already has a method '{name}'", where=str(other), remedy="Choose another name.")
    home = info.file.path.parent
    target = (folder or own_area(info)) / f"{file_name}.py"
    inside = target.parent.resolve() == home.resolve()
    tests = info.file.origin.folder.parent / "tests" / "techniques"
    test = tests / f"test_{file_name}.py" if inside and tests.parent.is_dir() else None
    parts = parts_of(registry, info, name, file_name, inside)
    files = {target: METHOD.format(**parts)} | ({test: TEST.format(**parts)} if test else {})
    for path in files:
        if path.exists():
            raise EffbenchError("there is a file already", where=str(path), remedy="Choose another name; nothing was written.")
    for path, text in files.items():
        write(path, text)
    return next_steps(name, task, target, test)


def check_name(name: str) -> str:
    """The file's name for a method's name."""
    if not re.fullmatch(r"[a-z][a-z0-9]*([+-]+[a-z0-9]+)*\+?", name) or len(name) > 60:
        raise EffbenchError(
            f"'{name}' is not a name for a method", where="effbench new",
            remedy="Write small letters, digits, '-' and '+', a letter first, as my-index.",
        )  # fmt: skip
    found = re.sub(r"_+", "_", name.replace("-", "_").replace("+", "_plus_")).strip("_")
    if keyword.iskeyword(found) or found in ("task", "test"):
        raise EffbenchError(f"'{name}' cannot be a file's name", where="effbench new", remedy=f"Take another, as my-{name}.")
    return found


def own_area(info: TaskInfo) -> Path:
    """The task's area in a checkout. An installed copy is not a place to write to."""
    origin = info.file.origin
    if origin.package == OWN and origin.folder.name != OWN:
        return info.file.path.parent
    raise EffbenchError(
        f"task '{info.name}' is installed, not in a checkout", where=str(origin.folder),
        remedy="Add --folder with a folder of your own package.",
    )  # fmt: skip


def parts_of(registry: Registry, info: TaskInfo, name: str, file_name: str, inside: bool) -> dict[str, str]:
    module, interface = info.interface
    found = registry.files[module]
    lineage = registry._lineage(found, found.classes[interface])
    stubs = stubs_of(lineage)
    wanted = [stub for stub in stubs if stub.required] or stubs or [Stub("build", "self, given, run", "", True)]
    serve = "serve" in info.phases
    taken = {stub.name for stub in stubs} | {name for _, text in lineage for name in text.attributes}
    settings = [f"{free('strength', taken)} = param(1.0, sweep=(0.5, 1.0, 2.0))  # fixed before the build; its unit, its meaning"]
    if serve:
        settings.append(f"{free('effort', taken)} = knob(4, sweep=(1, 4, 16))  # may change between calls")
    package = info.file.absolute.rpartition(".")[0]
    local = module.rpartition(".")[2] if module.rpartition(".")[0] == package else None
    needs_budget = "budget" in found.path.read_text(encoding="utf-8")
    return {
        "title": name, "name": name, "file": file_name, "package": package, "interface": interface, "cls": class_name(file_name),
        "imports": "knob, param" if serve else "param", "module": f".{local}" if inside and local else module,
        "backend": backend(registry, info), "settings": textwrap.indent("\n".join(settings), "    ") + "\n",
        "stubs": "\n\n".join(text_of(stub) for stub in wanted) + "\n", "task_module": info.file.absolute, "task_cls": info.cls,
        "budget": ", budget=Budget(steps=20)" if needs_budget else "",
        "budget_import": "from effbench import Budget\n" if needs_budget else "",
    }  # fmt: skip


def class_name(file_name: str) -> str:
    return "".join(part.capitalize() for part in file_name.split("_"))


def free(name: str, taken: set[str]) -> str:
    return name if name not in taken else f"my_{name}"


def backend(registry: Registry, info: TaskInfo) -> str:
    """As the first baseline's: what new methods of the task are compared with."""
    known = registry.methods_of(info.name)
    first = next((known[name] for name in info.baselines if name in known), None)
    return first.backend if first else "numpy"


def stubs_of(lineage: list[tuple[SourceFile, ClassText]]) -> list[Stub]:
    """What the interface leaves open: bodies that only raise must be written, bodies that are empty may be."""
    found: dict[str, Stub | None] = {}
    for file, text in lineage:
        tree = ast.parse(file.path.read_text(encoding="utf-8"))
        cls = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == text.name)
        for node in cls.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                found.setdefault(node.name, stub(node))  # nearest first: what a nearer class has written is not open
    return [item for item in found.values() if item]


def stub(node: ast.FunctionDef) -> Stub | None:
    doc = ast.get_docstring(node) or ""
    rest = node.body[1:] if doc else node.body
    only_raises = len(rest) == 1 and isinstance(rest[0], ast.Raise)
    empty = all(isinstance(item, ast.Pass) for item in rest)
    if node.decorator_list or not (only_raises or empty):
        return None
    for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]:
        argument.annotation = None
    return Stub(node.name, ast.unparse(node.args), doc, only_raises)


def text_of(stub: Stub) -> str:
    lines = [f"def {stub.name}({stub.signature}):"]
    if stub.doc:
        doc = stub.doc if "\n" not in stub.doc else stub.doc + "\n"
        lines.append(textwrap.indent(f'"""{doc}"""', "    "))
    lines.append(f'    raise NotImplementedError("{stub.name}: say what is missing")')
    return textwrap.indent("\n".join(lines), "    ")


def write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise EffbenchError(
            f"cannot write ({error.strerror})", where=str(path), remedy="Choose another place with --folder."
        ) from None


def shown(path: Path) -> Path:
    """As short as a person would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def next_steps(name: str, task: str, target: Path, test: Path | None) -> str:
    target, test = shown(target), test and shown(test)
    lines = [f"wrote {target}"] + ([f"wrote {test}"] if test else [])
    lines += ["", "Next:", "  1. write the stubs, and the three lines of the idea with the paper"]
    if test:
        lines += [
            "  2. write the oracle and the slip in the test, and take the two xfail marks away:",
            f"       python -m pytest {test}",
            f"  3. effbench run smoke --task {task}",
            f"  4. effbench check {name}",
        ]
    else:
        lines += [
            f"  2. effbench check {target}",
            "  3. register the package that holds it: an entry point in the group effbench.plugins; then it runs as any other",
        ]
    return "\n".join(lines)

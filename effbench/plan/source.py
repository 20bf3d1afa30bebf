"""One technique file as the registry sees it: its classes, their literal attributes, and what it imports. Nothing is run."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from .literals import NotLiteral, literal
from .origins import OWN, Origin
from .outline import Outlines, outline

# What the registry reads of a class body. Everything else in a class is left alone.
READ = {"name", "version", "title", "backend", "deterministic", "claims", "phases", "data", "cases", "metrics", "baselines"}
IMPORTS = (ast.Import, ast.ImportFrom)
DERIVED = re.compile(rb"^class \w+\(", re.MULTILINE)
READ |= {"replicates", "objective", "prepares"}


@dataclass(frozen=True)
class ClassText:
    """A class statement: its bases as names, and its literal attributes."""

    name: str
    bases: tuple[str, ...]
    attributes: dict
    interface: str  # the name assigned to `interface`, if any
    doc: str
    line: int


@dataclass
class SourceFile:
    origin: Origin
    path: Path
    module: str  # "search.ivf", relative to the origin's package
    classes: dict[str, ClassText] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)  # local name -> (absolute module, name or "")
    modules: set[str] = field(default_factory=set)  # absolute modules imported
    doc: str = ""
    problems: list[str] = field(default_factory=list)
    parsed: bool = True

    @property
    def area(self) -> str:
        return self.module.split(".")[0] if "." in self.module else self.origin.package

    @cached_property
    def absolute(self) -> str:
        return f"{self.origin.package}.{self.module}" if self.module else self.origin.package


def read(origin: Origin, path: Path, outlines: Outlines | None = None) -> SourceFile:
    parts = path.relative_to(origin.folder).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    found = SourceFile(origin, path, ".".join(parts), parsed=False)
    # A file of ours without a derived class registers nothing: it is parsed when somebody asks what it imports. Other people's
    # files are always parsed, so that a broken one is reported.
    content = path.read_bytes()
    if origin.package != OWN or DERIVED.search(content):
        parse(found, content, outlines)
    return found


def parse(found: SourceFile, content: bytes | None = None, outlines: Outlines | None = None) -> None:
    """Fill in classes and imports, once; from the file's outline where one is kept."""
    if found.parsed:
        return
    content = found.path.read_bytes() if content is None else content
    kept = outlines.get(content) if outlines else None
    try:
        tree = ast.parse(content if kept is None else kept, filename=str(found.path))
    except (SyntaxError, ValueError) as error:
        found.parsed = True
        found.problems.append(f"{found.origin.source}: {found.path}: not valid Python ({error})")
        return
    _fill(found, tree)
    if outlines and kept is None and not found.problems:
        _outline(found, content, tree, outlines)


def _outline(found: SourceFile, content: bytes, tree: ast.Module, outlines: Outlines) -> None:
    """Keep the file's outline, if it reads as the file does."""
    text = outline(content, tree, [node for node in statements(tree.body) if isinstance(node, IMPORTS)], _wanted)
    again = SourceFile(found.origin, found.path, found.module, parsed=False)
    try:
        _fill(again, ast.parse(text))
    except SyntaxError:
        return
    if again == found:
        outlines.put(content, text)


def _wanted(node: ast.stmt) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    if not targets or node.value is None:
        return False
    pairs = list(_assigned(targets, node.value))
    return any(name in READ or name == "interface" or _is_setting(item) for name, item in pairs)


def _fill(found: SourceFile, tree: ast.Module) -> None:
    found.parsed = True
    found.doc = ast.get_docstring(tree) or ""
    package = found.absolute if found.path.name == "__init__.py" else found.absolute.rpartition(".")[0]
    for node in statements(tree.body):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                above = package.split(".")
                base = ".".join(above[: len(above) - (node.level - 1)])
                module = f"{base}.{module}" if module else base
            found.modules.add(module)
            for alias in node.names:
                found.imports[alias.asname or alias.name] = (module, alias.name)
                found.modules.add(f"{module}.{alias.name}")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                found.modules.add(alias.name)
                found.imports[alias.asname or alias.name.split(".")[0]] = (alias.name, "")
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found.classes[node.name] = _class(node, found)


def statements(body: list[ast.stmt]):
    """All statements below, also those inside functions. Imports are statements: expressions, most of a tree, are left alone."""
    for node in body:
        yield node
        for name in ("body", "orelse", "finalbody"):
            yield from statements(getattr(node, name, ()))
        for inner in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            yield from statements(inner.body)


def _class(node: ast.ClassDef, found: SourceFile) -> ClassText:
    attributes, interface = {}, ""
    for statement in node.body:
        if isinstance(statement, ast.Assign):
            targets, value = statement.targets, statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets, value = [statement.target], statement.value
        else:
            continue
        for name, item in _assigned(targets, value):
            if name == "interface" and isinstance(item, (ast.Name, ast.Attribute)):
                interface = item.id if isinstance(item, ast.Name) else item.attr
                continue
            if name in READ or _is_setting(item):
                try:
                    attributes[name] = literal(item)
                except NotLiteral as error:
                    found.problems.append(f"{found.origin.source}: {found.path}: {node.name}.{name}: {error}")
    bases = tuple(
        base.id if isinstance(base, ast.Name) else base.attr for base in node.bases if isinstance(base, (ast.Name, ast.Attribute))
    )
    return ClassText(node.name, bases, attributes, interface, ast.get_docstring(node) or "", node.lineno)


def _is_setting(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("param", "knob")


def _assigned(targets, value):
    """Pairs of name and expression; `name, version = "a", 1` gives two."""
    for target in targets:
        if isinstance(target, ast.Name):
            yield target.id, value
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            for left, right in zip(target.elts, value.elts):
                if isinstance(left, ast.Name):
                    yield left.id, right

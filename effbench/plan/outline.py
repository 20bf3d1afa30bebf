"""Outlines of technique files, kept between processes: what the registry reads of a file, on the lines where it stands.

Parsing the bodies of all functions is most of what listing the techniques costs, and nothing in them is read but imports. An
outline is Python text that goes through the same reader. It is found by the sha256 of the whole file, so that it is never old.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import tempfile
from pathlib import Path

NAME = "outlines-1.json"
LIMIT = 4000  # files; an outline has a few hundred bytes


class Outlines:
    """Outlines by the digest of their files; `keep` writes what is new. A folder that cannot be used costs only time."""

    def __init__(self, folder: Path | None = None):
        try:
            self.path = (folder or _folder()) / NAME
        except RuntimeError:  # a user without a home
            self.path = Path(os.devnull) / NAME
        self.fresh = False
        try:
            found = json.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError):
            found = {}
        self.texts = found if isinstance(found, dict) and all(isinstance(text, str) for text in found.values()) else {}

    def get(self, content: bytes) -> str | None:
        return self.texts.get(hashlib.sha256(content).hexdigest())

    def put(self, content: bytes, text: str) -> None:
        self.texts[hashlib.sha256(content).hexdigest()] = text
        self.fresh = True

    def keep(self) -> None:
        if not self.fresh:
            return
        self.fresh = False
        newest = dict(list(self.texts.items())[-LIMIT:])
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self.path.parent, suffix=".part", delete=False, encoding="utf-8") as stream:
                json.dump(newest, stream)
            os.replace(stream.name, self.path)
        except OSError:
            pass


def _folder() -> Path:
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(xdg) if os.path.isabs(xdg) else Path.home() / ".cache") / "effbench" / "registry"


def outline(content: bytes, tree: ast.Module, imports: list[ast.stmt], wanted) -> str:
    """The text of a file without what `wanted(statement of a class body)` does not name; imports of functions come at the end."""
    lines = content.decode("utf-8").splitlines()
    out, last = [""] * len(lines), []

    def copy(node: ast.stmt) -> None:
        out[node.lineno - 1 : node.end_lineno] = lines[node.lineno - 1 : node.end_lineno]

    for place, node in enumerate(tree.body):
        if place == 0 and _is_text(node):
            copy(node)
        elif isinstance(node, ast.ClassDef):
            bases = ", ".join(ast.unparse(base) for base in node.bases)
            kept = [item for index, item in enumerate(node.body) if wanted(item) or (index == 0 and _is_text(item))]
            for item in kept:
                copy(item)
            out[node.lineno - 1] = f"class {node.name}({bases}):" + ("" if kept else " pass")
    for node in imports:
        if node in tree.body:
            copy(node)
        else:
            last.append(ast.unparse(node))
    return "\n".join([*out, *last]).rstrip() + "\n"


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)

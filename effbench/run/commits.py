"""Two commits of one repository: what changed between them, and a worktree of each in a temporary folder."""

from __future__ import annotations

import re
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..api.errors import RunError
from ..plan.origins import OWN, Origin

TECHNIQUES = "implementations"
ENGINE = ("effbench/api", "effbench/backends", "effbench/data", "effbench/measure", "effbench/run")
WORKER = "effbench/run/worker.py"


@dataclass(frozen=True)
class Change:
    """BASE..HEAD, resolved. `files` are paths from the repository's root that differ between the two."""

    repository: Path
    base: str
    head: str
    text: str  # as the person wrote it
    files: tuple[str, ...]

    @property
    def techniques(self) -> tuple[str, ...]:
        """Changed Python files of techniques, relative to their folder."""
        lead = TECHNIQUES + "/"
        return tuple(name.removeprefix(lead) for name in self.files if name.startswith(lead) and name.endswith(".py"))

    @property
    def engine(self) -> tuple[str, ...]:
        return tuple(name for name in self.files if name.startswith(ENGINE))


def git(repository: Path, *arguments: str, where: str = "") -> str:
    try:
        done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"git could not be run ({error})", where=where or str(repository), remedy="Is git installed?") from None
    if done.returncode:
        line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(
            f"git {arguments[0]} failed: {line}", where=where or str(repository), remedy="Name commits of this repository."
        )
    return done.stdout.strip()


def resolve(text: str, repository: Path | None = None) -> Change:
    """A range as git writes it: BASE..HEAD, or BASE...HEAD for what HEAD did since it left BASE. An end left out is HEAD."""
    root = Path(git(repository or Path.cwd(), "rev-parse", "--show-toplevel", where=text))
    found = re.fullmatch(r"([^.\s-](?:(?!\.\.)\S)*)?(\.{2,3})((?!\.)\S*)", text)
    if not found:
        raise RunError(f"'{text}' is not a range of commits", where="effbench compare", remedy="Write BASE..HEAD, as main..HEAD.")
    ends = [commit(root, end or "HEAD", text) for end in (found[1], found[3])]
    if found[2] == "...":
        ends[0] = git(root, "merge-base", *ends, where=text)
    if ends[0] == ends[1]:
        raise RunError(f"both ends are commit {ends[0][:12]}", where=text, remedy="Name two different commits.")
    files = git(root, "diff", "--name-only", "--no-renames", "-z", *ends, where=text).split("\0")
    return Change(root, *ends, text, tuple(filter(None, files)))


def commit(root: Path, name: str, where: str) -> str:
    return git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}", where=f"{where}: '{name}'")


@contextmanager
def worktrees(repository: Path, **commits: str) -> Iterator[dict[str, Path]]:
    """Checkouts of the named commits, gone afterwards whatever happens."""
    with tempfile.TemporaryDirectory(prefix="effbench-compare-") as place:
        folders = {name: Path(place) / name for name in commits}
        try:
            for name, sha in commits.items():
                git(repository, "worktree", "add", "--detach", "--quiet", str(folders[name]), sha)
            yield folders
        finally:
            for folder in folders.values():
                subprocess.run(["git", "-C", str(repository), "worktree", "remove", "--force", str(folder)], capture_output=True)
            subprocess.run(["git", "-C", str(repository), "worktree", "prune"], capture_output=True)


def origin(folder: Path, label: str) -> Origin:
    """The techniques of a checkout."""
    found = folder / TECHNIQUES
    if not (found / "__init__.py").is_file():
        raise RunError(f"{label} has no {TECHNIQUES}/__init__.py", where=label, remedy="Compare commits that hold techniques.")
    return Origin(OWN, found.resolve(), "effbench")


def remarks(change: Change, folders: dict[str, Path]) -> list[str]:
    """What a comparison of techniques cannot see, said and not guessed."""
    found = []
    protocols = {name: protocol(folder / WORKER) for name, folder in folders.items() if name in ("base", "head")}
    if len(set(protocols.values())) > 1:
        found.append(
            f"the worker protocol changed ({protocols['base']} to {protocols['head']}); both sides ran on the caller's engine"
        )
    elif change.engine:
        shown = ", ".join(change.engine[:4]) + (f" and {len(change.engine) - 4} more" if len(change.engine) > 4 else "")
        found.append(f"the engine changed ({shown}); both sides ran on the caller's engine, so its own changes are not compared")
    before, after = (dependencies(folders[name] / "pyproject.toml") for name in ("base", "head"))
    if before != after:
        parts = [f"without {name}" for name in sorted(before - after)] + [f"with {name}" for name in sorted(after - before)]
        found.append(f"the dependency set changed ({'; '.join(parts)}); both sides ran with the packages installed here")
    locks = [name for name in change.files if re.fullmatch(r"(.*/)?(requirements[^/]*\.txt|constraints[^/]*\.txt|uv\.lock)", name)]
    if locks:
        found.append(f"pinned packages changed ({', '.join(locks[:4])}); both sides ran with the packages installed here")
    return found


def protocol(path: Path) -> str:
    try:
        found = re.search(r"^PROTOCOL = (\d+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return "none"
    return found[1] if found else "unnumbered"


def dependencies(path: Path) -> set[str]:
    """Everything that pyproject.toml asks for, extras included."""
    try:
        project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
    except (OSError, ValueError):
        return set()
    named = {"requires-python " + str(project.get("requires-python", "any")), *project.get("dependencies", ())}
    return named | {f"{item} [{extra}]" for extra, items in project.get("optional-dependencies", {}).items() for item in items}

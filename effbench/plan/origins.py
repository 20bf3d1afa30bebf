"""Where techniques come from: an explicit folder for our own, entry points for other packages.

Our own techniques are always the folder beside the engine that runs (`implementations/` in a checkout,
`effbench_implementations/` in site-packages), never whatever happens to be installed elsewhere: with an editable install,
PYTHONPATH=worktree would otherwise take the engine from one branch and the techniques from another.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from ..api.errors import RegistryError

OWN = "effbench_implementations"
GROUP = "effbench.plugins"


@dataclass(frozen=True)
class Origin:
    """An import package of techniques and the folder it is loaded from."""

    package: str
    folder: Path
    source: str  # for messages: "effbench", or "package NAME VERSION"


def beside(*names: str) -> Path | None:
    """The first existing folder of these names beside the engine's own folder."""
    root = Path(__file__).resolve().parents[2]
    return next((root / name for name in names if (root / name).is_dir()), None)


def own_origin() -> Origin:
    folder = os.environ.get("EFFBENCH_IMPLEMENTATIONS")
    found = Path(folder).resolve() if folder else beside("implementations", OWN)
    if found is None or not (found / "__init__.py").is_file():
        raise RegistryError(
            "no folder of techniques with an __init__.py",
            where=str(found or Path(__file__).resolve().parents[2]),
            remedy="Install effbench as a wheel, run from a checkout, or set EFFBENCH_IMPLEMENTATIONS.",
        )
    return Origin(OWN, found, "effbench")


def plugin_origins() -> tuple[list[Origin], list[str]]:
    """Packages that registered in the entry-point group, without importing them; and what was wrong with the others."""
    from importlib.metadata import entry_points

    found, broken = [], []
    for point in entry_points(group=GROUP):
        package = point.value.split(":")[0].strip()
        if package == OWN:
            continue
        label = f"package {point.dist.name} {point.dist.version}" if point.dist else f"entry point {point.name}"
        try:
            # Only a top-level name can be looked up without importing a parent.
            spec = importlib.util.find_spec(package.split(".")[0])
        except (ImportError, ValueError) as error:
            spec, label = None, f"{label} ({error})"
        places = list(spec.submodule_search_locations or ()) if spec else []
        folder = Path(places[0]).joinpath(*package.split(".")[1:]) if places else None
        if folder is None or not (folder / "__init__.py").is_file():
            broken.append(f"{label}: entry point '{point.name}' names '{package}', which is not an importable package folder")
        else:
            found.append(Origin(package, folder, label))
    return found, broken


def mount(origin: Origin) -> None:
    """Make the origin importable under its package name from exactly its folder."""
    present = sys.modules.get(origin.package)
    if present is not None:
        if Path(present.__file__).resolve().parent == origin.folder.resolve():
            return
        raise RegistryError(f"'{origin.package}' is already imported from {present.__file__}", where=str(origin.folder))
    parts = origin.package.split(".")
    if len(parts) > 1:
        __import__(".".join(parts[:-1]))
    spec = importlib.util.spec_from_file_location(
        origin.package, origin.folder / "__init__.py", submodule_search_locations=[str(origin.folder)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[origin.package] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[origin.package]
        raise


def digest_files(folder: Path, files: list[Path]) -> str:
    """Digest of relative names and contents, independent of where the folder lies and of the order."""
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def loaded_digest(origin: Origin) -> str:
    """Digest of the origin's files that this process has imported."""
    folder = origin.folder.resolve()
    files = []
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if path and (name == origin.package or name.startswith(origin.package + ".")):
            if not Path(path).resolve().is_relative_to(folder):
                raise RegistryError(f"module {name} was loaded from {path}, outside its folder", where=str(folder))
            files.append(Path(path).resolve())
    return digest_files(folder, files)

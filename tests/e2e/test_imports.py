"""Starting is cheap, and imports run only downwards."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "jax", "pandas", "plotly", "scipy", "sklearn")

# Rooms from the top down: a room imports those of its own row and of the rows below.
ROWS = [
    ("cli", "bootstrap"),
    ("commands",),
    ("publish",),
    ("study",),
    ("run",),
    ("measure", "stats", "data", "backends"),
    ("plan",),
    ("api",),
]
# What may not be imported although it lies below.
NEVER = {("publish", "run"), ("study", "run"), ("publish", "backends"), ("study", "backends")}
# Deviations that stand today, as "file: module", each with its reason. A test fails when one is gone, so that the list shrinks.
DEVIATIONS = {
    "effbench/plan/trial.py: effbench.measure": "MEASURE_VERSION, one number, is part of the content key",
    "effbench/plan/plan.py: effbench.backends": "SUPPORTED, a table of names; imports no framework",
    "effbench/plan/suite.py: effbench.backends": "DEVICES, a tuple of names; imports no framework",
    "effbench/run/progress.py: effbench.publish.format": "numbers on the progress line are written as in the tables",
}
FACADE = ("effbench/__init__.py", "effbench/__main__.py")  # `load`, `measure`, `dataset` import inside the function


def imports(path: Path) -> set[str]:
    """Absolute names of the modules that a file imports, also inside functions."""
    package = path.relative_to(ROOT).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - (node.level - 1)]) if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            found |= {f"{module}.{alias.name}" for alias in node.names} if not node.module or module == "effbench" else {module}
    return found


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[0] == "effbench" and len(parts) > 1 else ""


def row(name: str) -> int:
    return next((number for number, names in enumerate(ROWS) if name in names), -1)


def engine_files() -> list[Path]:
    return [path for path in sorted((ROOT / "effbench").rglob("*.py")) if path.relative_to(ROOT).as_posix() not in FACADE]


def upward() -> set[str]:
    found = set()
    for path in engine_files():
        here = path.relative_to(ROOT).with_suffix("").parts[1]
        for module in imports(path):
            there = room(module)
            if row(there) >= 0 and (row(there) < row(here) or (here, there) in NEVER):
                found.add(f"{path.relative_to(ROOT).as_posix()}: {module}")
    return found


def test_every_room_of_the_engine_has_its_row():
    rooms = {path.relative_to(ROOT).with_suffix("").parts[1] for path in engine_files()}
    assert rooms <= {name for names in ROWS for name in names}


def test_imports_run_only_downwards():
    assert upward() - set(DEVIATIONS) == set()
    assert set(DEVIATIONS) - upward() == set(), "a deviation is gone: take it off the list"


def test_the_layer_test_sees_an_upward_import(tmp_path, monkeypatch):
    bad = tmp_path / "effbench" / "stats" / "bad.py"
    bad.parent.mkdir(parents=True)
    bad.write_text("def late():\n    from ..run import command\n    from .. import publish\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert upward() == {"effbench/stats/bad.py: effbench.run", "effbench/stats/bad.py: effbench.publish"}


def outside(path: Path) -> set[str]:
    return (
        {name.split(".")[0] for name in imports(path)}
        - set(sys.stdlib_module_names)
        - {"effbench", "implementations", "__future__"}
    )


def test_stats_is_pure():
    for path in sorted((ROOT / "effbench" / "stats").glob("*.py")):
        assert outside(path) <= {"numpy"}, path
        assert {room(module) for module in imports(path)} <= {"", "stats"}, path


def test_bootstrap_needs_nothing_but_python():
    """It runs before anything is installed, so it may not even import its own package's rooms."""
    found = imports(ROOT / "effbench" / "bootstrap.py")
    assert {name.split(".")[0] for name in found} - set(sys.stdlib_module_names) <= {"__future__"}


def test_nothing_imports_the_command_line():
    for path in engine_files():
        assert not any(room(module) == "cli" for module in imports(path)), path


def test_the_engine_names_no_technique():
    areas = {path.name for path in (ROOT / "implementations").iterdir() if (path / "task.py").exists()}
    assert areas
    for path in engine_files():
        for module in imports(path):
            assert module.split(".")[0] not in ("implementations", "effbench_implementations"), path


# Frameworks and wrapped libraries; psutil and threadpoolctl tell of memory and threads.
LIBRARIES = {
    "numpy",
    "torch",
    "triton",
    "jax",
    "psutil",
    "threadpoolctl",
    "sklearn",
    "faiss",
    "hnswlib",
    "scann",
    "usearch",
    "optuna",
}


def test_techniques_import_public_names_their_framework_their_area_and_shared():
    import effbench

    for path in sorted((ROOT / "implementations").rglob("*.py")):
        area = path.relative_to(ROOT).parts[1]
        for module in imports(path):
            parts = module.split(".")
            if parts[0] == "effbench" and len(parts) > 1:
                assert len(parts) == 2, f"{path}: {module} is no public name"
                assert parts[1] in effbench.__all__, f"{path}: {module} is no public name"
            elif parts[0] == "implementations":
                assert parts[1] in (area, "shared"), f"{path}: {module} belongs to another area"
        assert outside(path) <= LIBRARIES, path


def test_tasks_import_no_framework_at_the_top():
    for path in sorted((ROOT / "implementations").glob("*/task.py")):
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))]
        names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in top if isinstance(node, ast.ImportFrom)}
        assert not {name.split(".")[0] for name in names} & set(HEAVY), path


def cost(*arguments) -> tuple[float, str]:
    """CPU seconds of a Python process, and what it printed."""
    before = os.times()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COVERAGE", "EFFBENCH"))}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment)
    after = os.times()
    assert done.returncode == 0, done.stderr
    return after.children_user + after.children_system - before.children_user - before.children_system, done.stdout


LOADED = f"import sys; print(*sorted(name for name in {HEAVY} if name in sys.modules))"
LIST = "import sys; sys.argv = ['effbench', 'list']\nfrom effbench.cli import app\ntry: app(standalone_mode=False)\nexcept SystemExit: pass\n"


@pytest.mark.parametrize("code, limit", [("import effbench", 0.1), (LIST, 0.5)], ids=["import effbench", "effbench list"])
def test_starting_is_cheap_and_imports_no_framework(code, limit):
    bare = min(cost("-c", "pass")[0] for _ in range(5))
    assert min(cost("-c", code)[0] for _ in range(5)) - bare < limit, "CPU seconds above those of Python itself"
    assert cost("-c", f"{code}\n{LOADED}")[1].splitlines()[-1].split() == []

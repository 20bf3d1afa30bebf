"""The wheel: what is in it, and that it runs a suite outside the checkout with nothing but itself."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from effbench.plan.origins import Origin
from effbench.plan.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "runs", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")

pytest.importorskip("setuptools")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing old in build/ comes in and the checkout stays clean."""
    source, out = tmp_path_factory.mktemp("source") / "effbench", tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, source, ignore=LEFT_OUT)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(out)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def effbench(site, cwd, *arguments):
    """The command, with the wheel's files alone on the path. -P: the current folder is not on it either."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("EFFBENCH_")}
    env |= {"PYTHONPATH": str(site), "EFFBENCH_DATA": str(cwd / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "effbench", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)


def test_only_packages_with_our_own_names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    own = {top for top in tops if not top.endswith(".dist-info")}
    assert own <= {"effbench", "effbench_implementations", "effbench_suites", "effbench_results"}
    assert {"effbench", "effbench_implementations", "effbench_suites"} <= own


def test_every_source_template_asset_and_suite_is_in(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    files = [path for path in (ROOT / "effbench").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    wanted = {path.relative_to(ROOT).as_posix() for path in files}
    assert {path.suffix for path in files} >= {".py", ".j2", ".css", ".js"}
    for folder, name, pattern in (("implementations", "effbench_implementations", "*.py"), ("suites", "effbench_suites", "*.toml")):
        wanted |= {f"{name}/{path.relative_to(ROOT / folder).as_posix()}" for path in (ROOT / folder).rglob(pattern)}
    tuning = ROOT / "results" / "tuning"
    wanted |= {f"effbench_results/tuning/{path.relative_to(tuning).as_posix()}" for path in tuning.rglob("*.jsonl")}
    assert wanted - inside == set()


def test_no_tests_no_results_no_records_of_runs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = archive.namelist()
    assert not [name for name in inside if "tests/" in name or "conftest" in name or "/test_" in name]
    kept = [name for name in inside if name.endswith(".jsonl") or name.startswith("effbench_results/")]
    assert all(name.startswith("effbench_results/tuning/") for name in kept)
    assert any(name.endswith("licenses/LICENSE") for name in inside)


def test_lists_outside_the_checkout(site, tmp_path):
    done = effbench(site, tmp_path, "list", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    here = Registry.read([Origin("effbench_implementations", ROOT / "implementations", "effbench")])
    assert {(task["name"], method["name"]) for task in found["tasks"] for method in task["methods"]} == set(here.methods)
    assert "smoke" in found["suites"] and not found["problems"]


def test_runs_outside_the_checkout_with_the_techniques_beside_it(site, tmp_path):
    pytest.importorskip("torch")
    done = effbench(
        site, tmp_path, "run", "smoke", "--task", "vector-search", "--method", "exact", "--method", "ivf", "--out", "out"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(line) for line in (tmp_path / "out" / "records.jsonl").read_text().splitlines()]
    assert {record["method"] for record in records} == {"exact", "ivf"} and {record["status"] for record in records} == {"ok"}
    expected = loaded(site / "effbench_implementations", tmp_path)
    assert {record["loaded"] for record in records if record["method"] == "exact"} == {expected}
    assert {record["commit"] for record in records} == {"unknown"}
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_the_digest_is_of_the_files_that_ran(site, tmp_path):
    """A changed technique in site-packages changes the digest of its records, whatever the checkout holds."""
    pytest.importorskip("torch")
    other = tmp_path / "other"
    shutil.copytree(site, other)
    file = other / "effbench_implementations" / "search" / "exact.py"
    file.write_text(file.read_text() + "\n# changed\n")
    done = effbench(other, tmp_path, "run", "smoke", "--task", "vector-search", "--method", "exact", "--out", "out", "--bare")
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "out" / "records.jsonl").read_text().splitlines()[0])
    assert record["loaded"] == loaded(other / "effbench_implementations", tmp_path) != loaded(ROOT / "implementations", tmp_path)


def loaded(folder: Path, cwd: Path) -> str:
    """The digest after importing exact search from `folder`, computed in a process of its own."""
    code = (
        "import sys; from pathlib import Path; from effbench.plan.origins import *;"
        f"o = Origin(OWN, Path({str(folder)!r}), 'effbench'); mount(o);"
        "import effbench_implementations.search.task, effbench_implementations.search.exact; print(loaded_digest(o))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=cwd, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()

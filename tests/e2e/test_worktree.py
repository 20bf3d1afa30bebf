"""The techniques of a checkout are the ones that run from it, whatever else is installed or importable."""

import os
import shutil
from pathlib import Path

import pytest

from effbench.plan.origins import OWN, Origin, digest_files
from effbench.plan.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
SUITE = """
name = "one"
size = "smoke"
[[run]]
task = "vector-search"
data = ["clustered(n=1000, d=64, queries=400)"]
methods = ["exact"]
cases = ["batch-256"]
[limits]
turn = 0.002
rounds = 3
serve = 0.02
"""


def checkout(folder: Path) -> Path:
    for name in ("effbench", "implementations", "suites"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def digest_of(folder: Path) -> str:
    """Digest of what a worker must load of this folder for `exact`."""
    registry = Registry.read([Origin(OWN, folder.resolve(), "effbench")])
    return digest_files(folder.resolve(), registry.closure(f"{OWN}.search.exact", f"{OWN}.search.task"))


@pytest.fixture
def two(effbench, tmp_path):
    """A checkout with a changed technique; an unchanged one, installed under both package names, stands on the path as well."""
    del effbench.environment["EFFBENCH_IMPLEMENTATIONS"]
    copy, other = checkout(tmp_path / "copy"), checkout(tmp_path / "other")
    shutil.copytree(other / "implementations", other / OWN)
    changed = copy / "implementations" / "search" / "exact.py"
    text = changed.read_text()
    marked = text.replace("self.run.tally(queries=len(queries), ", "self.run.tally(queries=len(queries), marker=4242, ")
    assert marked != text, "exact.py no longer tallies its queries: choose another line to change"
    changed.write_text(marked)
    (tmp_path / "one.toml").write_text(SUITE)
    return effbench, copy, other


def ran(effbench, name, *paths) -> dict:
    suite = effbench.folder / "one.toml"
    done = effbench("run", suite, "--out", effbench.folder / name, "--quiet", PYTHONPATH=os.pathsep.join(map(str, paths)))
    assert done.returncode == 0, done.stderr
    (record,) = effbench.records(effbench.folder / name)
    return record


def test_the_techniques_of_the_engine_that_runs_are_the_ones_that_ran(two):
    effbench, copy, other = two
    mine, theirs = ran(effbench, "mine", copy, other), ran(effbench, "theirs", other, copy)
    assert mine["readings"]["serve.tally.marker"]["value"] == 4242
    assert "serve.tally.marker" not in theirs["readings"]
    assert mine["loaded"] == digest_of(copy / "implementations")
    assert theirs["loaded"] == digest_of(other / "implementations")
    assert mine["loaded"] != theirs["loaded"]
    assert mine["key"] != theirs["key"], "a changed technique is another trial: resume never takes the old record for it"
    assert mine["tree"] != theirs["tree"]


def test_the_folder_that_one_stands_in_does_not_decide(two):
    """`python -m` puts the working folder first on the path: there, the engine and its techniques belong together as well."""
    effbench, copy, other = two
    effbench.folder, folder = copy, effbench.folder
    suite = folder / "one.toml"
    done = effbench("run", suite, "--out", folder / "here", "--quiet", PYTHONPATH=str(other))
    assert done.returncode == 0, done.stderr
    (record,) = effbench.records(folder / "here")
    assert record["loaded"] == digest_of(copy / "implementations")
    assert record["readings"]["serve.tally.marker"]["value"] == 4242

"""Another package brings methods through the entry point `effbench.plugins`; a broken one costs only itself."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SUITE = """
name = "plugged"
size = "smoke"
[[run]]
task = "vector-search"
data = ["clustered(n=1000, d=64, queries=400)"]
methods = ["random-projection"]
cases = ["batch-256"]
[limits]
turn = 0.002
rounds = 3
serve = 0.02
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the example plug-in installed by pip, as a user would."""
    source, site = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("site")
    shutil.copytree(HERE / "plugin", source)
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--target", site, source]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return site


def add(site: Path, name: str, entry: str, files: dict[str, str]) -> None:
    """A distribution by hand: what pip would leave of it."""
    info = site / f"{name.replace('-', '_')}-1.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[effbench.plugins]\n{name} = {entry}\n")
    for path, text in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)


def listed(effbench) -> dict:
    done = effbench("list", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def methods(found: dict, task="vector-search") -> dict[str, str]:
    return {m["name"]: m["origin"] for t in found["tasks"] if t["name"] == task for m in t["methods"]}


@pytest.fixture
def plugged(effbench, site):
    del effbench.environment["EFFBENCH_IMPLEMENTATIONS"]
    effbench.environment["PYTHONPATH"] += os.pathsep + str(site)
    return effbench


def test_an_installed_plugin_is_found_with_its_origin(plugged):
    found = listed(plugged)
    assert methods(found)["random-projection"] == "package effbench-example-plugin 0.3"
    assert methods(found)["exact"] == "effbench"
    assert found["problems"] == []
    shown = plugged("show", "random-projection")
    assert "package effbench-example-plugin 0.3" in shown.stdout
    assert "knob candidates = 100" in shown.stdout


def test_it_runs_like_any_other_and_its_records_carry_the_digest_of_its_files(plugged, site, tmp_path):
    from effbench.plan.origins import digest_files

    suite = tmp_path / "plugged.toml"
    suite.write_text(SUITE)
    done = plugged("run", suite, "--out", tmp_path / "run", "--quiet")
    assert done.returncode == 0, done.stderr
    (record,) = plugged.records(tmp_path / "run")
    assert (record["status"], record["method"]) == ("ok", "random-projection")
    assert record["readings"]["quality.recall@10"]["value"] > 0.3
    folder = (site / "effbench_example_plugin").resolve()
    assert record["loaded"] == digest_files(folder, list(folder.rglob("*.py")))


BROKEN = {
    "syntax": (
        "torn_package",
        {"torn_package/__init__.py": "", "torn_package/m.py": "def broken(:\n"},
        ["torn_package/m.py", "not valid Python"],
    ),
    "nothing": ("no_such_package_here", {}, ["no_such_package_here", "not an importable package folder"]),
    "a-module": ("lonely:thing", {"lonely.py": "thing = 1\n"}, ["lonely", "not an importable package folder"]),
    "clash": (
        "second_exact",
        {
            "second_exact/__init__.py": "",
            "second_exact/exact.py": "from effbench_implementations.search.task import VectorIndex\n\n\n"
            'class Mine(VectorIndex):\n    name = "exact"\n',
        },
        ["second_exact/exact.py", "vector-search/exact", "already registered by effbench", "Rename one"],
    ),
    "no-interface": (
        "strange",
        {"strange/__init__.py": "", "strange/m.py": 'from effbench import Method\n\n\nclass M(Method):\n    name = "stray"\n'},
        ["strange/m.py", "'stray'", "derives from no task's interface"],
    ),
    "no-literal": (
        "computed",
        {
            "computed/__init__.py": "",
            "computed/m.py": 'from effbench import Method\n\n\nclass M(Method):\n    name = "a".upper()\n',
        },
        ["computed/m.py", "M.name", "not a literal"],
    ),
    "not-text": (
        "bytes_only",
        {"bytes_only/__init__.py": "", "bytes_only/m.py": "\x00\x00"},
        ["bytes_only/m.py", "not valid Python"],
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_reported_with_its_origin_and_the_rest_stays(plugged, tmp_path, kind):
    entry, files, parts = BROKEN[kind]
    add(tmp_path / "site", f"broken-{kind}", entry, files)
    plugged.environment["PYTHONPATH"] += os.pathsep + str(tmp_path / "site")
    found = listed(plugged)
    (problem,) = found["problems"]
    for part in [f"package broken-{kind} 1.5", *parts]:
        assert part in problem
    assert methods(found)["exact"] == "effbench"
    assert "random-projection" in methods(found)


def test_the_rest_still_runs_and_the_run_says_what_was_left_out(plugged, tmp_path):
    for kind, (entry, files, _) in BROKEN.items():
        add(tmp_path / "site", f"broken-{kind}", entry, files)
    plugged.environment["PYTHONPATH"] += os.pathsep + str(tmp_path / "site")
    suite = tmp_path / "plugged.toml"
    suite.write_text(SUITE)
    done = plugged("run", suite, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert [record["status"] for record in plugged.records(tmp_path / "run")] == ["ok"]
    for kind in BROKEN:
        assert f"package broken-{kind} 1.5" in done.stderr


def test_a_plugin_that_fails_on_import_costs_only_its_own_trial(plugged, tmp_path):
    """Its text reads well, so it is listed; importing it happens in the worker."""
    text = "from effbench_implementations.search.task import VectorIndex\n\nraise RuntimeError('not today')\n\n\n"
    files = {"moody/__init__.py": "", "moody/m.py": text + 'class Mine(VectorIndex):\n    name = "moody"\n'}
    add(tmp_path / "site", "moody", "moody", files)
    add(tmp_path / "site", "worse", "worse", {"worse/__init__.py": "raise RuntimeError('never')\n"})
    plugged.environment["PYTHONPATH"] += os.pathsep + str(tmp_path / "site")
    suite = tmp_path / "plugged.toml"
    suite.write_text(SUITE.replace('["random-projection"]', '["random-projection", "moody"]'))
    done = plugged("run", suite, "--out", tmp_path / "run", "--quiet")
    assert done.returncode == 1
    found = {record["method"]: record for record in plugged.records(tmp_path / "run")}
    assert found["random-projection"]["status"] == "ok", found["random-projection"]["reason"]
    assert found["moody"]["status"] == "error"
    assert "not today" in found["moody"]["reason"]

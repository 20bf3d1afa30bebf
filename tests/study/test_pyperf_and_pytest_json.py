"""Records out to pyperf's JSON, and pytest-benchmark's JSON in as records."""

import json

import pytest

from effbench.api import record as schema
from effbench.api.errors import RecordError
from effbench.study import pyperf_export, pytest_import, records

STATS = {
    "median": 2e-3,
    "min": 1e-3,
    "max": 9e-3,
    "mean": 3e-3,
    "rounds": 12,
    "iterations": 1,
    "data": [1e-3 * (1 + i % 3) for i in range(12)],
}
FILE = {
    "machine_info": {
        "node": "secret-host", "system": "Linux", "machine": "x86_64", "release": "6.1", "python_version": "3.11.7",
        "cpu": {"brand_raw": "Model A", "count": 2},
    },
    "commit_info": {"id": "abc", "dirty": True},
    "datetime": "2026-01-02T03:04:05.678+00:00",
    "benchmarks": [
        {"name": "test_top[8]", "fullname": "tests/k.py::test_top[8]", "group": None, "params": {"k": 8}, "stats": STATS},
        {"name": "test_dot", "fullname": "tests/k.py::test_dot", "group": "kernels", "params": None, "stats": {**STATS, "data": []}},
    ],
}  # fmt: skip


@pytest.fixture
def imported(tmp_path):
    (tmp_path / "b.json").write_text(json.dumps(FILE))
    assert pytest_import.read(tmp_path / "b.json", tmp_path / "run") == 2
    return records.read(tmp_path / "run")


def test_pytest_benchmark_becomes_valid_marked_records(imported):
    assert imported.problems == ()
    top, dot = imported.records
    assert schema.check(top) == []
    assert (top["task"], top["method"], top["params"], dot["task"]) == ("tests/k.py", "test_top[8]", {"k": 8}, "kernels")
    assert top["readings"]["serve.latency"]["value"] == 2e-3
    assert top["readings"]["serve.latency"]["low"] == 1e-3
    assert "low" not in dot["readings"]["serve.latency"]
    assert top["commit"] == "abc-dirty"
    assert "not measured by effbench" in top["notes"][0]
    assert "secret-host" not in json.dumps([imported.records, imported.environments])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"benchmarks": []}',
        '{"benchmarks": [{"stats": {}}]}',
        '{"benchmarks": [3]}',
        '{"benchmarks": [{"fullname": 3, "stats": 4}]}',
    ],
)
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(RecordError):
        pytest_import.read(tmp_path / "b.json", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_with_records_is_left_alone(tmp_path, imported):
    with pytest.raises(RecordError, match="already"):
        pytest_import.read(tmp_path / "b.json", tmp_path / "run")


def test_pyperf_keeps_processes_apart(imported):
    made = pyperf_export.suite(imported)
    assert made["version"] == "1.0"
    assert [len(item["runs"]) for item in made["benchmarks"]] == [1], "one value alone is left out"
    assert made["benchmarks"][0]["runs"][0]["values"] == pytest.approx(STATS["data"])
    assert made["benchmarks"][0]["metadata"]["name"] == "tests/k.py/test_top[8](k=8) call on none serve.latency"


def test_seeds_are_runs_of_one_benchmark(imported):
    other = {**imported.records[0], "seed": 1}
    both = records.Loaded((imported.records[0], other), imported.environments)
    assert [len(item["runs"]) for item in pyperf_export.suite(both)["benchmarks"]] == [2]


def test_nothing_to_export_is_an_error():
    with pytest.raises(RecordError, match="no record"):
        pyperf_export.suite(records.Loaded((), {}))

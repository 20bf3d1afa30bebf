"""Finished runs: unlike ones are refused with the fields that differ, and verdicts carry their mark."""

import json

import pytest

from effbench.api.errors import RecordError
from effbench.api.record import dumps, reading
from effbench.publish import verdicts
from effbench.study import stored

MACHINE = {"cpu": "Model A", "cores": 2, "os": "Linux", "versions": {"numpy": "2.4.6"}, "threads": 1, "device": "cpu"}


def record(**changes):
    found = {
        "schema": 1, "role": "measure", "key": "0" * 16, "suite": "s", "area": "a", "task": "t", "task_version": 1, "method": "m",
        "method_version": 1, "backend": "numpy", "data": "d", "size": "smoke", "seed": 0, "device": "cpu", "threads": 1, "dtype": "float32",
        "params": {}, "knobs": {}, "case": "c", "budget": {}, "status": "ok", "reason": "", "group": "g", "environment": "e1",
        "commit": "x", "tree": "x", "loaded": "x", "data_digest": "data1", "measure_version": 1, "time": "2026-01-01T00:00:00Z",
        "readings": {
            "serve.latency": reading(1.0, "s", low=0.99, high=1.01), "serve.flops": reading(100, "FLOP"),
            "quality.right": reading(0.9, "1", low=0.88, high=0.92),
        },
    }  # fmt: skip
    return {**found, **changes, "readings": {**found["readings"], **changes.get("readings", {})}}


@pytest.fixture
def run(tmp_path):
    def make(name, found, machine=MACHINE):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "records.jsonl").write_text(dumps(found) + "\n")
        (folder / "environment.json").write_text(json.dumps({found["environment"]: machine}))
        return folder

    return make


def words(found):
    return {row.metric: row.verdict for row in found.rows}


def test_the_same_run_twice(run):
    found = stored.compare(run("a", record()), run("b", record()))
    assert set(words(found).values()) == {"SAME"}
    assert found.code == 0
    assert all("stored-run comparison" in row.how for row in found.rows)
    assert "stored" in verdicts.text(found)
    assert "two stored runs" in verdicts.markdown(found)


def test_changes_are_named_and_marked(run):
    worse = {
        "serve.latency": reading(2.0, "s", low=1.9, high=2.1), "serve.flops": reading(150, "FLOP"),
        "quality.right": reading(0.5, "1", low=0.45, high=0.55),
    }  # fmt: skip
    found = stored.compare(run("a", record()), run("b", record(readings=worse)))
    assert words(found) == {"serve.latency": "SLOWER", "serve.flops": "WORSE", "quality.right": "WORSE"}
    assert found.code == 1


def test_five_percent_between_stored_runs_is_not_called(run):
    found = stored.compare(
        run("a", record()), run("b", record(readings={"serve.latency": reading(1.05, "s", low=1.04, high=1.06)}))
    )
    assert words(found)["serve.latency"] in ("SAME", "UNCLEAR")


def test_a_method_that_no_longer_runs(run):
    found = stored.compare(run("a", record()), run("b", record(status="error", reason="lost")))
    assert words(found) == {"status": "BROKEN"}


@pytest.mark.parametrize(
    ("changes", "machine", "field"),
    [
        ({"environment": "e2"}, {**MACHINE, "cpu": "Model B"}, "cpu: 'Model A' against 'Model B'"),
        ({"environment": "e2"}, {**MACHINE, "versions": {"numpy": "1.26.4"}}, "frameworks"),
        ({"data_digest": "data2"}, MACHINE, "digest data1 against data2"),
        ({"measure_version": 2}, MACHINE, "measure_version: 1 against 2"),
    ],
)
def test_unlike_runs_are_refused_with_the_fields(run, changes, machine, field):
    a, b = run("a", record()), run("b", record(**changes), machine)
    with pytest.raises(RecordError, match=field):
        stored.compare(a, b)
    found = stored.compare(a, b, across=True)
    assert any(field in note for note in found.notes)


def test_nothing_shared_is_an_error(run):
    with pytest.raises(RecordError, match="share no measurement"):
        stored.compare(run("a", record()), run("b", record(method="other")))

"""Schema 1 is a promise: records written once are read, checked and written back unchanged, for as long as SCHEMA is 1.

The lines were left by real runs: a served method, a training curve, a skipped and a timed-out trial. They are never edited; a
field that is added later must be optional.
"""

import json
from pathlib import Path

import pytest

from effbench.api import record as records

GOLDEN = Path(__file__).parent / "golden" / "record-1.jsonl"
LINES = GOLDEN.read_text(encoding="utf-8").splitlines()


def test_the_file_holds_what_it_says():
    assert [json.loads(line)["status"] for line in LINES] == ["ok", "ok", "skipped", "timeout"]
    assert json.loads(LINES[0])["samples"] and json.loads(LINES[1])["curve"]


@pytest.mark.parametrize("number", range(len(LINES)))
def test_a_record_survives_reading_and_writing(number):
    line = LINES[number]
    record = records.loads(line)
    assert records.dumps(record) == line
    assert records.check(record) == []
    assert len(line.encode()) <= records.MAX_BYTES
    assert len(records.identity(record)) == 5


@pytest.mark.parametrize(
    "break_it",
    [
        lambda r: r.update(schema=2),
        lambda r: r.pop("status"),
        lambda r: r.update(status="fine"),
        lambda r: r.update(extra=1),
        lambda r: r.update(seed="0"),
        lambda r: r["readings"].update({"build.time": {"value": None, "unit": "s"}}),
        lambda r: r["readings"].update({"build.time": {"value": float("inf"), "unit": "s"}}),
        lambda r: r.update(samples={"serve.latency": [0.1] * 101}),
        lambda r: r.update(curve={"steps": [1], "time": [1, 2]}),
        lambda r: r.update(status="error", reason=""),
    ],
)
def test_a_broken_record_is_noticed(break_it):
    record = json.loads(LINES[0])
    break_it(record)
    assert records.check(record)


def test_the_documentation_shows_a_record_of_this_file():
    """docs/records.md prints one of these records in full; here it is compared, so that the page cannot drift."""
    text = (Path(__file__).parents[2] / "docs" / "records.md").read_text(encoding="utf-8")
    block = text.split("```json\n", 1)[1].split("\n```", 1)[0]
    assert json.loads(block) == json.loads(LINES[0])


def test_the_documentation_names_every_field():
    text = (Path(__file__).parents[2] / "docs" / "records.md").read_text(encoding="utf-8")
    missing = [name for name in records.FIELDS if f"`{name}`" not in text]
    assert not missing, missing
    assert not [name for name in (*records.STATUSES, *records.ROLES) if f"`{name}`" not in text]

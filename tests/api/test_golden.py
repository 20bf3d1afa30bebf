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


def test_a_record_with_many_readings_is_thinned_and_its_intervals_hold_their_values():
    record = records.loads(LINES[0])
    for number in range(12):
        value = 0.123456 + number / 7
        record["readings"][f"quality.measure-{number}"] = records.reading(
            value, "1", how="mean over question", low=value, high=value + 1e-5, n=36
        )
    wide = len(json.dumps(record, separators=(",", ":")))
    line = records.dumps(record)
    assert wide > records.MAX_BYTES >= len(line.encode())
    back = records.loads(line)["readings"]
    assert set(back) == set(record["readings"])
    for name, reading in back.items():
        assert reading["value"] == record["readings"][name]["value"]
        if "low" in reading:
            assert reading["low"] <= reading["value"] <= reading["high"], name


def test_what_says_how_gives_way_before_a_reading_does():
    """As a trained network on a calibrated GPU has it: thirty-five readings, an interval on every other one."""
    record = records.loads(LINES[0])
    record["readings"] |= {name: records.reading(123456.7, "B", how=how) for name, how in records.IMPLIED.items()}
    whole = records.reading(0.123456, "s", how="median of 5 turns, CUDA events, cold, launch overhead hidden", low=0.1, high=0.2)
    record["readings"]["serve.latency"] = whole
    for number in range(40):  # more and more, until the line has no room for them
        record["readings"][f"quality.measure-{number}"] = records.reading(0.123456, "1", low=0.1, high=0.2, n=64)
        fitted = records.loads(records.dumps(record))
        if "how" not in fitted["readings"]["serve.throughput"]:
            break
    assert set(fitted["readings"]) == set(record["readings"])
    assert fitted["readings"]["serve.latency"] == whole
    assert not [name for name in records.IMPLIED if "how" in fitted["readings"][name]]
    assert {fitted["readings"][name]["value"] for name in records.IMPLIED} == {123457}


def test_what_cannot_be_thinned_is_an_error():
    record = records.loads(LINES[0])
    record["readings"] |= {f"quality.measure-{number}": records.reading(1.0, "1", low=0.5, high=1.5) for number in range(80)}
    with pytest.raises(records.RecordError, match="exceeds the limit"):
        records.dumps(record)

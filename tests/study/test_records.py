"""Strict reading: a damaged line costs itself only; nothing is followed out of the folder; nothing large is held."""

import json
import os
import tracemalloc

import pytest

from effbench.api.errors import RecordError
from effbench.api.record import STATUSES, check, dumps, loads
from effbench.study import records as reading
from effbench.study import synthetic


@pytest.fixture
def made():
    return synthetic.records(40)


@pytest.fixture
def folder(tmp_path, made):
    return synthetic.write(tmp_path / "run", made)


def append(folder, content: bytes):
    with (folder / "records.jsonl").open("ab") as stream:
        stream.write(content)


def test_reads_what_was_written(folder, made):
    loaded = reading.read(folder)
    assert list(loaded.records) == [loads(dumps(record)) for record in made]
    assert loaded.problems == loaded.notes == ()
    assert loaded.suite["name"] == "synthetic"
    assert set(loaded.environments) == {record["environment"] for record in made}
    assert reading.read(folder / "records.jsonl") == loaded


def test_synthetic_records_are_valid_and_cover_every_status():
    made = synthetic.records(200, machines=("alpha", "beta"))
    assert all(check(record) == [] for record in made)
    assert {record["status"] for record in made} == set(STATUSES)
    assert any("curve" in record for record in made) and any(record["knobs"] for record in made)
    assert any("serve.latency.ratio" in record.get("samples", {}) for record in made)
    assert made == synthetic.records(200, machines=("alpha", "beta"))
    assert {record["suite"] for record in made} == {"synthetic"}


@pytest.mark.parametrize("cut", [1, 7, 300])
def test_torn_last_line_is_a_note(folder, made, cut):
    line = dumps({**made[0], "seed": 99, "key": "f" * 16}).encode()
    append(folder, line[:-cut])
    loaded = reading.read(folder)
    assert len(loaded.records) == len(made)
    assert loaded.problems == () and len(loaded.notes) == 1 and "torn" in loaded.notes[0]


def test_last_line_without_newline_counts_if_it_is_whole(folder, made):
    append(folder, dumps({**made[0], "seed": 99, "key": "f" * 16}).encode())
    loaded = reading.read(folder)
    assert len(loaded.records) == len(made) + 1 and not loaded.notes


@pytest.mark.parametrize(
    "bad", [b"{", b"\xff\xfe\x00", b"[]", b"null", b"[" * 10_000, b'{"schema":1}', b"\x00" * 50, b"NaN", b"1" * 9000]
)
def test_corrupt_middle_line_is_a_problem_and_skipped(folder, made, bad):
    append(folder, bad + b"\n")
    append(folder, dumps({**made[0], "seed": 99, "key": "f" * 16}).encode() + b"\n")
    loaded = reading.read(folder)
    assert len(loaded.records) == len(made) + 1
    assert len(loaded.problems) == 1 and f"records.jsonl:{len(made) + 1}" in loaded.problems[0]


def test_number_beyond_floats_is_a_problem(folder, made):
    good = next(record for record in made if record["status"] == "ok")
    line = json.dumps({**good, "key": "f" * 16, "readings": {"build.time": {"value": 10**400, "unit": "s"}}})
    append(folder, line.encode() + b"\n")
    assert len(reading.read(folder).problems) == 1


def test_huge_line_is_not_held(folder, made):
    size = 64 * 2**20
    with (folder / "records.jsonl").open("r+b") as stream:
        stream.seek(size, os.SEEK_END)  # sparse: a line of zeros
        stream.write(b"\n" + dumps({**made[0], "seed": 99, "key": "f" * 16}).encode() + b"\n")
    tracemalloc.start()
    loaded = reading.read(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(loaded.records) == len(made) + 1
    assert len(loaded.problems) == 1 and str(size + 1) in loaded.problems[0]
    assert peak < 16 * 2**20


def test_a_file_of_garbage_gives_few_messages(folder):
    append(folder, b"x\n" * 10_000)
    problems = reading.read(folder).problems
    assert len(problems) == reading.PROBLEM_LIMIT + 1 and "further" in problems[-1]


def test_newer_schema_stops(folder, made):
    append(folder, json.dumps({**made[0], "schema": 2, "new": 1}).encode() + b"\n")
    with pytest.raises(RecordError, match=r"newer than 1.*upgrade"):
        reading.read(folder)


def test_duplicate_keeps_the_last(folder, made):
    append(folder, dumps({**made[0], "time": "2001-01-01T00:00:00Z"}).encode() + b"\n")
    loaded = reading.read(folder)
    assert len(loaded.records) == len(made)
    assert loaded.records[-1]["time"].startswith("2001") and "second record" in loaded.problems[0]


@pytest.mark.parametrize("name", ["records.jsonl", "environment.json", "suite.toml"])
def test_link_out_of_the_folder_is_refused(folder, tmp_path, name):
    outside = tmp_path / "outside"
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    with pytest.raises(RecordError, match="leads out"):
        reading.read(folder)


def test_link_inside_the_folder_is_followed(folder, made):
    (folder / "records.jsonl").rename(folder / "part.jsonl")
    (folder / "records.jsonl").symlink_to("part.jsonl")
    assert len(reading.read(folder).records) == len(made)


def test_linked_run_folders_are_not_entered(folder, tmp_path):
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "link").symlink_to(folder)
    with pytest.raises(RecordError, match="holds no"):
        reading.read(tmp_path / "all")


def test_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "records.jsonl")
    with pytest.raises(RecordError, match="not a regular file"):
        reading.read(tmp_path)


@pytest.mark.parametrize("prepare", ["missing", "empty folder", "empty file", "blank file", "nothing"])
def test_nothing_to_read_is_an_error(tmp_path, prepare):
    if prepare in ("empty file", "blank file"):
        (tmp_path / "records.jsonl").write_text("\n\n" if prepare == "blank file" else "")
    path = {"missing": tmp_path / "none", "nothing": []}.get(prepare, tmp_path)
    with pytest.raises(RecordError):
        reading.read(path)


def test_folder_of_run_folders(tmp_path):
    for index, machine in enumerate(("alpha", "beta")):
        made = synthetic.records(20, machines=(machine,), seed=index)
        synthetic.write(tmp_path / machine, made, machines=(machine,))
    loaded = reading.read(tmp_path)
    assert len(loaded.records) == 40 and len(loaded.environments) == 2
    assert reading.read([tmp_path / "alpha", tmp_path / "beta"]) == loaded


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', "[" * 100_000])
def test_broken_environment_is_a_problem(folder, made, content):
    (folder / "environment.json").write_text(content)
    loaded = reading.read(folder)
    assert len(loaded.records) == len(made) and loaded.environments == {}
    assert any("environment" in problem for problem in loaded.problems)


def test_broken_suite_is_a_problem(folder, made):
    (folder / "suite.toml").write_bytes(b"\xff = [")
    loaded = reading.read(folder)
    assert loaded.suite == {} and len(loaded.problems) == 1 and len(loaded.records) == len(made)


def test_frame_has_one_row_a_record(folder, made):
    pandas = pytest.importorskip("pandas")
    import effbench

    frame = effbench.load(folder)
    assert len(frame) == len(made)
    assert list(frame["status"]) == [record["status"] for record in made]
    row = next(i for i, record in enumerate(made) if record["readings"].get("serve.latency"))
    latency = made[row]["readings"]["serve.latency"]
    assert frame["serve.latency"][row] == latency["value"] and frame["serve.latency.low"][row] == latency["low"]
    assert frame["serve.energy"].isna().all() and "knob.leaves" in frame and "param.partitions" in frame
    place = list(frame.columns).index("serve.latency")
    assert list(frame.columns)[place + 1 : place + 3] == ["serve.latency.low", "serve.latency.high"]
    assert isinstance(frame, pandas.DataFrame)

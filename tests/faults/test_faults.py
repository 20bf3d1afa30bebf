"""What a method does wrong ends its own trial, with a status and a reason, and nothing else.

One run of the engine over all of `hostile/`; every line below is one method and what its record must say.
"""

import json
import os
import time
from pathlib import Path

import pytest

from effbench.api import record as records
from effbench.run.command import Options, run

HERE = Path(__file__).parent
DEADLINE = 2.0  # s, as in hostile.toml
GRACE = 2.0  # s within which a worker is gone after its deadline

SERVING = [
    # method, status, what the reason says
    ("segfault", "crash", "SIGSEGV"),
    ("segfault-in-serve", "crash", "SIGSEGV"),
    ("exits", "crash", "exit code 0"),
    ("dies-in-one-case", "ok", ""),  # which is not this one: see below
    ("exits-politely", "error", "SystemExit"),
    ("aborts", "crash", "SIGABRT"),
    ("kills-itself", "crash", "SIGKILL"),
    ("kills-its-group", "crash", "SIGTERM"),
    ("loops-in-build", "timeout", "deadline of 2 s"),
    ("loops-in-serve", "timeout", "deadline of 2 s"),
    ("loops-in-save", "timeout", "deadline of 2 s"),
    ("ignores-signals", "timeout", "deadline of 2 s"),
    ("stops-itself", "timeout", "deadline of 2 s"),
    ("loops-over-errors", "timeout", "deadline of 2 s"),
    ("daemon", "ok", ""),
    ("daemon-then-dies", "crash", "exit code 3"),
    ("own-session", "ok", ""),
    ("chain", "ok", ""),
    ("twins", "ok", ""),
    ("allocates", "memory", "out of memory"),
    ("prints", "ok", ""),
    ("prints-garbage", "error", "done printing"),
    ("no-newline", "ok", ""),
    ("huge-reason", "error", "ValueError: long long"),
    ("huge-skip", "skipped", "no no no"),
    ("no-reason", "wrong", "no reason"),
    ("blank-skip", "skipped", "no reason"),
    ("half-character", "error", "not text"),
    ("huge-tally", "error", "record"),
    ("nan", "wrong", "not finite"),
    ("shape", "wrong", "shape"),
    ("dtype", "wrong", "float64, not integers"),
    ("duplicates", "wrong", "twice"),
    ("nothing", "error", "TypeError"),
    ("objects", "wrong", "answered differently"),
    ("yesterday", "wrong", ""),
    ("two-faced", "wrong", "timed call answered differently"),
    ("two-faced-count", "wrong", "counted call answered differently"),
    ("mutates", "wrong", "changed its input"),
    ("raises-in-init", "error", "no such object"),
    ("raises-in-skip", "error", "no opinion"),
    ("raises-in-build", "error", "no index"),
    ("raises-in-serve", "error", "no answer"),
    ("raises-in-save", "error", "no folder"),
    ("raises-in-load", "ok", ""),  # only a resumed run loads: see below
    ("recursion", "error", "RecursionError"),
    ("raises-the-unspeakable", "error", "Unspeakable"),
    ("interrupts", "error", "KeyboardInterrupt"),
    ("imports-nothing", "error", "no_such_module_anywhere"),
    ("claims-a-full-disk", "error", "No space left"),
    ("garbage-on-the-socket", "crash", "not an answer"),
    ("forged-answer", "crash", "not an answer"),
    ("forged-status", "crash", "not an answer"),
    ("babbles-on-the-socket", "timeout", "deadline of 2 s"),
    ("closes-everything", "crash", ""),
    ("changes-directory", "ok", ""),
    ("changes-globals", "ok", ""),
]
TRAINING = [
    ("yields-numbers", "wrong", "yielded int, not Step"),
    ("goes-on", "ok", ""),
    ("clings", "error", "GeneratorExit"),
    ("nan-in-the-curve", "wrong", "not finite"),
    ("nan-in-the-trace", "wrong", "not finite"),
    ("never-yields", "timeout", "deadline of 2 s"),
    ("raises-late", "error", "after one step"),
    ("counts-backwards", "wrong", "negative"),
    ("kills-its-parent", "crash", ""),
]
HONEST = ["honest", "also-honest", "counts", "zzz-counts-too"]


def marked(mark: str) -> list[int]:
    """Processes whose environment holds the mark, wherever they hid."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark.encode() in (entry / "environ").read_bytes() and "\nState:\tZ" not in (entry / "status").read_text():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """{method: records}, the lines, and the processes left over, of one run over everything."""
    folder, beats = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("beats")
    patch = pytest.MonkeyPatch()
    patch.setenv("EFFBENCH_IMPLEMENTATIONS", str(HERE / "hostile"))
    patch.setenv("EFFBENCH_DATA", str(tmp_path_factory.mktemp("cache") / "data"))
    patch.setenv("EFFBENCH_FAULTS", str(beats))
    try:
        outcome = run(Options(str(HERE / "hostile.toml"), out=folder, quiet=True))
        left = marked(str(beats))
    finally:
        patch.undo()
    lines = (folder / "records.jsonl").read_text().splitlines()
    found: dict[str, list] = {}
    for line in lines:
        record = json.loads(line)
        found.setdefault(record["method"], []).append(record)
    return found, lines, left, beats, folder, outcome


@pytest.mark.parametrize("method, status, reason", SERVING + TRAINING, ids=[row[0] for row in SERVING + TRAINING])
def test_a_fault_ends_its_own_trial_with_a_status_and_a_reason(hostile, method, status, reason):
    (record,) = hostile[0][method]
    assert (record["status"], reason in record["reason"]) == (status, True), f"{record['status']}: {record['reason'][:200]}"
    assert bool(record["reason"]) == (status != "ok")


@pytest.mark.parametrize("method", HONEST)
def test_honest_methods_of_the_same_group_are_ok(hostile, method):
    (record,) = hostile[0][method]
    assert record["status"] == "ok", record["reason"]
    if method.endswith("honest"):
        assert record["readings"]["quality.recall"]["value"] == 1
        assert record["readings"]["serve.latency"]["value"] > 0
        assert record["readings"]["serve.latency.ratio"]["n"] == 3
    else:
        assert record["readings"]["build.steps"]["value"] == 40


def test_every_method_has_one_valid_record_and_is_specified_here(hostile):
    found, lines, *_, outcome = hostile
    assert set(found) == {row[0] for row in SERVING + TRAINING} | set(HONEST)
    for line in lines:
        assert len(line.encode()) <= records.MAX_BYTES
        assert records.check(json.loads(line)) == []
        assert len(json.loads(line)["reason"]) <= 1000
        assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in json.loads(line)["reason"])
    assert outcome.code == 1


def test_workers_are_gone_two_seconds_after_their_deadline(hostile):
    beats = {path.name: [float(line) for line in path.read_text().split()] for path in hostile[3].iterdir()}
    hanging = ["loops-in-build", "loops-in-serve", "loops-in-save", "ignores-signals", "stops-itself", "loops-over-errors"]
    for name in hanging:
        assert beats[name], name
        assert beats[name][-1] - beats[name][0] <= DEADLINE + GRACE, name


def test_no_process_is_left_over(hostile):
    assert hostile[2] == []
    daemons = [hostile[3] / name for name in ("daemon", "daemon-then-dies", "chain")]
    before = [path.stat().st_size for path in daemons]
    time.sleep(0.2)
    assert [path.stat().st_size for path in daemons] == before, "a daemon still beats"


def test_nothing_of_a_method_stays_in_this_process(hostile):
    import numpy as np

    assert np.sort is not None
    assert os.environ.get("PATH")
    assert Path.cwd() != Path("/") or not str(HERE).startswith(str(Path.cwd()))


def test_going_on_after_the_budget_is_stopped_and_said(hostile):
    (record,) = hostile[0]["goes-on"]
    assert record["readings"]["build.steps"]["value"] == 40
    assert any("after its budget" in note for note in record["notes"])


def test_the_end_of_what_a_failed_trial_printed_is_kept(hostile):
    (record,) = hostile[0]["raises-in-build"]
    assert "no index" in (hostile[4] / "logs" / f"{record['key']}.txt").read_text()
    (record,) = hostile[0]["prints-garbage"]
    assert (hostile[4] / "logs" / f"{record['key']}.txt").stat().st_size < 200_000


def test_what_was_saved_but_cannot_be_loaded_is_built_again(tmp_path, monkeypatch):
    """Interrupted after the build, resumed: `load` raises, and the trial is built instead of lost."""
    from effbench.run.rounds import Part

    monkeypatch.setenv("EFFBENCH_IMPLEMENTATIONS", str(HERE / "hostile"))
    monkeypatch.setenv("EFFBENCH_DATA", str(tmp_path / "data"))
    options = Options(
        str(HERE / "hostile.toml"), tasks=("largest",), methods=("honest", "raises-in-load", "also-honest"), quiet=True
    )
    options.out = tmp_path / "run"

    def interrupt(self, *rest):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Part, "rounds", interrupt)
        assert run(options).code == 3
    assert run(options).code == 0
    found = {record["method"]: record for record in map(json.loads, (options.out / "records.jsonl").read_text().splitlines())}
    assert {record["status"] for record in found.values()} == {"ok"}
    assert any("no file" in note for note in found["raises-in-load"]["notes"])
    assert "notes" not in found["also-honest"]


def test_a_worker_that_dies_in_one_case_loses_that_case_only(tmp_path, monkeypatch):
    """What it had measured of the other case is measured anew, by a second worker beside the baseline."""
    monkeypatch.setenv("EFFBENCH_IMPLEMENTATIONS", str(HERE / "hostile"))
    monkeypatch.setenv("EFFBENCH_DATA", str(tmp_path / "data"))
    suite = tmp_path / "full.toml"
    text = (HERE / "hostile.toml").read_text().replace("smoke", "full")
    text = text.replace('methods = ["*"]', 'methods = ["honest", "dies-in-one-case"]')
    suite.write_text(text)
    options = Options(str(suite), tasks=("largest",), out=tmp_path / "run", quiet=True)
    assert run(options).code == 1
    lines = [json.loads(line) for line in (options.out / "records.jsonl").read_text().splitlines()]
    found = {(record["method"], record["case"]): record for record in lines}
    assert len(lines) == len(found) == 4
    dead = found.pop(("dies-in-one-case", "dozen"))
    assert (dead["status"], "exit code 5" in dead["reason"]) == ("crash", True), dead["reason"]
    assert {record["status"] for record in found.values()} == {"ok"}
    alive = found["dies-in-one-case", "batch"]["readings"]
    assert alive["quality.recall"]["value"] == 1 and alive["serve.latency.ratio"]["n"] == 3

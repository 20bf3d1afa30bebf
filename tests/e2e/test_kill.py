"""Whatever ends a run, the same command goes on: nothing finished is lost, nothing stands twice, nobody is left over."""

import json
import os
import random
import re
import resource
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from effbench.api.record import identity

HERE = Path(__file__).parent
SUITE = HERE / "steady.toml"
METHODS, SEEDS, CASES = 4, 2, 2
ALL = METHODS * SEEDS * CASES
FEW = ("--method", "third", "--seeds", "0", "--quiet")  # two records, where it does not take more


@pytest.fixture
def steady(effbench, tmp_path):
    """A shell whose techniques are slow and write down every build."""
    effbench.builds = tmp_path / "builds.txt"
    effbench.out = tmp_path / "run"
    effbench.environment |= {"EFFBENCH_IMPLEMENTATIONS": str(HERE / "steady"), "E2E_BUILDS": str(effbench.builds)}
    effbench.command = ("run", SUITE, "--out", effbench.out)
    return effbench


def built(steady) -> Counter:
    return Counter(steady.builds.read_text().splitlines()) if steady.builds.exists() else Counter()


def wait_for(condition, seconds=30.0, process=None):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.01)


def lines(folder: Path) -> list[bytes]:
    path = folder / "records.jsonl"
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def finish(steady):
    """Resume to the end; every record is there, once, and ok."""
    done = steady(*steady.command, "--quiet")
    assert done.returncode == 0, done.stderr
    found = steady.records(steady.out)
    assert len(found) == len({identity(record) for record in found}) == ALL
    assert {record["status"] for record in found} == {"ok"}
    return found


def unfinished_group(before: list[dict]) -> set[str]:
    """Trials that a resumed run may build again, at most: those of the first group that is not complete, as `method seed`."""
    count = Counter(f"{record['method']} {record['seed']}" for record in before)
    for seed in range(SEEDS):
        names = {f"{name} {seed}" for name in ("first", "second", "third", "fourth")}
        if any(count[name] < CASES for name in names):
            return {name for name in names if count[name] < CASES} | {f"first {seed}"}
    return set()


@pytest.mark.parametrize("times", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_kill_nine_loses_nothing_that_was_finished(steady, times):
    rng = random.Random(times)
    kept: list[bytes] = []
    for number in range(times):
        before, records = built(steady), steady.records(steady.out)
        process = steady.start(*steady.command, "--quiet")
        wait_for(lambda start=before, on=process: built(steady) != start or on.poll() is not None)
        # Later kills come later in a run, so that a long series still gets to the end.
        time.sleep(rng.uniform(0, 0.4 + 0.1 * number))
        process.kill()
        process.communicate()
        assert steady.gone_within(2.0), "workers survived their parent"
        now = lines(steady.out)
        assert now[: len(kept)] == kept, "a finished record is gone or changed"
        kept = now
        repeated = {name for name, count in built(steady).items() if name in before and count > before[name]}
        assert repeated <= unfinished_group(records), "more than one unfinished group was repeated"
    found = finish(steady)
    assert lines(steady.out)[: len(kept)] == kept
    assert len(found) == ALL
    assert list((steady.folder / "tmp").iterdir()) == [], "temporary homes of workers are left"


@pytest.mark.parametrize(
    "number, moment",
    [
        (signal.SIGINT, "build"),
        (signal.SIGTERM, "build"),
        (signal.SIGINT, "rounds"),
        (signal.SIGTERM, "rounds"),
        (signal.SIGTERM, "start"),
    ],
)
def test_an_interrupt_ends_within_two_seconds_and_resumes(steady, number, moment):
    slow = {"E2E_SLEEP": 30 if moment == "build" else 0}
    process = steady.start(*steady.command, **slow)
    if moment == "start":
        wait_for(steady.out.exists, process=process)
    else:
        wait_for(lambda: len(built(steady)) >= (1 if moment == "build" else 4), process=process)
    start = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - start < 2.0
    assert process.returncode == 3, err
    assert "Traceback" not in err
    assert "the same command resumes" in out + err
    assert steady.gone_within(0.5)
    if moment == "rounds":
        finish(steady)


def test_within_ends_the_rounds_of_a_group_and_keeps_what_they_measured(steady, tmp_path):
    """Rounds that would take minutes: the time that is left goes to scores and records, and those say how many turns there were."""
    endless = tmp_path / "endless.toml"
    endless.write_text(re.sub(r"rounds = \d+", "rounds = 100000", re.sub(r"serve = [\d.]+", "serve = 1000.0", SUITE.read_text())))
    steady("run", endless, "--out", steady.out, "--within", "17", "--seeds", "0", "--quiet")
    found = steady.records(steady.out)
    assert len(found) == METHODS * CASES and {record["status"] for record in found} <= {"ok", "unstable"}  # beside other work
    turns = [int(re.match(r"median of (\d+) turns", record["readings"]["serve.latency"]["how"])[1]) for record in found]
    assert all(3 <= count < 100000 for count in turns)


def test_what_was_saved_is_not_built_again(steady):
    """The methods of a group are built in order of name after the baseline: first, fourth, second, third."""
    process = steady.start(*steady.command, "--quiet", E2E_SLEEP="0.3")
    wait_for(lambda: len(built(steady)) >= 3, process=process)
    process.send_signal(signal.SIGINT)
    process.communicate()
    finish(steady)
    again = {name for name, count in built(steady).items() if count > 1}
    assert again == {"first 0", "second 0"}, "what cannot be saved is built again, 'fourth 0' is loaded"


def test_a_torn_last_line_is_cut_off_and_measured_again(steady):
    assert steady(*steady.command, *FEW).returncode == 0
    path = steady.out / "records.jsonl"
    whole = path.read_bytes()
    for torn in (1, 200):
        path.write_bytes(whole[:-torn])
        done = steady(*steady.command, *FEW)
        assert done.returncode == 0
        assert done.stderr.startswith(str(steady.out)), "--quiet prints one line"
        after = path.read_bytes()
        assert after.count(b"\n") == CASES
        assert after.startswith(whole[: whole[:-1].rindex(b"\n") + 1])
    path.write_bytes(whole + b"\0" * 4096)
    assert steady(*steady.command, *FEW).returncode == 0
    assert path.read_bytes() == whole


def test_a_damaged_line_inside_is_named_and_nothing_is_overwritten(steady):
    assert steady(*steady.command, *FEW).returncode == 0
    path = steady.out / "records.jsonl"
    found = path.read_bytes().split(b"\n")
    found[1] = found[1][:50]
    path.write_bytes(b"\n".join(found))
    done = steady(*steady.command, *FEW)
    assert done.returncode == 2
    assert "records.jsonl: line 2" in done.stderr
    assert path.read_bytes() == b"\n".join(found)


def test_a_second_run_into_the_same_folder_is_refused(steady):
    process = steady.start(*steady.command, "--quiet", E2E_SLEEP="30")
    wait_for(lambda: built(steady), process=process)
    second = steady(*steady.command)
    assert second.returncode == 2
    assert "another run is writing here" in second.stderr
    assert str(steady.out) in second.stderr
    assert process.poll() is None, "the first run goes on"
    process.kill()
    process.communicate()
    assert steady.gone_within(2.0)
    finish(steady)


def full(done, steady, size_before):
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "cannot write (" in done.stderr
    assert "Free space" in done.stderr
    assert lines(steady.out)[: len(size_before)] == size_before
    for line in lines(steady.out):
        json.loads(line)


def test_a_file_that_may_not_grow_ends_the_run_and_resumes(steady):
    limit = 12_000  # bytes: a few records

    def small():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    done = steady(*steady.command, preexec=small)
    full(done, steady, [])
    assert 0 < len(lines(steady.out)) < ALL
    kept = lines(steady.out)
    assert f"{len(kept)} finished records are safe" in done.stderr
    finish(steady)
    assert lines(steady.out)[: len(kept)] == kept


def test_a_full_disk_ends_the_run_and_resumes(steady, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        steady.out = disk / "run"
        steady.command = ("run", SUITE, "--out", steady.out)
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(96 * 1024))
        done = steady(*steady.command)
        full(done, steady, [])
        kept = lines(steady.out)
        ballast.unlink()
        finish(steady)
        assert lines(steady.out)[: len(kept)] == kept
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_within_stops_before_the_limit_and_resumes(steady):
    start = time.monotonic()
    done = steady(*steady.command, "--within", "8", E2E_SLEEP="0.7")
    assert time.monotonic() - start < 8
    assert done.returncode == 3, done.stderr
    assert "resumes" in done.stdout + done.stderr
    found = steady.records(steady.out)
    assert len(built(steady)) > 0
    assert len(found) < ALL
    assert {record["status"] for record in found} <= {"ok"}, "an unfinished trial is no failure"
    finish(steady)


def test_within_ends_a_build_that_would_last_longer(steady):
    start = time.monotonic()
    done = steady(*steady.command, "--within", "7", E2E_SLEEP="60")
    assert time.monotonic() - start < 7
    assert done.returncode == 3
    assert steady.records(steady.out) == []
    finish(steady)


def test_within_ends_scores_that_would_last_longer(steady):
    start = time.monotonic()
    done = steady(*steady.command, "--within", "9", E2E_SCORE="60")
    assert time.monotonic() - start < 9
    assert done.returncode == 3 and "of the 9 s of --within" in done.stdout + done.stderr
    assert steady.records(steady.out) == [], "an unfinished trial is no failure"
    assert steady.gone_within(0.5)
    finish(steady)


def test_fresh_moves_earlier_records_aside(steady):
    assert steady(*steady.command, *FEW).returncode == 0
    first = (steady.out / "records.jsonl").read_bytes()
    done = steady(*steady.command, *FEW, "--fresh")
    assert done.returncode == 0
    assert (steady.out / "earlier-1" / "records.jsonl").read_bytes() == first
    assert {line["time"] for line in steady.records(steady.out)} != set()
    assert len(steady.records(steady.out)) == CASES
    assert set(built(steady).values()) == {2}
    assert steady(*steady.command, *FEW, "--fresh").returncode == 0
    assert (steady.out / "earlier-2").is_dir()


def test_bare_leaves_only_records_environment_and_suite(steady):
    assert steady(*steady.command, *FEW, "--bare").returncode == 0
    assert sorted(path.name for path in steady.out.iterdir()) == ["environment.json", "records.jsonl", "suite.toml"]
    assert (steady.out / "suite.toml").read_bytes() == SUITE.read_bytes()


def test_a_finished_run_starts_nothing(steady):
    assert steady(*steady.command, *FEW).returncode == 0
    before = built(steady)
    assert steady(*steady.command, *FEW).returncode == 0
    assert built(steady) == before
    assert not (steady.out / "artifacts").exists() or not any((steady.out / "artifacts").iterdir())


def test_a_relative_folder_keeps_what_was_saved(steady):
    """Workers live in a folder of their own; `--out here` is the person's."""
    command = ("run", SUITE, "--out", "relative", "--quiet")
    process = steady.start(*command, E2E_SLEEP="0.2")
    wait_for(lambda: len(built(steady)) >= 4, process=process)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert any((steady.folder / "relative" / "artifacts").iterdir())
    assert steady(*command).returncode == 0

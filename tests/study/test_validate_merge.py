"""Foreign records: what a run cannot have written is found; merging is idempotent and free of order."""

import itertools
import json

import pytest

from effbench.api.record import dumps, loads
from effbench.plan.registry import Registry
from effbench.study import synthetic
from effbench.study.merge import merge
from effbench.study.validate import ERROR, SHARES, WARNING, validate

GOLDEN = None


@pytest.fixture(scope="module")
def registry():
    return Registry.read()


@pytest.fixture
def check(tmp_path, registry):
    """check(**changes) -> findings on a plausible record of a real method with these changes."""

    def go(level=ERROR, readings=None, environment=None, **changes):
        base = next(r for r in synthetic.records(60, failing=0) if r["case"])
        base |= {"task": "vector-search", "area": "search", "method": "exact", "baseline": "exact", "suite": "smoke", "size": "smoke", "backend": "torch",
                 "data": "clustered", "time": "2026-01-01T00:00:00Z", "commit": "0" * 40, "measure_version": 1, "samples": {}}  # fmt: skip
        base["readings"] = {
            "serve.latency": {"value": 1e-3, "unit": "s", "low": 9e-4, "high": 1.1e-3},
            "serve.flops": {"value": 1e6, "unit": "FLOP"}, "serve.items": {"value": 16, "unit": "item"},
            "serve.throughput": {"value": 16000.0, "unit": "item/s"}, "quality.recall@10": {"value": 0.9, "unit": "1"},
        } | (readings or {})  # fmt: skip
        base |= changes
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        (folder / "records.jsonl").write_text(dumps(base) + "\n")
        (folder / "environment.json").write_text(json.dumps({base["environment"]: environment or {"cpu": "x"}}))
        _, findings = validate([folder], registry=registry)
        return [f.what for f in findings if f.level == level]

    return go


def test_a_plausible_record_has_no_error(check):
    assert check() == []


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        ({"quality.recall@10": {"value": 1.2, "unit": "1"}}, "not between 0 and 1"),
        ({"quality.recall@10": {"value": 0.9, "unit": "%"}}, "the task says"),
        ({"quality.made-up": {"value": 0.9, "unit": "1"}}, "no such metric"),
        ({"other.thing": {"value": 0.9, "unit": "1"}}, "readings are of"),
        ({"serve.latency": {"value": 1.0, "unit": "ms"}}, "unit 'ms'"),
        ({"serve.latency": {"value": 0, "unit": "s"}}, "no time"),
        ({"serve.latency": {"value": 1e-3, "unit": "s", "low": 2e-3, "high": 3e-3}}, "outside its interval"),
        ({"serve.flops": {"value": 1e15, "unit": "FLOP"}}, "reaches"),
        ({"serve.bytes": {"value": 1e12, "unit": "B"}}, "B/s"),
        ({"serve.throughput": {"value": 99000.0, "unit": "item/s"}}, "over serve.latency"),
        ({"build.time": {"value": -1.0, "unit": "s"}}, "negative"),
    ],
)  # fmt: skip
def test_implausible_readings_are_errors(check, reading, words):
    assert any(words in what for what in check(readings=reading)), check(readings=reading)


def test_a_share_has_an_upper_end_and_a_ratio_to_another_share_has_none():
    assert SHARES.search("quality.accuracy") and SHARES.search("quality.closed-book-accuracy")
    assert not SHARES.search("quality.relative-accuracy")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"time": "2999-01-01T00:00:00Z"}, "future"),
        ({"time": "yesterday"}, "is not written as"),
        ({"size": "huge"}, "none of"),
        ({"device": "abacus"}, "none of"),
        ({"method": "nobody"}, "no method"),
        ({"task": "nothing"}, "no task"),
        ({"commit": "a" * 40 + "-dirty"}, "in no commit"),
        ({"commit": "--help"}, "cannot be looked up"),
        ({"readings": {}}, ""),
    ],
)
def test_what_cannot_be_replayed_is_an_error(check, change, words):
    if "readings" in change:
        assert any(
            "without a reading" in what
            for what in check(
                readings={
                    n: {"value": None, "unit": "1", "reason": "x"}
                    for n in ("serve.latency", "serve.flops", "serve.items", "serve.throughput", "quality.recall@10")
                }
            )
        )
        return
    assert any(words in what for what in check(**change))


def test_the_roof_of_the_machine_itself_counts(check):
    roofs = {"roofs": {"device": "cpu", "matmul": {"float32": 1e8}, "copy": 1e9}}
    assert any("times what this machine reached" in what for what in check(environment=roofs))
    roofs["roofs"]["matmul"]["int8"] = 1e12  # a method may narrow its data itself: looked at, not refused
    assert not [what for what in check(environment=roofs) if "this machine reached" in what]
    assert any("narrower type" in what for what in check(environment=roofs, level=WARNING))


def test_unknown_commit_is_looked_at_not_refused(check):
    assert any("not in this checkout" in what for what in check(level=WARNING))


def test_wrong_tree_digest_is_an_error(check):
    import subprocess
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    found = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True)
    if found.returncode:
        pytest.skip("no checkout")
    assert any("is not that of commit" in what for what in check(commit=found.stdout.strip()))


def test_duplicates_and_damage_are_named(tmp_path, registry):
    made = synthetic.records(20)
    folder = synthetic.write(tmp_path / "run", made)
    lines = (folder / "records.jsonl").read_text().splitlines()
    other = json.dumps(json.loads(lines[1]) | {"time": "2001-01-01T00:00:00Z"})
    (folder / "records.jsonl").write_text("\n".join([*lines, lines[0], other, '{"schema":1', ""]))
    _, findings = validate([folder], registry=registry)
    assert any(f.level == WARNING and "the same record stands" in f.what for f in findings)
    assert any(f.level == ERROR and "another record of this measurement" in f.what for f in findings)
    assert any("not valid JSON" in f.what and ":23" in f.where for f in findings)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_merge_is_free_of_order_and_idempotent(tmp_path):
    runs = []
    made = synthetic.records(90)
    for index in range(3):
        part = [dict(record) for record in made[index * 20 : index * 20 + 40]]
        for record in part:  # the same measurement, made again at another time
            record["time"] = f"200{index}-01-01T00:00:00Z"
        runs.append(synthetic.write(tmp_path / f"run{index}", part))
    first = None
    for number, turned in enumerate(itertools.permutations(runs)):
        out = tmp_path / f"out{number}"
        merge(list(turned), out)
        first = first or content(out)
        assert content(out) == first
    merge([tmp_path / "out0", *runs], tmp_path / "out0")
    assert content(tmp_path / "out0") == first
    step = tmp_path / "step"
    merge(runs[:2], step)
    merge([step, runs[2]], step)
    assert content(step) == first
    kept = [loads(line) for line in (tmp_path / "out0/records.jsonl").read_text().splitlines()]
    assert len(kept) == 80 and {r["time"][:4] for r in kept} == {"2000", "2001", "2002"}

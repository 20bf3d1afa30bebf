"""The API holds six unlike techniques and a reinforcement learner: each runs through the real engine and leaves valid records."""

import json
from pathlib import Path

import pytest

from effbench.api import record as records
from effbench.run.command import Options, run

HERE = Path(__file__).parent
AT_MOST = 40


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """All records of the toy suite, made once by the engine."""
    patch = pytest.MonkeyPatch()
    patch.setenv("EFFBENCH_IMPLEMENTATIONS", str(HERE / "toys"))
    patch.setenv("EFFBENCH_DATA", str(tmp_path_factory.mktemp("cache") / "data"))
    folder = tmp_path_factory.mktemp("toys")
    try:
        outcome = run(Options(str(HERE / "toys.toml"), out=folder, quiet=True))
    finally:
        patch.undo()
    lines = (folder / "records.jsonl").read_text().splitlines()
    return outcome, [json.loads(line) for line in lines], lines


def of(toys, method, **match):
    found = [r for r in toys[1] if r["method"] == method and all(r[k] == v for k, v in match.items())]
    assert found, f"no record of {method} with {match}"
    return found


def value(record, name):
    return record["readings"][name]["value"]


def test_every_toy_ran_and_left_valid_records(toys):
    outcome, found, lines = toys
    assert outcome.code == 0, [r["reason"] for r in found if r["status"] not in ("ok", "skipped")]
    assert {r["status"] for r in found} == {"ok", "skipped"}
    for line in lines:
        assert len(line.encode()) <= records.MAX_BYTES
        assert records.check(json.loads(line)) == []
    assert len({records.identity(r) for r in found}) == len(found)


def test_toys_are_short():
    for path in sorted((HERE / "toys").glob("*/*.py")):
        if path.name not in ("__init__.py", "task.py"):
            assert len(path.read_text().splitlines()) <= AT_MOST, path


def test_search_params_knob_pairs_cases_parts_tally_and_save(toys):
    found = of(toys, "toy-scann", seed=0)
    assert {r["params"]["loss"] for r in found} == {"exact", "none"}
    assert {(r["knobs"]["leaves"], r["knobs"]["rescore"]) for r in found} == {(1, 5), (8, 10)}, "pairs, not a product"
    assert {r["case"] for r in found} == {"batch", "one-by-one"}
    one = next(r for r in found if r["case"] == "batch" and r["knobs"]["leaves"] == 1)
    assert value(one, "build.partition.time") > 0
    assert value(one, "build.encode.time") > 0
    assert value(one, "size.bytes") > 400 * 8
    assert value(one, "serve.items") == 16
    assert 0 < value(one, "serve.flops") < value(of(toys, "toy-exact", case="batch")[0], "serve.flops")
    every = next(r for r in found if r["case"] == "batch" and r["knobs"]["leaves"] == 8 and r["params"]["loss"] == "exact")
    assert value(every, "quality.recall@5") > value(one, "quality.recall@5")
    assert every["readings"]["quality.recall@5"]["n"] == 48
    assert one["baseline"] == "toy-exact"
    assert len(one["samples"]["serve.latency.ratio"]) == 3, "one ratio a round"
    assert one["prepared"]["digest"]
    seeds = {record["seed"] for record in of(toys, "toy-exact", case="batch")}
    assert len(seeds) == len(of(toys, "toy-exact", case="batch")) == 2, "a deterministic baseline runs beside every seed"


def test_training_budgets_curve_and_tuning(toys):
    steps = {"steps": 60}
    flops = {"steps": 60, "like": "toy-locoprop-m"}
    sgd, same = of(toys, "toy-sgd", role="measure", budget=steps)[0], of(toys, "toy-sgd", role="measure", budget=flops)[0]
    loco = of(toys, "toy-locoprop-m", role="measure", budget=flops)[0]
    assert value(sgd, "build.steps") == 60
    assert value(same, "build.steps") == 60 * 11 // 3, "LocoProp's FLOPs in steps of SGD"
    assert value(loco, "build.steps") == 60
    assert value(loco, "build.flops") == pytest.approx(value(same, "build.flops"), rel=0.01)
    assert sgd["curve"]["steps"][-1] == 60
    assert len(sgd["curve"]["steps"]) == 20
    assert sgd["curve"]["flops"][-1] == pytest.approx(value(sgd, "build.flops"))
    assert sgd["curve"]["validation-loss"][-1] < sgd["curve"]["validation-loss"][0]
    for method in ("toy-sgd", "toy-locoprop-m"):
        tuning = of(toys, method, role="tuning", budget=steps)
        assert len(tuning) == 3
        assert {r["seed"] for r in tuning} == {0}, "tuned once, on the first seed"
        measured = of(toys, method, role="measure", budget=steps)
        assert [r["tuning"]["trials"] for r in measured] == [3, 3]
        best = min(tuning, key=lambda r: r["curve"]["validation-loss"][-1])
        assert all(r["params"] == best["params"] for r in measured)
        assert "quality.test-loss" in measured[0]["readings"]


def test_early_exit_calibrates_and_counts_tokens(toys):
    calm = of(toys, "toy-calm", case="batch-8", seed=0)[0]
    assert value(calm, "build.calibrate.time") > 0
    assert value(calm, "build.samples") == 11 * 40
    assert value(calm, "serve.items") == 8
    assert value(calm, "serve.tally.layers") <= 8 * 6
    assert value(calm, "quality.agreement") >= 0.7


def test_distillation_times_the_index_apart(toys):
    one, other = (next(r for r in of(toys, "toy-distill", seed=0) if r["params"]["symmetric"] is s) for s in (False, True))
    for record in (one, other):
        assert value(record, "build.train.time") > 0
        assert value(record, "build.index.time") > 0
        assert value(record, "size.parameters") == 40
    assert one["prepared"] == other["prepared"], "the teacher is shared and charged to neither"


def test_layer_has_two_calls_and_skips_with_a_reason(toys):
    assert {r["case"] for r in of(toys, "toy-expert-choice", data="tokens(causal=False)")} == {"forward", "step"}
    skipped = of(toys, "toy-expert-choice", data="causal-tokens(causal=True)")
    assert {(r["status"], r["reason"]) for r in skipped} == {("skipped", "sees future tokens")}


def test_search_for_settings_replicates_and_keeps_a_regret_curve(toys):
    asha = of(toys, "toy-asha", seed=0)[0]
    assert asha["case"] == ""
    assert asha["readings"]["quality.final-regret"]["n"] == 12
    assert asha["readings"]["quality.time-to-target"]["n"] <= 12, "a replicate that never hits gives no value"
    assert asha["curve"]["regret"] == sorted(asha["curve"]["regret"], reverse=True)
    assert "regret.p90" in asha["curve"]


def test_reinforcement_counts_environment_steps(toys):
    q = of(toys, "toy-q", seed=0)[0]
    assert value(q, "build.samples") == 2000
    assert value(q, "quality.return") == pytest.approx(0.95**7)
    assert q["curve"]["samples"][-1] == 2000

"""Verdicts: each of the six words, from records that only the record API made; pairing, fronts, curves, and fair baselines."""

import json
import math

import pytest

from effbench.api.record import SCHEMA, check, reading
from effbench.api.values import Bound, Claim
from effbench.plan.origins import Origin
from effbench.plan.registry import Registry
from effbench.study import claims
from effbench.study.bounds import Seen, judge, same_data
from effbench.study.merge import latest

TASK = """
from effbench import Bound, Claim, Data, Log, Method, Metric, Task, knob, param

class Index(Method):
    pass

class Search(Task):
    name = "search"
    interface = Index
    data = (Data("blobs", {"n": 100}),)
    metrics = {"recall": Metric("1", "higher", "query")}
    baselines = ("flat",)

class Flat(Index):
    name = "flat"
    lr = param(0.1, tune=Log(0.01, 1.0))

class Tree(Index):
    name = "tree"
    lr = param(0.1, tune=Log(0.01, 1.0))
    leaves = knob(4)
    claims = (Claim("c", "s", parts=(CLAIMED,), size="quick"),)

class Other(Index):
    name = "other"
"""


@pytest.fixture
def registry(tmp_path):
    def make(parts='Bound("quality.recall", ">=", 0.9)', **claim):
        folder = tmp_path / "area"
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").write_text("")
        more = "".join(f", {name}={value!r}" for name, value in claim.items())
        (folder / "task.py").write_text(TASK.replace('parts=(CLAIMED,), size="quick"', f"parts=({parts},), size='quick'{more}"))
        found = Registry.read([Origin("area", folder, "test")])
        assert not found.problems
        return found

    return make


def record(method, readings, *, seed=0, case="batch", params=None, knobs=None, **more):
    made = {
        "schema": SCHEMA, "role": "measure", "key": f"{method}{seed}", "suite": "test", "area": "area", "task": "search",
        "task_version": 1, "method": method, "method_version": 1, "backend": "numpy", "data": "blobs(n=100)", "size": "quick",
        "seed": seed, "device": "cpu", "threads": 1, "dtype": "float32", "params": params or {"lr": 0.1}, "knobs": knobs or {},
        "case": case, "budget": {}, "status": "ok", "reason": "", "readings": readings, "group": f"g{seed}", "baseline": "flat",
        "environment": "e" * 12, "commit": "0" * 40, "tree": "t", "loaded": "l", "data_digest": "d", "measure_version": 1,
        "time": "2026-01-01T00:00:00Z", **more,
    }  # fmt: skip
    assert check(made) == []
    return made


def recall(value, spread=0.01):
    return {"quality.recall": reading(value, "1", low=value - spread, high=value + spread, n=100)}


def timed(seconds, ratio=None, **more):
    found = {"serve.latency": reading(seconds, "s", low=seconds * 0.9, high=seconds * 1.1), **more}
    if ratio:
        found["serve.latency.ratio"] = reading(ratio, "1", low=ratio * 0.98, high=ratio * 1.02)
    return found


def one(registry, records, **options):
    found = claims.verdicts(records, registry, **options)
    assert len(found) == 1, [v.verdict for v in found]
    return found[0]


BASE = record("flat", {**recall(1.0, 0), **timed(1.0, 1.0)})


@pytest.mark.parametrize("value, word", [(0.95, "reproduced"), (0.85, "not reproduced"), (0.905, "unclear"), (0.895, "unclear")])
def test_the_whole_interval_counts(registry, value, word):
    found = one(registry(), [BASE, record("tree", recall(value))])
    assert found.verdict == word
    if word == "unclear":
        assert "interval spans the bound" in found.reason


def test_partly_is_what_was_named_in_advance(registry):
    parts = 'Bound("quality.recall", ">=", 0.9), Bound("serve.latency", "<=", 0.5, over="flat")'
    slow = [BASE, record("tree", {**recall(0.95), **timed(0.8, 0.8)})]
    assert one(registry(parts), slow).verdict == "not reproduced"
    found = one(registry(parts, partly=(0,)), slow)
    assert (found.verdict, found.reason) == ("partly", "part 2 fails in batch")
    assert one(registry(parts, partly=(1,)), slow).verdict == "not reproduced"


def test_not_testable_and_not_tested_say_why(registry):
    assert one(registry(untestable="needs a crystal ball"), []).reason == "needs a crystal ball"
    assert one(registry(), [BASE]).verdict == "not tested"
    small = one(registry(), [BASE, record("tree", recall(0.99), size="smoke")])
    assert (small.verdict, small.reason) == ("not tested", "it needs size quick and was measured at smoke only")
    skipped = record("tree", {}, status="skipped", reason="no such device")
    found = one(registry(), [BASE, skipped])
    assert found.verdict == "not testable here" and "no such device" in found.reason
    crashed = one(registry(), [BASE, record("tree", {}, status="crash", reason="SIGSEGV")])
    assert crashed.verdict == "unclear" and "SIGSEGV" in crashed.reason


def test_a_baseline_that_is_missing_failed_or_less_tuned_makes_it_unclear(registry):
    good = record("tree", recall(0.99))
    assert "baseline 'flat' was not measured" in one(registry(), [good]).reason
    failed = one(registry(), [record("flat", {}, status="timeout", reason="too slow"), good])
    assert failed.verdict == "unclear" and "timeout: too slow" in failed.reason
    tuned = record("tree", recall(0.99), tuning={"trials": 6})
    found = one(registry(), [BASE, tuned])
    assert found.verdict == "unclear" and "tuned with 0 trials, tree with 6" in found.reason
    assert one(registry(), [{**BASE, "tuning": {"trials": 6}}, tuned]).verdict == "reproduced"
    # Older records at the defaults may lie beside those at tuned settings, but not in their place on other data.
    best = {**BASE, "tuning": {"trials": 6}, "params": {"lr": 0.3}, "key": "tuned"}
    assert one(registry(), [BASE, best, tuned]).verdict == "reproduced"
    assert "no arm was tuned" in one(registry(), [BASE, good]).notes[0]


def test_latency_ratio_is_paired_by_round_and_otherwise_says_so(registry):
    parts = 'Bound("serve.latency", "<=", 0.5, over="flat")'
    found = one(registry(parts), [BASE, record("tree", timed(0.46, 0.46))])
    assert found.verdict == "reproduced" and found.parts[0].seen.how == "paired by round, one process"
    alone = one(registry(parts), [BASE, record("tree", timed(0.46))])
    assert alone.verdict == "unclear", "0.46 with two intervals of 10 % reaches 0.56"
    assert "nothing paired" in alone.parts[0].seen.how
    assert alone.parts[0].seen.high == pytest.approx(0.46 * 1.1 / 0.9)
    other = record("flat", timed(1.0), group="another")
    apart = one(registry(parts), [other, record("tree", timed(0.1))])
    assert apart.verdict == "not tested" and "same rounds" in apart.reason


def test_qualities_are_paired_by_seed(registry):
    parts = 'Bound("quality.recall", ">=", 1.0, over="flat")'
    levels = (0.2, 0.5, 0.8)
    records = [record("flat", recall(v), seed=s) for s, v in enumerate(levels)]
    records += [record("tree", recall(v * (1.05 + 0.01 * s)), seed=s) for s, v in enumerate(levels)]
    found = one(registry(parts), records)
    assert found.verdict == "reproduced" and found.parts[0].seen.how == "paired by 3 seeds"
    assert found.parts[0].seen.value == pytest.approx(1.06, abs=0.001)
    unpaired = [{**r, "seed": r["seed"] + 10} if r["method"] == "tree" else r for r in records]
    assert one(registry(parts), unpaired).verdict == "unclear", "the seeds differ more than the methods"
    assert one(registry(parts), [BASE, record("tree", {"quality.recall": reading(2.0, "1")})]).verdict == "unclear"


def test_counted_numbers_need_no_interval(registry):
    parts = 'Bound("serve.flops", "<=", 0.5, over="flat")'
    flops = {"serve.flops": reading(100, "FLOP")}
    assert (
        one(registry(parts), [record("flat", flops), record("tree", {"serve.flops": reading(50, "FLOP")})]).verdict == "reproduced"
    )


def test_every_case_must_hold_unless_one_is_named(registry):
    records = [record("flat", recall(1.0), case=c) for c in ("a", "b")]
    records += [record("tree", recall(v), case=c) for c, v in (("a", 0.99), ("b", 0.5))]
    found = one(registry(), records)
    assert found.verdict == "not reproduced" and found.parts[0].place == "b"
    assert one(registry('Bound("quality.recall", ">=", 0.9, case="a")'), records).verdict == "reproduced"
    assert one(registry('Bound("quality.recall", ">=", 0.9, case="c")'), records).verdict == "not tested"


def test_data_of_a_bound(registry):
    parts = 'Bound("quality.recall", ">=", 0.9, data="blobs(n=7)")'
    records = [record(m, recall(v), data=d) for m in ("flat", "tree") for d, v in (("blobs(n=7)", 0.99), ("blobs(n=9)", 0.1))]
    found = one(registry(parts), records)
    assert (found.verdict, found.data) == ("reproduced", "blobs(n=7)")
    assert one(registry(parts), records[1::2]).reason == "no records of tree on blobs(n=7)"
    assert len(claims.verdicts(records, registry())) == 2, "without it, every data set has a verdict of its own"
    assert same_data("blobs(n=7)", "blobs(k=1, n=7)") and not same_data("blobs(n=7)", "blobs(n=77)")
    assert same_data("blobs", "blobs(n=7)") and not same_data("blob", "blobs(n=7)")


def test_at_a_quality_is_read_off_the_front(registry):
    parts = 'Bound("serve.latency", "<=", 0.5, over="flat", at="quality.recall >= 0.9")'
    points = [(1, 0.7, 0.1), (4, 0.85, 0.2), (16, 0.95, 0.4), (64, 0.99, 0.9)]
    records = [BASE, *(record("tree", {**recall(q, 0.005), **timed(c, c)}, knobs={"leaves": n}) for n, q, c in points)]
    found = one(registry(parts), records)
    assert found.verdict == "reproduced"
    seen = found.parts[0].seen
    assert seen.value == pytest.approx(math.exp((math.log(0.2) + math.log(0.4)) / 2), rel=1e-6), (
        "halfway in the logarithm of the cost"
    )
    assert seen.low < seen.value < seen.high and "paired by round" in seen.how
    high = registry(parts.replace("0.9", "0.999"))
    assert "does not reach" in one(high, records).reason
    edge = registry(parts.replace("0.9", "0.988"))
    assert "beyond the front" in one(edge, records).reason


def test_several_settings_without_a_condition_use_the_default(registry):
    records = [BASE, *(record("tree", recall(q), knobs={"leaves": n}) for n, q in ((1, 0.5), (4, 0.95), (16, 0.99)))]
    assert one(registry(), records).parts[0].seen.value == 0.95
    none = [BASE, *(record("tree", recall(q), knobs={"leaves": n}) for n, q in ((1, 0.5), (16, 0.99)))]
    assert "several settings" in one(registry(), none).reason


def curve(values, seconds):
    return {"steps": [1, 2, 3, 4], "time": [seconds * i for i in (1, 2, 3, 4)], "loss": values}


def test_time_to_a_loss_is_read_off_the_curve(registry):
    parts = 'Bound("build.time", "<=", 0.8, over="flat", at="quality.loss <= 0.5")'
    falling, stuck = [1.0, 0.8, 0.5, 0.3], [1.0, 0.9, 0.8, 0.7]
    arms = lambda mine, theirs, fast: [  # noqa: E731
        record(m, {}, seed=s, case="", curve=curve(v, t))
        for s in (0, 1, 2)
        for m, v, t in (("flat", theirs, 1.0), ("tree", mine, fast + 0.01 * s))
    ]
    found = one(registry(parts), arms(falling, falling, 0.5))
    assert found.verdict == "reproduced" and found.parts[0].seen.value == pytest.approx(0.51, abs=0.001)
    never = one(registry(parts), arms(falling, stuck, 0.5))
    assert never.verdict == "reproduced" and "where it stopped" in never.parts[0].seen.how
    lost = one(registry(parts), arms(stuck, falling, 1.0))
    assert lost.verdict == "not reproduced" and lost.parts[0].seen.high == math.inf
    assert "neither reached" in one(registry(parts), arms(stuck, stuck, 1.0)).reason
    json.dumps(claims.plain([lost]), allow_nan=False)


def test_unfair_comparisons_are_unclear(registry):
    parts = 'Bound("quality.recall", ">=", 0.5, over="flat")'
    records = [BASE, record("tree", recall(0.95))]
    found = one(registry(parts), records, unfair=lambda task, mine, other: "twice the parameters")
    assert found.verdict == "unclear" and "twice the parameters" in found.reason


def test_unstable_records_keep_what_is_not_seconds(registry):
    shaky = record("tree", {**recall(0.95), **timed(0.1, 0.1)}, status="unstable", reason="noise")
    assert one(registry(), [BASE, shaky]).verdict == "reproduced"
    timing = one(registry('Bound("serve.latency", "<=", 0.5, over="flat")'), [BASE, shaky])
    assert timing.verdict == "not tested" and "unstable" in timing.reason


@pytest.mark.parametrize("first", [0, 1])
def test_a_later_run_by_changed_sources_overtakes(registry, first):
    old = record("tree", {**recall(0.5), **timed(2.0, 2.0)}, key="older")
    new = record("tree", {**recall(0.95), **timed(0.1, 0.1)}, key="newer", time="2026-01-02T00:00:00Z")
    pair = [BASE, *([old, new][:: 1 if first else -1])]
    assert one(registry(), pair).verdict == "reproduced"
    assert one(registry('Bound("serve.latency", "<=", 0.5, over="flat")'), pair).verdict == "reproduced"
    skipped = record("tree", {}, key="no", status="skipped", reason="no package", time="2026-01-03T00:00:00Z")
    assert one(registry(), [*pair, skipped]).verdict == "reproduced"
    # Another seed, setting or case is another trial.
    others = [old | {"seed": 1}, old | {"params": {"lr": 0.2}}, old | {"case": "one"}, old | {"environment": "f" * 12}]
    assert latest([new, *others]) == (new, *others)


def test_machines_have_verdicts_of_their_own(registry):
    here, there = (
        [record(m, recall(v), environment=e * 12) for m, v in (("flat", 1.0), ("tree", q))] for e, q in (("a", 0.99), ("b", 0.5))
    )
    found = claims.verdicts([*here, *there], registry(), {"a" * 12: {"cpu": "Made-up 1"}})
    assert [(v.verdict, v.machine) for v in found] == [("reproduced", "Made-up 1"), ("not reproduced", "")]


@pytest.mark.parametrize("op, holds, fails", [("<=", 1.0, 1.01), ("<", 0.99, 1.0), (">=", 1.0, 0.99), (">", 1.01, 1.0)])
def test_bounds_at_their_edge(op, holds, fails):
    bound = Bound("m", op, 1.0)
    assert judge(bound, Seen(holds, holds, holds)) == "holds"
    assert judge(bound, Seen(fails, fails, fails)) == "fails"
    assert judge(bound, Seen(1.0, 0.5, 1.5)) == "open" and judge(bound, Seen(1.0)) == "open" and judge(bound, Seen()) == "missing"


def test_the_ledger_is_printed(registry):
    found = claims.verdicts([BASE, record("tree", recall(0.95))], registry('Bound("quality.recall", ">=", 0.9, case="batch")'))
    page = claims.text(found)
    assert "search/tree: reproduced" in page and "holds    quality.recall >= 0.9 case batch: 0.95 [0.94, 0.96]" in page
    assert page.endswith("1 reproduced")
    row = claims.markdown(found).splitlines()[2]
    assert row.startswith("| search/tree | c | s | quality.recall >= 0.9 case batch | 0.95 [0.94, 0.96] | reproduced |")
    assert Claim("t", "s").size == "full" and claims.decide(Claim("t", "s"), ())[0] == "not tested"


def test_a_bound_may_name_the_arm_and_an_ablation_of_its_own_method(registry):
    parts = 'Bound("quality.recall", ">=", 1.05, over="tree", params={"lr": 0.1}, over_params={"lr": 0.5})'
    full = [record("tree", recall(0.9, 0.001), seed=seed, params={"lr": 0.1}) for seed in (0, 1, 2)]
    cut = [record("tree", recall(0.8, 0.001), seed=seed, params={"lr": 0.5}) for seed in (0, 1, 2)]
    base = [record("flat", recall(1.0, 0), seed=seed) for seed in (0, 1, 2)]
    assert one(registry(parts), [*base, *full, *cut]).verdict == "reproduced"
    assert one(registry(parts.replace("1.05", "1.2")), [*base, *full, *cut]).verdict == "not reproduced"
    assert one(registry(parts), [*base, *full]).verdict == "not tested"
    shown = one(registry(parts), [*base, *full, *cut]).parts[0].promised
    assert "with lr=0.1" in shown and "against lr=0.5" in shown


def test_a_bound_may_name_the_equality_of_its_budget(registry):
    parts = 'Bound("quality.recall", ">=", 0.9, budget="steps")'
    steps = [record(name, recall(0.95), budget={"steps": 10}) for name in ("flat", "tree")]
    flops = [record(name, recall(0.5), budget={"steps": 10, "like": "flat"}) for name in ("flat", "tree")]
    assert one(registry(parts), [*steps, *flops]).verdict == "reproduced"
    assert [v.verdict for v in claims.verdicts([*steps, *flops], registry('Bound("quality.recall", ">=", 0.9)'))] == [
        "not reproduced",
        "reproduced",
    ]
    assert one(registry(parts), flops).reason == "no records of tree at equal steps"
    with pytest.raises(ValueError, match="budget"):
        Bound("quality.recall", ">=", 0.9, budget="epochs")

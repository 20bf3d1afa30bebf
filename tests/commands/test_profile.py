"""`effbench profile` says where a call's time goes, and its FLOPs are the counter's."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from effbench.api.errors import EffbenchError
from effbench.cli import app
from effbench.commands import profile
from effbench.plan.registry import Registry
from effbench.publish import operators
from effbench.run import profiling

TOYS = Path(__file__).parents[1] / "api" / "toys"


def run(*words):
    return CliRunner().invoke(app, ["profile", *words])


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFBENCH_DATA", str(tmp_path / "cache" / "data"))
    monkeypatch.setattr(profile.results, "folder", lambda: None)  # no roofs of this machine, whatever has been committed
    return tmp_path


def test_naive_attention_spends_its_flops_in_two_products(cache):
    common = ("naive", "--task", "attention-forward", "--size", "smoke", "--case", "n-128", "--out", str(cache / "out"))
    shown = run(*common, "--json")
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    products = next(row for row in found["rows"] if row["name"] == "aten::bmm")
    assert products["calls"] == 2
    assert products["flops"] == found["flops"] == found["counted"] == 4 * 8 * 64 * 128**2
    assert "by the method's formula" not in operators.text(found), "the counter agrees"
    assert products["bytes"] == 2 * 4 * 8 * (128 * 64 + 64 * 128 + 128 * 128)
    assert found["bytes"] >= products["bytes"]
    assert products["rate"] == pytest.approx(products["flops"] / products["seconds"])
    assert sum(row["share"] for row in found["rows"]) == pytest.approx(1)
    assert sum(row["seconds"] for row in found["rows"]) <= found["profiled"] * 1.5
    trace = json.loads(Path(found["trace"]).read_text())
    assert any(event.get("name") == "aten::bmm" for event in trace["traceEvents"])
    assert found["roof"] is None
    assert "doctor --calibrate" in operators.text(found)


def test_numpy_is_profiled_by_function(cache, monkeypatch):
    monkeypatch.setenv("EFFBENCH_IMPLEMENTATIONS", str(TOYS))
    shown = run("toy-scann", "--size", "smoke", "--knob", "leaves=8", "--param", "loss=none", "--out", str(cache / "out"), "--json")
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert found["knobs"]["leaves"] == 8
    assert found["params"]["loss"] == "none"
    assert any("search (scann.py" in row["name"] for row in found["rows"])
    assert Path(found["trace"]).name == "profile.pstats"
    assert found["counted"] is None and found["flops"] > 0, "no counter looks into numpy: by the formula"


def test_shares_of_the_roof_follow_from_the_calibration():
    rows = [{"name": "a", "calls": 1, "seconds": 0.5, "flops": 50.0}, {"name": "b", "calls": 1, "seconds": 0.5, "flops": None}]
    answer = {"rows": rows, "flops": 50.0, "wall": 1.0, "elsewhere": {}, "uncounted": []}
    found = profile.shares(answer, {"matmul": {"float32": 200.0}, "copy": 1.0}, "float32")
    assert [row["roof"] for row in found["rows"]] == [0.5, None]
    assert found["roof"] == 0.25
    assert profile.shares(answer, None, "float32")["roof"] is None


def test_what_moves_more_than_it_computes_is_held_against_the_copy():
    rows = [{"name": "a", "calls": 1, "seconds": 0.5, "flops": 50.0, "bytes": 4.0}]
    answer = {"rows": rows, "flops": 50.0, "wall": 1.0, "elsewhere": {}, "uncounted": []}
    found = profile.shares(answer, {"matmul": {"float32": 200.0}, "copy": 10.0}, "float32")
    (row,) = found["rows"]
    assert (row["roof"], row["bound"]) == (0.8, "memory")  # 4 B of 10 B/s in half a second, 50 FLOP of 200 FLOP/s would be 0.5
    assert (found["bytes"], found["roof"], found["bound"]) == (4.0, 0.4, "memory")


def test_what_no_counter_sees_is_told_by_the_formula():
    """A kernel of its own, as Triton's: without the formula a call of it would have 0 FLOP."""
    rows = [{"name": "_fused", "calls": 1, "seconds": 0.5, "flops": None, "bytes": None}]
    answer = {"rows": rows, "flops": 0.0, "wall": 1.0, "elsewhere": {}, "uncounted": [], "formula": {"flops": 50.0, "bytes": 4.0}}
    found = profile.shares(answer, {"matmul": {"float32": 200.0}, "copy": 1000.0}, "float32")
    assert (found["flops"], found["counted"], found["bytes"], found["rate"]) == (50.0, 0.0, 4.0, 50.0)
    assert (found["roof"], found["bound"]) == (0.25, "compute")
    assert operators.seen(found) == " by the method's formula (the counter saw 0 FLOP)"
    assert profile.shares(answer | {"formula": None}, None, "float32")["flops"] == 0.0
    no_formula_of_bytes = profile.shares(answer | {"formula": {"flops": 50.0, "bytes": None}}, None, "float32")
    assert no_formula_of_bytes["bytes"] is None and operators.seen(no_formula_of_bytes)
    more = profile.shares(answer | {"rows": [{**rows[0], "bytes": 9.0}]}, None, "float32")
    assert more["bytes"] == 9.0, "operations moved more than the least"


def test_a_machine_without_a_calibration_of_its_own_takes_the_committed_one(tmp_path):
    assert profile.results.roofs("abc", tmp_path) is None
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "environment.json").write_text('{"abc": {"cpu": "x"}, "def": {"roofs": {"measure": 0, "matmul": {}}}}')
    (tmp_path / "b" / "environment.json").write_text("damaged")
    assert profile.results.roofs("abc", tmp_path) is None and profile.results.roofs("def", tmp_path) is None
    roofs = {"measure": profile.roofline.MEASURE_VERSION, "matmul": {"float32": 1.0}, "copy": 1.0}
    (tmp_path / "b" / "environment.json").write_text(json.dumps({"abc": {"roofs": roofs}}))
    assert profile.results.roofs("abc", tmp_path) == roofs


def test_kernels_that_no_operation_launched_have_rows_of_their_own():
    def event(name, device, microseconds=0.0, kernels=()):
        span = SimpleNamespace(elapsed_us=lambda: microseconds)
        return SimpleNamespace(name=name, device_type=f"DeviceType.{device}", time_range=span, kernels=kernels)

    events = [
        event("aten::mm", "CPU", kernels=[SimpleNamespace(name="gemm", duration=5.0)]),
        event("gemm", "CUDA", 5.0),
        event("_fused", "CUDA", 3.0),
        event("_fused", "CUDA", 4.0),
        event("cudaDeviceSynchronize", "CUDA", 9.0),
    ]
    assert profiling.launched_by_none(events) == {"_fused": (2, 7.0)}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["naiv"], "naive"),
        (["chunked", "--case", "n-1"], "n-2048"),
        (["chunked", "--knob", "leaves"], "name=value"),
        (["chunked", "--knob", "leaves=3"], "no setting 'leaves'"),
        (["asha"], "serve phase"),
        (["naive", "--device", "gpu"], "cuda"),
    ],
)
def test_mistakes_are_told(words, told):
    shown = run(*words)
    assert shown.exit_code != 0
    assert isinstance(shown.exception, EffbenchError)
    assert told in str(shown.exception)


def test_self_time_leaves_out_what_lies_inside():
    spans = [("t", 0.0, 10.0, "while"), ("t", 1.0, 4.0, "dot"), ("t", 6.0, 1.0, "add"), ("u", 2.0, 3.0, "dot")]
    total = {}
    for name, seconds in profiling.self_times(spans):
        total[name] = total.get(name, 0) + seconds
    assert total == {"while": 5.0, "dot": 7.0, "add": 1.0}


def test_settings_keep_their_types():
    assert profile.settings(("a=1", "b=0.5", "c=auto", "d=True"), "") == {"a": 1, "b": 0.5, "c": "auto", "d": True}


def test_only_marked_events_are_operations():
    events = [
        {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": "/device:GPU:0"}},
        {"ph": "X", "pid": 2, "tid": 1, "ts": 0, "dur": 2e6, "name": "dot", "args": {"hlo_op": "dot.1"}},
        {"ph": "X", "pid": 2, "tid": 1, "ts": 0, "dur": 2e6, "name": "python", "args": {}},
        {"ph": "X", "pid": 1, "tid": 1, "ts": 0, "dur": 1e6, "name": "gemm", "args": {"hlo_module": "m"}},
    ]
    assert [(name, seconds) for _, _, seconds, name in profiling.operations(events)] == [("dot.1", 2.0), ("gemm", 1.0)]


def test_the_plan_has_one_trial_at_one_setting():
    plan, trial = profile.plan_of(profile.Options("ivf", size="smoke"), Registry.read())
    assert len(plan.trials) == 1
    assert len(trial.settings()) == 1

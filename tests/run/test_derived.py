"""Readings that follow from others: share of the roof, compile time."""

import pytest

from effbench.api.record import check, reading
from effbench.measure.compiling import PREFIX, CompileClock
from effbench.publish.drawing import Style
from effbench.publish.groups import groups
from effbench.publish.report import page_of
from effbench.publish.roofs import roofline_plots
from effbench.run.derived import compile_reading, roof_readings
from effbench.study import synthetic
from effbench.study.records import Loaded

ROOFS = {"device": "cpu", "matmul": {"float32": 1e9, "int8": 8e9}, "copy": 1e8, "measure": 1, "threads": 1}


def readings(flops, seconds=1.0, moved=None):
    found = {"serve.latency": reading(seconds, "s", low=seconds / 2, high=seconds * 2)}
    found["serve.flops"] = reading(flops, "FLOP", reason="none")
    return found | ({"serve.bytes": reading(moved, "B")} if moved else {})


def roof(*args, dtype="float32"):
    return roof_readings(readings(*args), ROOFS, dtype=dtype)["serve.roof"]


def test_the_share_carries_the_interval_of_the_latency():
    found = roof(2.5e8)
    assert (found["value"], found["low"], found["high"]) == (0.25, 0.125, 0.5)
    assert found["how"] == "compute roof only: 1e+09 FLOP/s float32"


@pytest.mark.parametrize(("flops", "moved", "bound", "share"), [(5e8, 1e6, "compute", 0.5), (1e7, 5e7, "memory", 0.5)])
def test_with_bytes_the_binding_roof_is_named(flops, moved, bound, share):
    found = roof(flops, 1.0, moved)
    assert found["value"] == share
    assert f"{bound} bound" in found["how"]


def test_above_the_roof_is_a_narrower_type_or_impossible():
    assert "narrower" in roof(4e9)["how"]
    assert "IMPOSSIBLE" in roof(4e10)["how"]


@pytest.mark.parametrize(("given", "dtype", "told"), [((None,), "float32", "neither"), ((1e8,), "float16", "not measured")])
def test_what_is_not_known_has_a_reason(given, dtype, told):
    found = roof(*given, dtype=dtype)
    assert found["value"] is None
    assert told in found["reason"]


def test_without_a_calibration_nothing_is_added():
    assert roof_readings(readings(1e8), None, dtype="float32") == {}


def test_compile_time_is_what_the_framework_reports_else_first_less_median():
    assert compile_reading("jax", 0.5, 9.0, 1.0)["serve.compile_time"]["value"] == 0.5
    told = compile_reading("jax", None, 9.0, 1.0)["serve.compile_time"]
    assert told["value"] == 8.0
    assert told["how"] == "first call less the median call"
    assert compile_reading("torch", None, 9.0, 1.0) == {}


def test_nested_compiles_count_once():
    now = [0.0]
    clock = CompileClock(lambda: now[0])
    for end, seconds in ((2.0, 1.0), (4.0, 1.0), (5.0, 4.5), (9.0, 1.0)):  # the third holds the first two
        now[0] = end
        clock.report(PREFIX + "jaxpr_trace_duration", seconds)
    clock.report("/jax/other", 100.0)
    assert clock.seconds() == pytest.approx(5.5)


def calibrated(bytes_moved=None):
    made = [record for record in synthetic.records(120) if record["status"] == "ok"]
    for record in made:
        if "serve.latency" in record["readings"]:
            record["readings"]["serve.flops"] = reading(1e6, "FLOP")
            record["readings"] |= roof_readings(record["readings"], ROOFS, dtype="float32")
            if bytes_moved:
                record["readings"]["serve.bytes"] = reading(bytes_moved, "B")
            assert check(record) == []
    return made


@pytest.mark.parametrize(("moved", "axis"), [(None, "executed FLOPs of a call"), (1e5, "arithmetic intensity")])
def test_the_report_draws_the_roof_of_a_calibrated_machine(moved, axis):
    records = calibrated(moved)
    environments = {records[0]["environment"]: {"cpu": "X", "roofs": ROOFS}}
    style = Style([record["method"] for record in records])
    (plot,) = roofline_plots(groups(Loaded(tuple(records), environments)), environments, style)
    figure = plot.figures[0]
    assert figure["layout"]["xaxis"]["title"]["text"] == axis
    line = next(trace for trace in figure["data"] if trace["name"] == "roof, float32")
    assert max(line["y"]) == (1e9 if moved is None else pytest.approx(1e9))
    assert plot.rows
    assert 'id="roofline"' in page_of([Loaded(tuple(records), environments)])


def test_without_roofs_no_figure():
    records = calibrated()
    assert 'id="roofline"' not in page_of([Loaded(tuple(records), {})])
    odd = {records[0]["environment"]: {"roofs": {"matmul": {"float32": "x", "a": -1, "b": True}}}}
    assert 'id="roofline"' not in page_of([Loaded(tuple(records), odd)])

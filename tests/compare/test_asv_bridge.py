"""The asv bridge: classes for every method of a suite, and series of which less is always better, as asv reads them."""

import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
BRIDGE = ROOT / "suites" / "asv" / "bridge.py"
SUITE = 'name = "one"\nsize = "smoke"\n[[run]]\ntask = "vector-search"\ndata = ["clustered(n=500, d=16, rank=8, queries=300)"]\nmethods = ["exact"]\n'
CALL = f"""
import sys
sys.path.insert(0, {str(BRIDGE.parent)!r})
import bridge
made = bridge.vector_search_exact()
setting = made.params[0][0]
made.setup(setting)
made.time_serve(setting)
print(made.track_quality_recall_at_10_inverse(setting), made.track_serve_flops(setting), made.track_quality_recall_at_10_inverse.unit)
"""


@pytest.fixture
def suite(tmp_path, monkeypatch):
    path = tmp_path / "one.toml"
    path.write_text(SUITE)
    monkeypatch.setenv("EFFBENCH_ASV_SUITE", str(path))
    return path


@pytest.fixture
def bridge(suite):
    spec = importlib.util.spec_from_file_location("bridge_under_test", BRIDGE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_method_has_a_class_without_a_file_of_its_own(bridge):
    made = bridge.vector_search_exact
    series = {name for name in dir(made) if name.startswith(("track_", "time_", "peakmem_"))}
    assert {"time_serve", "peakmem_serve", "track_serve_flops", "track_size_bytes", "track_build_time"} <= series
    assert {"track_quality_recall_at_10_inverse", "track_quality_relative_error"} <= series
    assert "track_quality_recall_at_10" not in series, "asv would call a fall of it better"
    assert "track_quality_relative_error_inverse" not in series


@pytest.mark.parametrize(("before", "after"), [(1.0, 0.9), (0.9, 0.5), (0.5, 0.0)])
def test_worse_answers_are_a_larger_number(bridge, before, after):
    track = bridge.tracker("quality.recall@10", "1", inverse=True)

    def said(value):
        return track(SimpleNamespace(_readings=lambda: {"quality.recall@10": {"value": value}}), "")

    assert math.isfinite(said(after)) and said(after) > said(before)
    assert math.isnan(said(None)), "what was not measured is no number"


def test_a_benchmark_runs_as_asv_runs_it(suite):
    done = subprocess.run(
        [sys.executable, "-c", CALL],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    recall, flops, unit = done.stdout.split()
    assert float(recall) == 1 and float(flops) > 0 and unit == "1/(1)"

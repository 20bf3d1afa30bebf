"""Shares of the roofs, and what a machine cannot do."""

import json

import pytest

from effbench.measure import roofline

ROOFS = {"device": "cpu", "matmul": {"float32": 1e11}, "copy": 1e10}


def test_share_of_both_roofs_and_what_binds():
    found = roofline.share(5e10, 1e9, 1.0, ROOFS)
    assert (found.compute, found.memory, found.bound) == (0.5, 0.1, "compute")
    assert roofline.share(1e9, 9e9, 1.0, ROOFS).bound == "memory"
    assert found.reason == ""


def test_faster_than_the_machine_is_a_wrong_formula_or_clock():
    assert "3.0 times" in roofline.share(3e11, None, 1.0, ROOFS).reason
    assert "times what this machine reached" in roofline.share(None, 5e10, 1.0, ROOFS).reason


def test_small_data_may_beat_the_memory_roof_from_a_cache():
    assert roofline.share(None, 1e6, 1e-5, ROOFS).reason == ""


def test_unknown_stays_unknown():
    found = roofline.share(1e9, None, 1.0, ROOFS, dtype="float8")
    assert (found.compute, found.memory, found.bound) == (None, None, "")
    with pytest.raises(ValueError):
        roofline.share(1e9, None, 0.0, ROOFS)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(roofline, "SIZES", {"cpu": (64, 128)})
    monkeypatch.setattr(roofline, "COPY_BYTES", {"cpu": 1 << 20})


def test_calibration_measures_positive_rates(small):
    roofs = roofline.calibrate("cpu", seconds=0.01)
    assert roofs["matmul"]["float32"] > 1e8
    assert roofs["matmul"]["float64"] > 1e8
    assert roofs["copy"] > 1e8
    assert json.loads(json.dumps(roofs)) == roofs


def test_roofs_are_measured_once_per_machine(small, tmp_path, monkeypatch):
    first = roofline.load_or_calibrate(tmp_path, "abc", seconds=0.01)
    monkeypatch.setattr(roofline, "calibrate", lambda *a, **k: pytest.fail("measured again"))
    assert roofline.load_or_calibrate(tmp_path, "abc") == first


@pytest.mark.parametrize("content", ["", "{", "[]", '{"measure": -1, "matmul": {}}'])
def test_a_damaged_or_old_file_is_measured_again(small, tmp_path, content):
    (tmp_path / "roofline-abc-cpu-1.json").write_text(content)
    assert roofline.load_or_calibrate(tmp_path, "abc", seconds=0.01)["copy"] > 0
    assert len(list(tmp_path.iterdir())) == 1


def test_unknown_devices_are_refused():
    with pytest.raises(ValueError):
        roofline.calibrate("abacus")

"""Energy is a counter's difference or a reason; sizes are bytes that were written."""

import itertools
import json

import pytest

from effbench.measure import energy, size


def fake(readings, seconds):
    """A meter over a counter that gives these readings one after the other, and a clock that says `seconds` passed."""
    numbers = itertools.chain(readings, itertools.repeat(readings[-1]))
    times = iter([0.0, seconds])
    return energy.Energy(lambda: next(numbers), clock=lambda: next(times))


@pytest.fixture(autouse=True)
def fast_polling(monkeypatch):
    monkeypatch.setattr(energy, "POLL_SECONDS", 0.0005)


def run(meter):
    with meter:
        energy.time.sleep(0.08)
    return meter


def test_joules_per_call():
    meter = run(fake([100.0 + i for i in range(26)], 3.0))
    found = meter.reading(calls=5)
    assert found["value"] == pytest.approx(25.0 / 5)
    assert found["unit"] == "J"


def test_a_short_window_gives_a_reason():
    found = run(fake([100.0 + i for i in range(26)], 0.5)).reading()
    assert found["value"] is None
    assert "shorter" in found["reason"]


def test_a_counter_that_hardly_moves_gives_a_reason():
    found = run(fake([100.0, 101.0, 102.0], 3.0)).reading()
    assert "moved 2 times" in found["reason"]


def test_no_sensor_gives_a_reason_never_a_zero(tmp_path):
    counter, reason = energy.rapl_counter(tmp_path)
    meter = run(energy.Energy(counter, reason))
    assert meter.reading()["value"] is None
    assert "RAPL" in meter.reading()["reason"]
    assert energy.meter("tpu").reading()["reason"]


def test_a_counter_that_fails_gives_a_reason():
    answers = iter([1.0])
    assert "failed" in run(energy.Energy(lambda: next(answers))).reading()["reason"]


def test_rapl_sums_packages_and_undoes_wraps(tmp_path):
    for number, start in enumerate((100, 900)):
        package = tmp_path / f"intel-rapl:{number}"
        package.mkdir()
        (package / "name").write_text(f"package-{number}\n")
        (package / "energy_uj").write_text(f"{start * 1_000_000}\n")
        (package / "max_energy_range_uj").write_text(f"{1000 * 1_000_000}\n")
    core = tmp_path / "intel-rapl:0:0"
    core.mkdir()
    (core / "name").write_text("core\n")
    read, _ = energy.rapl_counter(tmp_path)
    begin = read()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("150000000")
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("20000000")
    assert read() - begin == pytest.approx(50 + 120)


class Saved:
    def save(self, folder):
        (folder / "a").write_bytes(b"x" * 100)
        (folder / "deep").mkdir()
        (folder / "deep" / "b.json").write_text(json.dumps([1]))

    def folder_bytes(self, folder):
        return size.folder_bytes(folder)

    def parameters(self):
        return 12


def test_size_is_what_save_writes():
    assert size.saved_size(Saved())["value"] == 103
    assert size.parameter_count(Saved())["value"] == 12


def test_size_without_save_is_a_reason():
    silent = type("Silent", (), {"save": None, "parameters": lambda self: None})()
    assert size.saved_size(silent)["reason"]
    assert size.parameter_count(silent)["reason"]


def test_links_do_not_count_twice(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 10)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert size.folder_bytes(tmp_path) == 10

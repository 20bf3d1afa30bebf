"""The peak of a known allocation is found, also after an earlier larger peak, and without the kernel's help."""

import numpy as np
import pytest

from effbench.measure import memory

MIB = 2**20


def allocate(mebibytes):
    return int(np.ones(mebibytes * MIB, dtype=np.uint8)[-1])  # written, hence resident; freed on return


def peak_of(mebibytes):
    with memory.PeakMemory() as peak:
        allocate(mebibytes)
    return peak.reading()


@pytest.mark.skipif(memory.reset_peak() is None, reason="the kernel's mark cannot be reset here")
def test_256_mebibytes_are_seen():
    allocate(300)  # an earlier, larger peak must not show
    found = peak_of(256)
    assert found["value"] == pytest.approx(256 * MIB, rel=0.03)
    assert "high-water" in found["how"]


@pytest.mark.skipif(memory.reset_peak() is None, reason="the kernel's mark cannot be reset here")
def test_what_was_there_before_is_not_charged():
    held = np.ones(64 * MIB, dtype=np.uint8)
    assert peak_of(16)["value"] < 32 * MIB
    assert held[-1] == 1


def test_sampler_takes_over_where_the_mark_cannot_be_reset(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "missing" / "clear_refs")
    with memory.PeakMemory() as peak:
        block = np.ones(128 * MIB, dtype=np.uint8)
        memory.threading.Event().wait(0.1)
        del block
    assert peak.reading()["value"] == pytest.approx(128 * MIB, rel=0.05)
    assert "sampled" in peak.reading()["how"]


def test_a_mark_that_only_pretends_to_reset_is_noticed(monkeypatch, tmp_path):
    status = tmp_path / "status"
    status.write_text("VmHWM:\t900000 kB\nVmRSS:\t100000 kB\n")
    monkeypatch.setattr(memory, "STATUS", status)
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "clear_refs")
    assert memory.reset_peak() is None


def test_no_source_is_a_reason_not_a_zero(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "missing" / "clear_refs")
    monkeypatch.setattr(memory, "resident", lambda: None)
    with memory.PeakMemory() as peak:
        pass
    assert peak.reading()["value"] is None
    assert peak.reading()["reason"]

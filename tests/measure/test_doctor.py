"""The doctor names what is wrong with a host, with its value and a remedy; its A/A floor is an interval by the rule of verdicts."""

import json
import sys
import types

import pytest
from typer.testing import CliRunner

from effbench.cli import app
from effbench.measure import doctor, floor, gpu_state, noise, setup_of_host
from effbench.stats.paired import compare


@pytest.fixture
def host(tmp_path, monkeypatch):
    """An empty /proc and /sys; `host(path, text)` writes a file into them."""
    monkeypatch.setattr(setup_of_host, "PROC", tmp_path / "proc")
    monkeypatch.setattr(setup_of_host, "SYS", tmp_path / "sys")

    def write(path, text):
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    return write


CPU = "sys/devices/system/cpu"


@pytest.mark.parametrize(
    ("check", "path", "good", "bad", "state"),
    [
        ("frequency", f"{CPU}/cpu0/cpufreq/scaling_governor", "performance", "powersave", "warn"),
        ("turbo", f"{CPU}/intel_pstate/no_turbo", "1", "0", "warn"),
        ("turbo", f"{CPU}/cpufreq/boost", "0", "1", "warn"),
        ("siblings", f"{CPU}/smt/active", "0", "1", "warn"),
        ("huge_pages", "sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never", "[always] madvise never", "warn"),
        ("layout", "proc/sys/kernel/randomize_va_space", "2", "0", "warn"),
        ("free_memory", "proc/meminfo", "MemAvailable: 9000000 kB", "MemAvailable: 90000 kB", "bad"),
    ],
)
def test_each_setting_is_told_apart(host, check, path, good, bad, state):
    host(path, good + "\n")
    assert getattr(setup_of_host, check)().state == "ok"
    host(path, bad + "\n")
    found = getattr(setup_of_host, check)()
    assert found.state == state
    assert found.value
    assert found.remedy


def test_what_a_system_hides_is_no_clean_bill(host):
    assert setup_of_host.frequency().state == "warn"
    assert setup_of_host.free_memory().state == "warn"
    assert setup_of_host.turbo() is None


@pytest.mark.parametrize(
    ("group", "files"),
    [
        ("0::/box/inner", {"box/cpu.max": "50000 100000", "box/inner/cpu.max": "max 100000"}),
        ("4:cpu,cpuacct:/box", {"cpu/box/cpu.cfs_quota_us": "50000", "cpu/box/cpu.cfs_period_us": "100000"}),
    ],
)
def test_a_quota_is_found_up_the_tree(host, group, files):
    host("proc/self/cgroup", group)
    for path, text in files.items():
        host(f"sys/fs/cgroup/{path}", text)
    found = setup_of_host.quota()
    assert found.state == "bad"
    assert "0.50" in found.value


def test_more_threads_than_cores_is_bad(monkeypatch):
    monkeypatch.setattr(setup_of_host.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert setup_of_host.cores(1).state == "ok"
    assert setup_of_host.cores(2).state == "warn"
    assert setup_of_host.cores(3).state == "bad"


def test_a_busy_host_is_bad_and_a_quiet_one_is_not(monkeypatch):
    def looks(busy, steal, running):
        first = noise.Sample(0.0, running, 0, 0, 0, 0.0, None, 0)
        return [first, noise.Sample(1.0, running, busy, 200 - busy - steal, steal, 0.0, None, 0)]

    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 2)
    for samples, wanted in ((looks(150, 30, 4), "bad"), (looks(2, 0, 1), "ok")):
        queue = list(samples)
        monkeypatch.setattr(noise, "look", lambda queue=queue: queue.pop(0) if len(queue) > 1 else queue[0])
        found = {item.name: item.state for item in doctor.watch(0.01)}
        assert {found[name] for name in ("runnable threads", "other programs", "steal")} == {wanted}


def nvml(processes=(), reasons=0, use=0):
    fake = types.ModuleType("pynvml")
    fake.NVMLError = type("NVMLError", (Exception,), {})
    fake.NVML_CLOCK_SM = fake.NVML_TEMPERATURE_GPU = 0
    answers = {
        "Init": None, "DeviceGetCount": 1, "DeviceGetHandleByIndex": object(), "DeviceGetName": b"GPU X",
        "DeviceGetComputeRunningProcesses": [types.SimpleNamespace(pid=pid) for pid in processes],
        "DeviceGetUtilizationRates": types.SimpleNamespace(gpu=use), "DeviceGetCurrentClocksThrottleReasons": reasons,
        "DeviceGetClockInfo": 1980, "DeviceGetMaxClockInfo": 1980, "DeviceGetTemperature": 40,
    }  # fmt: skip
    for name, value in answers.items():
        setattr(fake, f"nvml{name}", lambda *_, value=value: value)

    def persistence(handle):
        raise fake.NVMLError("not supported")

    fake.nvmlDeviceGetPersistenceMode = persistence
    return fake


def test_foreign_processes_and_throttling_on_the_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    assert {state for _, state, _, _ in gpu_state.rows()} == {"ok"}
    monkeypatch.setitem(sys.modules, "pynvml", nvml(processes=(7, 8), reasons=0x40 | 0x1, use=99))
    found = {name: (state, value) for name, state, value, _ in gpu_state.rows(own=frozenset({8}))}
    assert found["GPU 0 others"][0] == "bad"
    assert "1 other" in found["GPU 0 others"][1]
    assert found["GPU 0 throttling"] == ("bad", "hardware thermal slowdown")


def test_no_gpu_is_silence_unless_one_is_wanted(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(gpu_state, "DRIVER", tmp_path / "none")
    assert gpu_state.rows() == []
    assert gpu_state.rows(required=True)[0][1] == "warn"


def test_the_floor_is_the_half_width_and_a_flag_is_an_alarm():
    same = [[1.0, 1.01, 0.99]] * 5
    quiet = floor.floor_of(compare([[1.0, 1.01, 0.99], [1.001, 1.0, 1.0], *same[:3]], same), "loop", "cpu")
    assert not quiet.flagged
    assert quiet.half < 0.01
    slow = floor.floor_of(compare([[1.2, 1.19, 1.21]] * 4 + [[1.21, 1.2, 1.2]], same), "loop", "wall")
    states = [item.state for item in doctor.floor_findings([quiet, slow])]
    assert states == ["ok", "bad"]


def test_the_floor_is_measured_by_fresh_processes():
    found = floor.measure(0.0, pairs=2, rounds=3)
    assert {(item.workload, item.clock) for item in found} == {(w, c) for w in ("matmul", "loop") for c in ("wall", "cpu")}
    assert all("2 processes" in item.rule and item.half > 0 for item in found)


def test_the_command_answers_for_people_and_for_programs(monkeypatch):
    monkeypatch.setattr(doctor, "WATCH_SECONDS", 0.05)
    shown = CliRunner().invoke(app, ["doctor", "--seconds", "0", "--json"])
    answer = json.loads(shown.stdout)
    assert shown.exit_code == (1 if answer["state"] == "bad" else 0)
    assert {"load", "timer", "thread pinning", "CPU quota"} <= {item["name"] for item in answer["findings"]}
    assert all(item["remedy"] for item in answer["findings"] if item["state"] != "ok")
    text = CliRunner().invoke(app, ["doctor", "--seconds", "0"]).stdout
    assert "thread pinning" in text

"""The fingerprint is plain data and imports no framework; the key moves with what matters and with nothing else."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from effbench.measure import host, noise

FOUND = {
    "cpu": "Model A", "cores": 8, "memory": 1, "os": "Linux", "kernel": "6.1", "python": "3.11.7",
    "versions": {"numpy": "2.4.6", "torch": "2.13.0+cpu", "jax": "0.10.2", "jaxlib": "0.10.1"},
    "gpus": [{"name": "GPU X", "uuid": "GPU-1", "driver": "580"}],
}  # fmt: skip


def test_fingerprint_is_json_and_names_the_machine():
    found = host.fingerprint()
    assert json.loads(json.dumps(found)) == found
    assert found["cpu"]
    assert found["cores"] >= 1
    assert "numpy" in found["versions"]


def test_fingerprint_imports_no_framework():
    code = "import sys; from effbench.measure.host import fingerprint; fingerprint(); print([m for m in ('torch','jax','numpy') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=os.getcwd())
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("change", "moves"),
    [
        ({"cpu": "Model B"}, True),
        ({"cores": 4}, True),
        ({"os": "Darwin"}, True),
        ({"versions": {**FOUND["versions"], "torch": "2.14.0"}}, True),
        ({"versions": {**FOUND["versions"], "torch": "2.13.1+cu130"}}, False),
        ({"kernel": "6.9"}, False),
        ({"memory": 2}, False),
        ({"python": "3.12"}, False),
        ({"gpus": []}, False),
    ],
)
def test_cpu_key_moves_with_what_matters(change, moves):
    assert (host.environment_key({**FOUND, **change}, 1, "cpu") != host.environment_key(FOUND, 1, "cpu")) is moves


def test_gpu_key_looks_at_the_gpu_not_the_cpu():
    key = host.environment_key(FOUND, 1, "cuda")
    assert host.environment_key({**FOUND, "cpu": "Model B", "cores": 2}, 1, "cuda") == key
    assert host.environment_key({**FOUND, "gpus": [{"name": "GPU Y"}]}, 1, "cuda") != key
    assert host.environment_key({**FOUND, "gpus": FOUND["gpus"] * 2}, 1, "cuda") != key


def test_threads_device_and_measure_version_are_in_the_key(monkeypatch):
    keys = {host.environment_key(FOUND, 1, "cpu"), host.environment_key(FOUND, 2, "cpu"), host.environment_key(FOUND, 1, "cuda")}
    monkeypatch.setattr(host, "MEASURE_VERSION", host.MEASURE_VERSION + 1)
    keys.add(host.environment_key(FOUND, 1, "cpu"))
    assert len(keys) == 4


def test_differences_name_the_fields():
    a = host.comparable(FOUND, 1, "cpu")
    b = host.comparable({**FOUND, "cpu": "Model B"}, 1, "cpu")
    assert host.differences(a, b) == ["cpu: 'Model A' against 'Model B'"]


def test_visible_gpus_only(monkeypatch):
    answer = "GPU X, GPU-1, 580\nGPU X, GPU-2, 580\n"
    monkeypatch.setattr(host.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, answer, ""))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert len(host.gpus()) == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [gpu["uuid"] for gpu in host.gpus()] == ["GPU-2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1")
    assert [gpu["uuid"] for gpu in host.gpus()] == ["GPU-1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert host.gpus() == []


def quiet(**more):
    return replace(noise.Sample(at=0.0, running=1, busy=0, idle=0, steal=0, own=0.0, megahertz=3000.0, throttles=0), **more)


HZ = os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    ("after", "word"),
    [
        ({"busy": 5 * HZ, "idle": 5 * HZ, "own": 5.0}, ""),
        ({"busy": 5 * HZ, "idle": 5 * HZ, "own": 1.0}, "other processes used 40%"),
        ({"busy": 5 * HZ, "idle": 4 * HZ, "steal": HZ, "own": 5.0}, "hypervisor took 10%"),
        ({"running": 100}, "100 threads"),
        ({"megahertz": 1200.0}, "clock fell"),
        ({"throttles": 3}, "throttled 3 times"),
    ],
)
def test_disturbances_are_named(after, word):
    reason = noise.disturbed(quiet(), quiet(**after))
    assert word in reason
    assert bool(reason) is bool(word)


def test_a_system_that_tells_nothing_is_not_called_disturbed():
    blind = noise.Sample(0.0, None, None, None, None, 0.0, None, None)
    assert noise.disturbed(blind, blind) == ""


def test_watch_looks_at_this_machine():
    with noise.Watch() as watch:
        pass
    assert isinstance(watch.reason, str)
    assert watch.after.at >= watch.before.at

"""Device memory that torch keeps for the next call is given back after a turn, since the workers of a group share the device."""

from types import SimpleNamespace

import pytest

from effbench.backends import jax_backend, numpy_backend, torch_backend
from effbench.run import worker


@pytest.mark.parametrize(("device", "times"), [("cuda", 1), ("cpu", 0)])
def test_torch_empties_its_cache_on_a_device_only(monkeypatch, device, times):
    emptied = []
    monkeypatch.setattr(torch_backend, "_device", device)
    monkeypatch.setattr(torch_backend.torch.cuda, "empty_cache", lambda: emptied.append(device))
    torch_backend.release()
    assert len(emptied) == times


def test_the_others_have_nothing_to_give_back():
    assert numpy_backend.release() is None and jax_backend.release() is None


def test_a_turn_ends_with_it_and_holds_no_answer_any_more():
    held, seen = [], []

    class Output:
        def __init__(self):
            held.append(self)

        def __del__(self):
            seen.append("freed")

    def call(batch):
        made = Output()
        held.clear()
        return made

    backend = SimpleNamespace(
        synchronise=lambda value=None: None, compile_seconds=lambda: None, release=lambda: seen.append("released")
    )
    session = SimpleNamespace(
        call=lambda setting: call, batches=lambda case: [1, 2, 3], backend=backend, device="cpu",
        method=SimpleNamespace(backend="torch"), remember=lambda setting, index, output: None,
    )  # fmt: skip
    one = worker.Worker(channel=None)
    one.session = session
    one.do_turn(case="a", knobs=[], seconds=0.001, first=0)
    assert seen[-1] == "released" and seen.count("released") == 1

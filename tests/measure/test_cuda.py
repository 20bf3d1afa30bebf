"""Event timing on a simulated device: streams, queues, launch costs and a cache, all in virtual time."""

import pytest

from effbench.measure import cuda

LAUNCH, EVENT, FLUSH, MISS = 4e-6, 1e-6, 30e-6, 20e-6


class Event:
    def __init__(self, kit):
        self.kit, self.stamp = kit, None

    def record(self):
        self.kit.host += 0.5e-6
        self.kit.busy["main"] = max(self.kit.busy["main"], self.kit.host) + EVENT
        self.stamp = self.kit.busy["main"]

    def synchronize(self):
        self.kit.host = max(self.kit.host, self.stamp) + 1e-6


class Device:
    """A host that queues work on two streams; the first kernel after a flush misses the cache."""

    def __init__(self):
        self.host, self.busy, self.cold = 0.0, {"main": 0.0, "side": 0.0}, False
        self.capturing = None

    def now(self):
        return self.host

    def kernel(self, seconds, stream="main"):
        if self.capturing is not None:
            self.capturing.append(seconds)
            return
        self.host += LAUNCH
        self._run(seconds, stream)

    def _run(self, seconds, stream="main"):
        seconds += MISS if self.cold else 0.0
        self.cold = False
        self.busy[stream] = max(self.busy[stream], self.host) + seconds

    def event(self):
        return Event(self)

    def seconds(self, start, end):
        return end.stamp - start.stamp

    def flush(self):
        self.kernel(FLUSH)
        self.cold = True

    def spin(self, seconds):
        cold, self.cold = self.cold, False
        self.kernel(seconds)
        self.cold = cold

    def synchronise(self):
        self.host = max(self.host, *self.busy.values()) + 3e-6

    def pause(self, seconds):
        self.host += seconds

    def capture(self, call, batch):
        self.capturing = kernels = []
        try:
            call(batch)
        finally:
            self.capturing = None

        def replay():
            self.host += LAUNCH
            for seconds in kernels:
                self._run(seconds)

        return replay, "static"


def timed(call, **more):
    device = Device()
    return cuda.device_turn(lambda batch: call(device, batch), ["a", "b"], seconds=0.005, kit=device, **more)


def middle(values):
    return sorted(values)[len(values) // 2]


@pytest.mark.parametrize("seconds", [10e-6, 100e-6, 5e-3])
def test_hot_time_is_the_kernels(seconds):
    turn = timed(lambda d, b: d.kernel(seconds), cold=False)
    assert middle(turn.device) == pytest.approx(seconds, abs=1e-9)
    assert turn.early == ""


def test_cold_time_holds_the_cache_misses_but_not_the_flush():
    turn = timed(lambda d, b: d.kernel(100e-6))
    assert turn.variant == "cold"
    assert middle(turn.device) == pytest.approx(100e-6 + MISS, abs=1e-9)


def many_small(device, batch):
    for _ in range(20):
        device.kernel(2e-6)


def test_launch_overhead_is_not_mistaken_for_work():
    turn = timed(many_small, cold=False)
    assert middle(turn.device) == pytest.approx(40e-6, abs=1e-9)
    assert middle(turn.wall) > 20 * LAUNCH  # what a caller waits for is launch-bound, and is kept beside it


def test_without_the_spin_launch_overhead_would_be_mistaken(monkeypatch):
    """The broken variant: the oracle above rejects it."""
    monkeypatch.setattr(Device, "spin", lambda self, seconds: None)
    assert middle(timed(many_small, cold=False).device) > 1.5 * 40e-6


def test_a_call_too_short_for_events_is_launched_many_times_and_no_longer_called_cold():
    turn = timed(lambda d, b: d.kernel(1e-6))
    assert turn.launches > 10
    assert turn.variant == "hot"
    assert middle(turn.device) == pytest.approx(1e-6, rel=0.05)
    assert "launches" in turn.how


def test_work_on_another_stream_is_caught():
    turn = timed(lambda d, b: d.kernel(200e-6, "side"))
    assert "another stream" in turn.early
    assert middle(turn.wall) >= 200e-6  # the host's time still holds the work


def test_a_short_tail_on_another_stream_is_caught_too():
    def call(device, batch):
        device.kernel(100e-6)
        device.kernel(150e-6, "side")

    assert timed(call).early


def test_honest_calls_are_not_accused():
    for seconds in (10e-6, 1e-3):
        assert timed(lambda d, b, s=seconds: d.kernel(s)).early == ""


def test_enough_samples_and_a_last_batch():
    turn = timed(lambda d, b: d.kernel(1e-3) or b, min_samples=7)
    assert len(turn.device) >= 7
    assert len(turn.wall) == len(turn.device)
    assert turn.last_output in ("a", "b")


def test_a_slow_call_is_not_repeated_as_often_as_a_fast_one():
    assert len(timed(lambda d, b: d.kernel(0.5)).device) == cuda.FEW
    assert len(timed(lambda d, b: d.kernel(0.5), min_samples=1).device) == 1


class Dear(Device):
    """A device-wide wait costs 15 us more after any work, as behind some hypervisors."""

    worked = False

    def _run(self, seconds, stream="main"):
        super()._run(seconds, stream)
        self.worked = seconds > 1e-6

    def synchronise(self):
        super().synchronise()
        self.host += 15e-6 if self.worked else 0.0
        self.worked = False


@pytest.mark.parametrize(("stream", "early"), [("main", False), ("side", True)])
def test_a_wait_that_is_only_dear_is_no_early_return(stream, early):
    device = Dear()

    def call(batch):
        device.kernel(100e-6)
        device.kernel(300e-6, stream)

    assert bool(cuda.device_turn(call, ["a", "b"], seconds=0.002, kit=device).early) is early


def test_without_the_pause_a_dear_wait_would_be_an_early_return(monkeypatch):
    """The broken variant: a suspicion is believed at once."""
    found = cuda.left_over
    monkeypatch.setattr(cuda, "left_over", lambda tails, floor, device: found(tails, min(floor, 3e-6), device))
    device = Dear()
    assert cuda.device_turn(lambda batch: device.kernel(100e-6), ["a"], seconds=0.002, kit=device).early


def test_graph_replay_launches_once():
    device = Device()
    turn, reason = cuda.graph_turn(lambda batch: many_small(device, batch), ["a", "b"], seconds=0.002, kit=device)
    assert reason == ""
    assert turn.variant == "graph"
    assert middle(turn.device) == pytest.approx(40e-6, abs=1e-9)
    assert middle(turn.wall) < 20 * LAUNCH


def test_what_cannot_be_captured_gives_a_reason():
    device = Device()

    def call(batch):
        if device.capturing is not None:
            raise RuntimeError("operation not permitted when stream is capturing")

    turn, reason = cuda.graph_turn(call, ["a"], kit=device)
    assert turn is None
    assert "not permitted" in reason


def test_the_last_output_belongs_to_the_last_index():
    """`score` compares the last timed answer with an untimed one on the same batch."""
    device = Device()

    def call(batch):
        device.kernel(50e-6)
        return f"answer to {batch}"

    turn = cuda.device_turn(call, ["a", "b", "c"], seconds=0.0, min_samples=4, kit=device)
    assert turn.last_output == f"answer to {'abc'[turn.last_index]}"

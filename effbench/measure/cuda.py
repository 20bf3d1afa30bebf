"""Time on a CUDA device by events, with launch overhead hidden, the second-level cache cold, and early returns caught.

One sample: write a buffer of twice the L2 cache, let the device spin until everything below is queued, then start event, call,
end event. The device runs without gaps from the host, so the pair holds device work alone; what an empty pair reads is taken off.
A call too short for a pair of events is launched many times between them, and is then no longer cold. Where the host synchronises
inside a call, its time on the host is in the pair, as it should be.

The end event stands on the current stream. Work that a method left on another stream is still running when the event fires: in the
samples taken from the host, where nothing keeps the device busy beforehand, a device-wide wait after the event then takes longer
than after an empty call. That alone proves nothing: on some hosts such a wait costs more after any work. So a suspicion is put to the
test: left-over work ends while the host pauses between the event and the wait, a wait that is only dear stays dear, and `early` says
what the pause took away. Work shorter than EARLY_FLOOR escapes that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

RESOLUTION = 5e-6  # s; below this, several launches share a pair of events
BATCH = 100e-6  # s that a batch of launches should last
MAX_SPIN = 20e-3  # s
EARLY_FLOOR, EARLY_SHARE = 10e-6, 0.05
EARLY_TRIES = 9  # calls with a pause, and as many without, that settle a suspicion
FEW = 3  # samples of a call so slow that min_samples of it would take PATIENCE times the seconds that were asked for
PATIENCE = 4
MAX_LAUNCHES = 1000


@dataclass
class DeviceTurn:
    """Seconds per call on the device (`device`) and from call to answer on the host (`wall`), one entry per sample each."""

    device: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    launches: int = 1  # calls between one pair of events
    variant: str = "cold"  # cold | hot | graph
    overhead: float = 0.0  # s that an empty pair reads; already taken off
    early: str = ""  # why the device time must not be believed, or ""
    last_index: int = 0
    last_output: Any = None

    @property
    def how(self) -> str:
        batch = f", {self.launches} launches a sample" if self.launches > 1 else ""
        return f"CUDA events, {self.variant}{batch}, launch overhead hidden"


class TorchKit:
    """What timing needs from torch.cuda; tests put a fake in its place."""

    now = staticmethod(time.perf_counter)

    def __init__(self, device: int | None = None):
        import torch

        self.cuda = torch.cuda
        self.torch = torch
        found = torch.cuda.get_device_properties(torch.cuda.current_device() if device is None else device)
        cache = getattr(found, "L2_cache_size", 0) or 64 << 20
        self._buffer = torch.empty(2 * cache, dtype=torch.int8, device="cuda")

    def event(self):
        return self.cuda.Event(enable_timing=True)

    def seconds(self, start, end) -> float:
        return start.elapsed_time(end) / 1e3  # the runtime answers in milliseconds

    def flush(self) -> None:
        self._buffer.zero_()

    def spin(self, seconds: float) -> None:
        """Keep the device busy without touching memory. Cycles at 2 GHz: at a lower clock it lasts longer, which does no harm."""
        if hasattr(self.cuda, "_sleep"):
            self.cuda._sleep(int(seconds * 2e9))
        else:
            self.flush()

    def synchronise(self) -> None:
        self.cuda.synchronize()

    def pause(self, seconds: float) -> None:
        """Keep the host busy: a sleep could outlast a short turn."""
        end = self.now() + seconds
        while self.now() < end:
            pass

    def capture(self, call: Callable, batch: Any) -> tuple[Callable[[], None], Any]:
        """(replay, static output) of a CUDA graph of one call. RuntimeError where the call cannot be captured."""
        stream = self.cuda.Stream()
        stream.wait_stream(self.cuda.current_stream())
        with self.cuda.stream(stream):
            for _ in range(3):
                call(batch)
        self.cuda.current_stream().wait_stream(stream)
        self.synchronise()
        graph = self.cuda.CUDAGraph()
        with self.cuda.graph(graph):
            output = call(batch)
        return graph.replay, output


def device_turn(
    call: Callable,
    batches: list,
    *,
    seconds: float = 0.05,
    cold: bool = True,
    first: int = 0,
    min_samples: int = 10,
    kit: Any = None,
) -> DeviceTurn:
    """Time `call(batch)` on the device for at least `seconds` and `min_samples` (FEW of a slow call); the first call is dropped.

    Calls cycle through the batches, which are on the device already. Raises what the call raises.
    """
    kit = kit or TorchKit()
    count, index = len(batches), first % len(batches)
    kit.synchronise()
    call(batches[index])  # compilation and lazy loading of kernels
    kit.synchronise()

    def step(launches: int) -> Any:
        nonlocal index
        for _ in range(launches):
            index += 1
            output = call(batches[index % count])
        return output

    queueing = _queueing_time(kit, step)
    estimate = _sample(kit, step, 1, spin=queueing, cold=False)[0]
    overhead, floor = _empty(kit)
    launches = 1 if estimate - overhead >= RESOLUTION else min(MAX_LAUNCHES, max(2, int(BATCH / max(estimate - overhead, 1e-7))))
    turn = DeviceTurn(launches=launches, variant="cold" if cold and launches == 1 else "hot", overhead=overhead)
    tails: list[float] = []
    start = kit.now()

    def more() -> bool:
        spent, have = kit.now() - start, len(turn.device)
        return have < min(FEW, min_samples) or spent < seconds or (have < min_samples and spent < PATIENCE * seconds)

    while more():
        taken, turn.last_output = _sample(kit, step, launches, spin=queueing * launches, cold=turn.variant == "cold")
        turn.last_index = index % count  # of this output; the sample from the host moves on
        turn.device.append(max(taken - overhead, 0.0) / launches)
        waited, tail = _on_host(kit, step)
        turn.wall.append(waited)
        tails.append(tail)
    device = median(turn.device)
    if suspicion := left_over(tails, floor, device):
        pause = max(1e-3, 2 * suspicion)
        waits = [(_on_host(kit, step)[1], _on_host(kit, step, pause=pause)[1]) for _ in range(EARLY_TRIES)]
        at_once, paused = (sorted(column)[EARLY_TRIES // 4] for column in zip(*waits))
        if left := left_over([at_once], paused, device):
            turn.early = (
                f"work went on for {left * 1e6:.0f} us after the call's stream was done ({device * 1e6:.0f} us): "
                "it runs on another stream"
            )
    return turn


def graph_turn(
    call: Callable, batches: list, *, seconds: float = 0.05, min_samples: int = 10, kit: Any = None
) -> tuple[DeviceTurn | None, str]:
    """The same with every batch's call captured in a CUDA graph and replayed: (turn, ""), or (None, why it cannot be captured)."""
    kit = kit or TorchKit()
    try:
        captured = [kit.capture(call, batch) for batch in batches]
    except Exception as error:
        return None, f"the call cannot be captured in a CUDA graph ({type(error).__name__}: {str(error).splitlines()[0][:120]})"

    def replay(pair):
        pair[0]()
        return pair[1]

    turn = device_turn(replay, captured, seconds=seconds, cold=False, min_samples=min_samples, kit=kit)
    turn.variant = "graph"
    return turn, ""


def left_over(tails: list[float], floor: float, device: float) -> float:
    """Seconds of work that seem to have been left; 0 where it is too little to say so.

    `tails`: s that a device-wide wait lasted after the end event had fired; `floor`: what such a wait costs where no work is left.
    """
    if not tails:
        return 0.0
    # Interrupts only lengthen a tail; work that was left over lengthens every one of them.
    left = sorted(tails)[len(tails) // 4] - floor
    return left if left > max(EARLY_FLOOR, EARLY_SHARE * device) else 0.0


def _queueing_time(kit, step: Callable) -> float:
    """Seconds the host needs to queue one call, with some to spare: so long the device has to be kept busy."""
    times = []
    for _ in range(3):
        kit.synchronise()
        start = kit.now()
        step(1)
        times.append(kit.now() - start)
    kit.synchronise()
    return 1.5 * median(times) + 20e-6


def _sample(kit, step: Callable, launches: int, *, spin: float, cold: bool) -> tuple[float, Any]:
    """(s between the events, last output)."""
    start, end = kit.event(), kit.event()
    kit.synchronise()
    if cold:
        kit.flush()
    kit.spin(min(spin, MAX_SPIN))
    start.record()
    output = step(launches)
    end.record()
    kit.synchronise()
    return kit.seconds(start, end), output


def _on_host(kit, step: Callable, pause: float = 0.0) -> tuple[float, float]:
    """(s from the call to the answer, device idle before and after; s that a device-wide wait took, `pause` after the call's stream)."""
    end = kit.event()
    kit.synchronise()
    start = kit.now()
    step(1)
    end.record()
    end.synchronize()
    fired = kit.now()
    if pause:
        kit.pause(pause)
    waiting = kit.now()
    kit.synchronise()
    stop = kit.now()
    return stop - start - (waiting - fired), stop - waiting


def _empty(kit) -> tuple[float, float]:
    """What a pair of events and a device-wide wait read when nothing lies between them."""
    pairs = [_sample(kit, _no_call, 0, spin=50e-6, cold=False)[0] for _ in range(9)]
    return median(pairs), median(_on_host(kit, _no_call)[1] for _ in range(9))


def _no_call(launches: int) -> None:
    return None

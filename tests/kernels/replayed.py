"""What the scripts beside it share: the time of a call in a CUDA graph, and how they print a line."""

import json
import statistics

import torch


def timed(call, seconds: float) -> float:
    """Microseconds of one call, replayed in a graph of several."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    graph, many = torch.cuda.CUDAGraph(), 4
    with torch.cuda.graph(graph):
        for _ in range(many):
            call()
    taken: list[float] = []
    while len(taken) < 5 or sum(taken) < seconds * 1e6:
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        stop.record()
        stop.synchronize()
        taken.append(start.elapsed_time(stop) * 1e3)
    return statistics.median(taken) / many


def say(**line) -> None:
    print(json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in line.items()}), flush=True)

"""Dense layer, skipping kernel, Top-k and the floor of bytes, as JSON lines; CUDA: under a minute.

    python tests/kernels/sparse_mlp.py                       one GPU, bfloat16, two shapes, activity 3, 10 and 30 %
    python tests/kernels/sparse_mlp.py --device cpu --shapes 512x2048

dense: the layer as the arm `dense-relu` runs it, for one token by kernels of ours; library: by the library's products. us: microseconds
of a call for `tokens` tokens with cold caches (CUDA events, launch overhead hidden); graph_us: the same in a CUDA graph, caches as they
are. floor: the bytes that have to be read over the bandwidth of a large copy. `share` is time saved over bytes saved, both against dense:
1 says that every byte that was skipped is time; a line with `doubt` was disturbed and proves nothing. `error`: relative, against float64.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from statistics import NormalDist

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch.nn.functional import linear

from effbench import Run
from effbench.backends import get
from effbench.plan.origins import mount, own_origin

mount(own_origin())

from effbench_implementations.activation import skipping_kernels  # noqa: E402
from effbench_implementations.activation.dense_relu import DenseReluServer  # noqa: E402
from effbench_implementations.activation.inference import Layer  # noqa: E402
from effbench_implementations.activation.skipping import SkippingMLP  # noqa: E402

ROUNDS = 5
# Tiles that were near the best on an H200, for one token and for several: see skipping_kernels.TILES.
FURTHER = {
    1: [
        {"up": up, "down": down, "programs": programs}
        for up in ((1, 4096, 1, 4), (4, 2048, 1, 8), (4, 1024, 3, 4))
        for down, programs in (((256, 32, 3, 8), 128), ((512, 32, 3, 8), 128), ((128, 64, 3, 4), 256), ((8, 512, 3, 4), 256))
    ],
    skipping_kernels.MOST: [
        {"up": up, "down": down, "programs": 512}
        for up in ((64, 128, 4, 4), (32, 128, 4, 4))
        for down in ((128, 64, 3, 4), (64, 64, 5, 4), (64, 128, 3, 4), (256, 32, 3, 4))
    ],
}
CACHE = 64 << 20  # bytes that are written before a call on a CPU, so that its weights are not in a cache


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shapes", nargs="*", default=["4096x16384", "2048x8192"])
    parser.add_argument("--nonzero", nargs="*", type=float, default=[0.03, 0.1, 0.3])
    parser.add_argument("--tokens", nargs="*", type=int, default=[1])
    parser.add_argument("--dtype", default="")
    parser.add_argument("--seconds", type=float, default=0.1, help="of calls for each line, over all rounds")
    parser.add_argument("--tiles", action="store_true", help="further tiles of both kernels at the first shape")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device; --device cpu times the C kernel", file=sys.stderr)
        return 2
    dtype = getattr(torch, asked.dtype or ("bfloat16" if asked.device == "cuda" else "float32"))
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rate = bandwidth(asked.device)
    say(kernel="copy", device=torch.cuda.get_device_name() if asked.device == "cuda" else "cpu", gb_per_s=rate / 1e9)
    for shape in asked.shapes:
        d, f = map(int, shape.split("x"))
        for nonzero in asked.nonzero:
            for tokens in asked.tokens:
                lines(
                    asked,
                    dtype,
                    rate,
                    d,
                    f,
                    nonzero,
                    tokens,
                    asked.tiles and (shape, nonzero) == (asked.shapes[0], asked.nonzero[0]),
                )
    return 0


@torch.no_grad()
def lines(asked, dtype, rate: float, d: int, f: int, nonzero: float, tokens: int, tiles: bool) -> None:
    make = {"device": asked.device}
    up, rows = torch.randn(f, d, **make).mul_(d**-0.5).to(dtype), torch.randn(f, d, **make).mul_(f**-0.5).to(dtype)
    up_bias = torch.full((f,), NormalDist().inv_cdf(nonzero), **make).to(dtype)
    bias = torch.randn(d, **make).to(dtype)
    batches = [torch.randn(tokens, d, **make).to(dtype) for _ in range(3)]
    down = rows.T.contiguous()
    sparse = SkippingMLP(up, up_bias, rows, bias)
    k = max(1, f // 32)
    largest = SkippingMLP(up, up_bias, rows, bias, k=k)
    union = sum(float(sparse.used(x).any(0).sum()) for x in batches) / len(batches)
    chosen = sum(float(largest.used(x).any(0).sum()) for x in batches) / len(batches)
    size = up.element_size()
    fixed, row = size * (f * d + f + d + 2 * tokens * d), size * d
    dense = DenseReluServer()
    dense.run = Run(backend=get("torch"), device=asked.device, dtype=str(dtype).removeprefix("torch."))
    dense.build(Layer(*(t.float().cpu().numpy() for t in (up, up_bias, rows, bias)), calibration=None), dense.run)
    arms = [
        ("dense", dense.forward, fixed + f * row, 0),
        ("library", lambda x: linear(linear(x, up, up_bias).relu_(), down, bias), fixed + f * row, 0),
        (f"sparse-{sparse.how}", sparse, fixed + union * row, 0),
        (f"top-{k}-{largest.how}", largest, fixed + chosen * row, k),
    ]
    where = {"d": d, "f": f, "nonzero": nonzero, "tokens": tokens, "dtype": str(dtype).removeprefix("torch.")}
    # In rounds: what slows the machine for a while slows all arms.
    rounds = [[timed(call, batches, asked) for _, call, _, _ in arms] for _ in range(ROUNDS)]
    median = [[statistics.median(times) if None not in times else None for times in zip(*arm)] for arm in zip(*rounds)]
    (dense, _), dense_bytes = median[0], arms[0][2]
    for (name, call, moved, limit), (seconds, graph) in zip(arms, median):
        saved, less = 1 - seconds / dense, 1 - moved / dense_bytes
        line = {"us": seconds * 1e6, "graph_us": graph and graph * 1e6, "floor_us": moved / rate * 1e6, "mb": moved / 1e6}
        if less:
            line |= {"time_saved": saved, "bytes_saved": less, "share": saved / less}
        if seconds < 0.95 * moved / rate:
            line["doubt"] = "below the floor: caches were warm, or the machine was disturbed"
        say(kernel=name, **where, **line, error=error(call(batches[0]), batches[0], up, up_bias, rows, bias, limit))
    if tiles and sparse.how == "triton":
        for chosen in FURTHER[1 if tokens == 1 else skipping_kernels.MOST]:
            scratch = skipping_kernels.Scratch(up.device)

            def call(x, chosen=chosen, scratch=scratch):
                return skipping_kernels.mlp(x, up, up_bias, rows, bias, f, scratch, chosen)

            seconds, graph = timed(call, batches, asked)
            say(kernel="sparse-triton", **where, tiles=chosen, us=seconds * 1e6, graph_us=graph and graph * 1e6)


def error(out, x, up, up_bias, rows, bias, k: int) -> float:
    """Against float64 of the same rounded weights."""
    a = (x.double() @ up.double().T + up_bias.double()).relu()
    if k:
        values, index = a.topk(k, -1)
        a = torch.zeros_like(a).scatter(-1, index, values)
    answer = a @ rows.double() + bias.double()
    return float((out.double() - answer).norm() / answer.norm())


def timed(call, batches: list, asked) -> tuple[float, float | None]:
    """Median seconds with cold caches; in a CUDA graph."""
    if asked.device == "cuda":
        from effbench.measure.cuda import device_turn, graph_turn

        graph, reason = graph_turn(call, batches, seconds=asked.seconds / ROUNDS)
        if graph is None:
            print(reason, file=sys.stderr)
        return statistics.median(device_turn(call, batches, seconds=asked.seconds / ROUNDS).device), graph and statistics.median(
            graph.device
        )
    flush, taken, end = torch.empty(CACHE, dtype=torch.int8), [], time.perf_counter() + asked.seconds / ROUNDS
    call(batches[0])
    while len(taken) < 3 or time.perf_counter() < end:
        flush.zero_()
        start = time.perf_counter()
        call(batches[len(taken) % len(batches)])
        taken.append(time.perf_counter() - start)
    return statistics.median(taken), None


def bandwidth(device: str) -> float:
    """Bytes per second read and written by a copy that no cache holds: the best of ten."""
    source = torch.empty((1 << 30) if device == "cuda" else (1 << 27), dtype=torch.int8, device=device)
    target, best = torch.empty_like(source), 0.0
    for _ in range(10):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        target.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * source.numel() / (time.perf_counter() - start))
    return best


def say(**line) -> None:
    print(json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in line.items()}), flush=True)


if __name__ == "__main__":
    sys.exit(main())

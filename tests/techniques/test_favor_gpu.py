"""Attention by positive features on a GPU: `python -m pytest -m gpu tests/techniques/test_favor_gpu.py -s`, under four minutes.

First the Triton kernels against the quadratic form, then a table of milliseconds by length against SDPA. Every time is that of
a CUDA graph with several calls, per call: the launch cost from Python decides nothing. Shapes: batch 1, 16 heads of 64, bfloat16,
128 features. `EFFBENCH_TILES=1` adds a sweep over the tiles of each kernel at 65,536 tokens.
"""

import os
import statistics

import numpy as np
import pytest
import torch
from effbench_implementations.attention import favor_kernels
from effbench_implementations.attention.favor import FavorPlus, FavorPlusPlus
from effbench_implementations.attention.sdpa import Sdpa
from effbench_implementations.attention.task import Given

from effbench import Run
from effbench.backends import get

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

LENGTHS = [2**i for i in range(8, 17)]


def built(cls, causal=False, *, heads=16, dim=64, batch=1, dtype="bfloat16", **settings):
    method = cls(**settings)
    method.run = Run(backend=get("torch"), device="cuda", dtype=dtype)
    rng = np.random.default_rng(1)
    calibration = tuple(rng.standard_normal((batch, heads, 256, dim), dtype=np.float32) for _ in range(3))
    given = Given(heads, dim, batch, causal, calibration)
    assert method.skip(given) == ""
    method.build(given, method.run)
    return method


def inputs(n, *, heads=16, dim=64, batch=1, dtype=torch.bfloat16, scale=1.0):
    torch.manual_seed(n)
    q, k, v = (torch.randn(batch, heads, n, dim, device="cuda") for _ in range(3))
    return [(x * f).to(dtype) for x, f in ((q, scale), (k, scale), (v, 1.0))]


def explicit(method, q, k, v):
    """phi phi^T, masked, normalised, in float64 and without the code under test."""
    a = method.coefficient(q, k)
    a = a.double()[..., None, None] if torch.is_tensor(a) else torch.zeros((), device="cuda", dtype=torch.float64)
    q, k, v, w = (x.double() for x in (q, k, v, method.w))
    q, k = q * q.shape[-1] ** -0.25, k * q.shape[-1] ** -0.25

    def maps(x):
        h = a * w.square().sum(-1)[:, None] + torch.sqrt(1 - 4 * a) * x @ w.mT - x.square().sum(-1, keepdim=True) / 2
        return torch.exp(h)

    weights = maps(q) @ maps(k).mT
    weights = weights.tril() if method.causal else weights
    return weights @ v / weights.sum(-1, keepdim=True)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("cls", "dtype", "dim", "count"),
    [
        (FavorPlus, "bfloat16", 64, 128),
        (FavorPlusPlus, "bfloat16", 64, 128),
        (FavorPlusPlus, "float16", 64, 128),
        (FavorPlus, "bfloat16", 16, 16),
        (FavorPlusPlus, "bfloat16", 128, 128),
    ],
)
def test_kernels_compute_the_quadratic_form(cls, causal, dtype, dim, count):
    shape = {"heads": 3, "dim": dim, "batch": 2}
    method = built(cls, causal, dtype=dtype, features=count, kernel="triton", **shape)
    for n in (1, 63, 64, 65, 1000):
        x = inputs(n, dtype=getattr(torch, dtype), scale=0.7, **shape)
        out, expected = method.attend(*x).double(), explicit(method, *x)
        error = ((out - expected).norm() / expected.norm()).item()
        assert error < 0.02, (n, error)
        # Also row by row: a broken first or last row of a tile drowns in the norm.
        rows = (out - expected).norm(dim=-1) / (expected.norm(dim=-1) + 0.1)
        assert rows.max().item() < 0.15, (n, rows.max().item())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_kernels_never_give_nan(causal, dtype):
    method = built(FavorPlus, causal, dtype=dtype, kernel="triton")
    for scale in (0.0, 1.0, 30.0, 500.0):
        x = inputs(777, dtype=getattr(torch, dtype), scale=scale)
        assert torch.isfinite(method.attend(*x)).all()


def test_causal_rows_do_not_see_later_tokens():
    method = built(FavorPlus, True, kernel="triton")
    x = inputs(3000)
    before = method.attend(*x)
    for t in (0, 63, 64, 1500, 2047):
        changed = [y.clone() for y in x]
        for y in changed:
            y[:, :, t + 1 :] = torch.randn_like(y[:, :, t + 1 :])
        torch.testing.assert_close(method.attend(*changed)[:, :, : t + 1], before[:, :, : t + 1], rtol=0.05, atol=0.05)


def milliseconds(call, *, budget=0.12) -> float:
    """Median time of one call inside a replayed graph of several calls."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    call()
    stop.record()
    torch.cuda.synchronize()
    calls = int(min(20, max(1, 2 / max(start.elapsed_time(stop), 1e-3))))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            call()
    graph.replay()
    found = []
    while sum(found) * calls < budget * 1e3 or len(found) < 5:
        start.record()
        graph.replay()
        stop.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(stop) / calls)
    return statistics.median(found)


def test_table_of_milliseconds_by_length():
    arms = {
        "sdpa": built(Sdpa),
        "favor+": built(FavorPlus, kernel="triton"),
        "favor++": built(FavorPlusPlus, kernel="triton"),
        "compiled": built(FavorPlus, kernel="torch", compiled=True),
        "sdpa causal": built(Sdpa, True),
        "favor+ causal": built(FavorPlus, True, kernel="triton"),
    }
    print(f"\n{torch.cuda.get_device_name()}, torch {torch.__version__}, bfloat16, 16 heads x 64, 128 features; ms per call\n")
    print("length  " + "".join(f"{name:>15}" for name in arms))
    times = {}
    with torch.no_grad():
        for n in LENGTHS:
            x = inputs(n)
            for name, method in arms.items():
                if name == "compiled" and n not in (4096, 65536):
                    continue
                times[name, n] = milliseconds(lambda: method.attend(*x))  # noqa: B023  (called at once)
            cells = [f"{times[name, n]:15.4f}" if (name, n) in times else f"{'':15}" for name in arms]
            print(f"{n:6d}  " + "".join(cells), flush=True)
    last = LENGTHS[-1]
    checks = {
        "favor+ faster than sdpa at every length from 2,048": all(
            times["favor+", n] < times["sdpa", n] for n in LENGTHS if n >= 2048
        ),
        "favor+ at 65,536 <= 0.75 ms": times["favor+", last] <= 0.75,
        "50 times faster than sdpa at 65,536": times["sdpa", last] >= 50 * times["favor+", last],
        "causal within 2 x of non-causal at 65,536": times["favor+ causal", last] <= 2 * times["favor+", last],
    }
    print("\n" + "\n".join(f"{'yes' if held else 'NO '}  {what}" for what, held in checks.items()))
    gib = 4 * last * 16 * 64 * 2 / 2**30
    print(f"     favor+ at 65,536: {gib / times['favor+', last] * 1e3:.0f} GiB/s of the least traffic (q, k, v, out once)")
    assert all(checks.values()), [what for what, held in checks.items() if not held]


@pytest.mark.skipif(not os.environ.get("EFFBENCH_TILES"), reason="set EFFBENCH_TILES=1 for the sweep")
def test_sweep_over_tiles(monkeypatch):
    x = inputs(65536)
    options = {
        "keys": [(64, 4, 2), (64, 4, 3), (64, 8, 3), (128, 4, 2), (128, 8, 2), (128, 8, 3), (128, 8, 4)],
        "queries": [(64, 4, 1), (64, 4, 2), (64, 4, 3), (128, 4, 2), (128, 8, 1), (128, 8, 2), (128, 8, 3)],
        "segments": [(64, 4, 2), (64, 8, 2), (64, 8, 3), (128, 8, 2), (128, 8, 3)],
        "causal": [(64, 4, 1), (64, 4, 2), (64, 8, 1), (64, 8, 2), (128, 8, 1), (128, 8, 2)],
    }
    print()
    for kernel, tiles in options.items():
        method = built(FavorPlus, kernel in ("segments", "causal"), kernel="triton")
        for tile in tiles:
            monkeypatch.setitem(favor_kernels.TILES, kernel, tile)
            try:
                print(f"{kernel:8} {tile!s:14} {milliseconds(lambda: method.attend(*x)):8.4f} ms", flush=True)  # noqa: B023
            except Exception as error:  # a tile that does not fit the chip
                print(f"{kernel:8} {tile!s:14} {type(error).__name__}", flush=True)
        monkeypatch.undo()

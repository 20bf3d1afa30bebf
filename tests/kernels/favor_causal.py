"""Causal and bidirectional FAVOR+ kernels beside PyTorch's fused attention, by hand: `python tests/kernels/favor_causal.py`, JSON lines.

us: one call in a CUDA graph, median of `--seconds` of calls. The last line of each length holds the ratios of the causal kernel to the
bidirectional one and to causal SDPA. `error`: largest difference to the quadratic form in float64 at `--check` tokens, over its
largest entry. `--tiles` tries further (tokens, warps, stages) and segments. `--interpret` only checks, by Triton's interpreter on the CPU.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
if "--interpret" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch
from replayed import say, timed
from torch.nn.functional import scaled_dot_product_attention

from effbench.plan.origins import mount, own_origin

mount(own_origin())

from effbench_implementations.attention import favor_kernels, features  # noqa: E402

TILES = [(64, 4, 2), (64, 4, 1), (64, 8, 2), (128, 8, 2)]
SEGMENTS = [256, 512, 1024, 2048]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", nargs="*", type=int, default=[16384, 65536])
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--check", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--tiles", action="store_true")
    parser.add_argument("--interpret", action="store_true")
    asked = parser.parse_args()
    device = "cpu" if asked.interpret else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device; --interpret checks the kernels on the CPU", file=sys.stderr)
        return 2
    if asked.interpret:
        mend()
    torch.manual_seed(0)
    for causal in (False, True):
        q, k, v, w = inputs(asked, 2 if asked.interpret else asked.heads, asked.check, device)
        say(kernel="favor+", causal=causal, n=asked.check, error=error(favor(q, k, v, w, causal), q, k, v, w, causal))
    if asked.interpret:
        return 0
    say(device=torch.cuda.get_device_name(), heads=asked.heads, head_dim=asked.head_dim, features=asked.features)
    for n in asked.lengths:
        compare(n, asked)
    return 0


def mend() -> None:
    """What the interpreter of Triton 3.5 and 3.6 lacks: numpy 2.4 makes no number of an array with one entry, which its loops
    rely on, and its dot multiplies the bits of bfloat16 numbers, which it holds as uint16."""
    from triton.runtime import interpreter

    patch, dot = interpreter._patch_lang_tensor, interpreter.InterpreterBuilder.create_dot

    def patched(tensor, *scope):
        patch(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.item())

    def wide(x):
        if x.dtype.scalar != interpreter.tl.bfloat16:
            return x
        return interpreter.TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), interpreter.tl.float32)

    interpreter._patch_lang_tensor = patched
    interpreter.InterpreterBuilder.create_dot = lambda self, a, b, *rest: dot(self, wide(a), wide(b), *rest)


def compare(n: int, asked) -> None:
    q, k, v, w = inputs(asked, asked.heads, n, "cuda")
    calls = {"favor+": lambda: favor(q, k, v, w, False), "favor+ causal": lambda: favor(q, k, v, w, True)}
    calls["sdpa causal"] = lambda: scaled_dot_product_attention(q, k, v, is_causal=True)
    found = {name: timed(call, asked.seconds) for name, call in calls.items()}
    for name, us in found.items():
        say(kernel=name, n=n, us=us)
    mine = found["favor+ causal"]
    say(n=n, causal_over_bidirectional=mine / found["favor+"], causal_over_sdpa=mine / found["sdpa causal"])
    if asked.tiles and n == max(asked.lengths):
        tile, segment = favor_kernels.TILES["causal"], favor_kernels.SEGMENT
        for favor_kernels.SEGMENT in SEGMENTS:
            for favor_kernels.TILES["causal"] in TILES:
                us = timed(calls["favor+ causal"], asked.seconds / 4)
                say(tile=favor_kernels.TILES["causal"], segment=favor_kernels.SEGMENT, n=n, us=us)
        favor_kernels.TILES["causal"], favor_kernels.SEGMENT = tile, segment


def inputs(asked, heads: int, n: int, device: str):
    """q, k, v [1, heads, n, d] and w [heads, M, d], bfloat16."""
    q, k, v = (torch.randn(1, heads, n, asked.head_dim, device=device).bfloat16() for _ in range(3))
    drawn = features.draw(np.random.default_rng(0), heads, asked.features, asked.head_dim)
    return q, k, v, torch.from_numpy(drawn).to(device).bfloat16()


def favor(q, k, v, w, causal: bool):
    return favor_kernels.attention(q, k, v, w, torch.zeros(q.shape[1], device=q.device), causal)


def error(out, q, k, v, w, causal: bool) -> float:
    """Against the quadratic form, one head at a time."""
    worst, largest = 0.0, 0.0
    for head in range(q.shape[1]):
        x, y, values, rows = (t.double() for t in (q[0, head], k[0, head], v[0, head], w[head]))
        d = x.shape[-1]
        left, right = (d**-0.25 * z @ rows.T for z in (x, y))
        right = right - 0.5 * d**-0.5 * y.square().sum(-1, keepdim=True)
        weights = torch.exp(left - left.amax(-1, keepdim=True)) @ torch.exp(right - right.max()).T
        weights = weights.tril() if causal else weights
        truth = weights @ values / weights.sum(-1, keepdim=True)
        worst = max(worst, float((out[0, head].double() - truth).abs().max()))
        largest = max(largest, float(truth.abs().max()))
    return worst / largest


if __name__ == "__main__":
    sys.exit(main())

"""Attention inside the leaves of a tree beside PyTorch's fused attention, by hand: `python tests/kernels/leaves.py`, JSON lines.

us: one call in a CUDA graph, median of `--seconds` of calls; ratios are to SDPA at the same length and mask. `stretches` is the part of
`tf` that walks the tree and sorts. `error`: largest difference to the bucketed form in float64 at `--check` tokens, over its largest
entry. `moved`: tokens that the kernel sends to another leaf than PyTorch does. `--tiles` tries further tiles of queries and keys.
"""

import argparse
import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from replayed import say, timed
from torch.nn.functional import scaled_dot_product_attention

from effbench.plan.origins import mount, own_origin

mount(own_origin())

from effbench_implementations.attention import buckets, leaf_kernels, tree  # noqa: E402

TILES = [(64, 64), (128, 32), (128, 64), (128, 128)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", nargs="*", type=int, default=[1024, 4096, 16384, 65536])
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--height", type=int, default=4)
    parser.add_argument("--check", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--tiles", action="store_true")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device; TRITON_INTERPRET=1 pytest tests/techniques/test_leaf_kernels.py checks the kernels", file=sys.stderr)
        return 2
    torch.manual_seed(0)
    weights, offsets = fitted(asked)
    padded = leaf_kernels.padded(weights, offsets)
    for causal in (False, True):
        check(asked, weights, offsets, padded, causal)
    say(device=torch.cuda.get_device_name(), heads=asked.heads, head_dim=asked.head_dim, height=asked.height)
    for n in asked.lengths:
        compare(n, asked, padded)
    return 0


def fitted(asked):
    calibration = (np.random.default_rng(i).standard_normal((1, asked.heads, 256, asked.head_dim), np.float32) for i in range(2))
    found = tree.fit(*calibration, asked.height, np.random.default_rng(2), "principal")
    return (torch.from_numpy(x).float().cuda() for x in found)


def inputs(asked, n: int):
    return (torch.randn(1, asked.heads, n, asked.head_dim, device="cuda").bfloat16() for _ in range(3))


def check(asked, weights, offsets, padded, causal: bool) -> None:
    q, k, v = inputs(asked, asked.check)
    count, groups = 2**asked.height, asked.heads
    leaf_q, leaf_k = (tree.leaves(x.float(), weights, offsets) for x in (q, k))
    wide = (x.double() for x in (q, k, v))
    truth = buckets.attention(*wide, buckets.plan(leaf_q, leaf_k, count, 64), causal)
    out = leaf_kernels.attention(q, k, v, *padded, asked.height, causal).double()
    key = torch.empty(2 * groups * asked.check, dtype=torch.int32, device="cuda")
    leaf_kernels.kernels().route[(-(-asked.check // 128), groups)](
        q, *padded, key, asked.check, groups, 0, HEIGHT=asked.height, P=padded[0].shape[1], D=asked.head_dim, TOKENS=128
    )
    moved = (key[: groups * asked.check].view(groups, -1) % count != leaf_q[0]).sum()
    say(kernel="tf", causal=causal, n=asked.check, error=float((out - truth).abs().max() / truth.abs().max()), moved=int(moved))
    if not causal:
        total, number = leaf_kernels.leaf_sums(k, v, *padded, asked.height)
        expected = torch.zeros_like(total).scatter_add(2, leaf_k[..., None].expand(v.shape), v.float())
        say(
            kernel="sums",
            n=asked.check,
            error=float((total - expected).abs().max() / expected.abs().max()),
            values=float(number.sum()),
        )


def compare(n: int, asked, padded) -> None:
    q, k, v = inputs(asked, n)
    for causal in (False, True):
        one_mask(q, k, v, causal, asked, padded)


def one_mask(q, k, v, causal: bool, asked, padded) -> None:
    n, height = q.shape[2], asked.height
    base = timed(lambda: scaled_dot_product_attention(q, k, v, is_causal=causal), asked.seconds)
    say(kernel="sdpa", causal=causal, n=n, us=base)
    parts = {
        "tf": lambda: leaf_kernels.attention(q, k, v, *padded, height, causal),
        "stretches": lambda: leaf_kernels.stretches(q, k, *padded, height, causal, leaf_kernels.kernels(), leaf_kernels.ROWS),
    }
    if not causal:
        table = torch.randn(1, asked.heads, 2**height, asked.head_dim, device="cuda").bfloat16()
        parts["sums"] = lambda: leaf_kernels.leaf_sums(k, v, *padded, height)
        parts["answer"] = lambda: leaf_kernels.rows_of(q, table, *padded, height)
    for name, call in parts.items():
        us = timed(call, asked.seconds)
        say(kernel=name, causal=causal, n=n, us=us, ratio=us / base)
    say(kernel="tf", causal=causal, n=n, scores=leaf_kernels.scores(q, k, *padded, height, causal) / (asked.heads * n * n))
    for tiles in TILES if asked.tiles and n == max(asked.lengths) else ():
        us = timed(functools.partial(leaf_kernels.attention, q, k, v, *padded, height, causal, tiles=tiles), asked.seconds / 4)
        say(tiles=tiles, causal=causal, n=n, us=us)


if __name__ == "__main__":
    sys.exit(main())

"""Fused nearest-neighbour selection on one CUDA GPU, as JSON lines; about two minutes on an H100.

    python tests/kernels/fused_search.py            # 1,000,000 rows x 10,000 queries, D = 128 and 768, k = 10, bfloat16 products
    python tests/kernels/fused_search.py --check    # first: right answers, ragged shapes, all metrics (about a minute of compiling)
    python tests/kernels/fused_search.py --tune     # the tilings worth trying, one line each
    python tests/kernels/fused_search.py --large    # 10,000,000 rows x 128 instead

Lines: the fused method (`TpuKnnFused.search`, everything included), its two kernels alone, the product alone (bfloat16, blocks of the
base into one buffer: the floor of all that multiply), the product and `torch.topk` in two orders of the blocks, and jax's approx_max_k,
which sorts on a GPU. `ms` is the median of CUDA-event times over rounds in which the methods take turns; `tflops` counts 2 N D a query.
Recall is over 1000 queries against exact float32 scores, on overlapping clusters of unit vectors.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from effbench import Run
from effbench.backends import get
from effbench.plan.origins import mount, own_origin

mount(own_origin())

from effbench_implementations.search import tpu_knn_fused as fused  # noqa: E402
from effbench_implementations.search.task import Given  # noqa: E402

K = 10
JUDGED = 1000  # queries whose recall is measured
TILINGS = {
    128: [
        (128, 128, 128, 4, 2, 2), (128, 128, 128, 4, 3, 1), (128, 64, 128, 4, 2, 3), (128, 64, 128, 4, 3, 2), (256, 128, 128, 8, 3, 1),
        (256, 64, 128, 8, 3, 1), (128, 256, 128, 8, 2, 1),
    ],
    768: [
        (128, 256, 64, 8, 4, 1, 2, 1), (128, 256, 64, 8, 4, 1, 4, 1), (128, 256, 64, 8, 3, 1, 4, 1), (256, 128, 64, 8, 4, 1, 4, 1),
        (128, 128, 64, 4, 3, 2, 2, 2),
    ],
}  # fmt: skip


def say(**line):
    print(json.dumps(line), flush=True)


def clustered(rows, d, seed, centres=1000, rank=48):
    """As the task's generator, drawn on the device: float32 [rows, d], unit length."""
    draw = torch.Generator("cuda").manual_seed(seed)
    subspace = torch.linalg.qr(torch.randn(d, rank, generator=draw, device="cuda"))[0]
    spectrum = torch.arange(1, rank + 1, device="cuda") ** -0.5
    spectrum /= spectrum.norm()
    middle = torch.randn(centres, rank, generator=draw, device="cuda") * spectrum
    share = 1.0 / torch.arange(1, centres + 1, device="cuda")
    out = torch.empty(rows, d, device="cuda")
    for part in out.split(1 << 20):
        member = torch.multinomial(share, len(part), replacement=True, generator=draw)
        inner = middle[member] + spectrum * torch.randn(len(part), rank, generator=draw, device="cuda")
        part.copy_(inner @ subspace.T + 0.15 / d**0.5 * torch.randn(len(part), d, generator=draw, device="cuda"))
        part /= part.norm(dim=1, keepdim=True)
    return out


def exact(queries, base, k, l2=False):
    """Exact answer in float32 (no TF32), by blocks."""
    best = torch.full((len(queries), 0), 0.0, device="cuda")
    rows = torch.empty((len(queries), 0), dtype=torch.int64, device="cuda")
    for start in range(0, len(base), 1 << 18):
        part = base[start : start + (1 << 18)]
        scores = queries @ part.T
        if l2:
            scores -= 0.5 * part.square().sum(1)
        values, ids = scores.topk(min(k, len(part)), 1)
        best, rows = torch.cat([best, values], 1), torch.cat([rows, ids + start], 1)
    return rows.gather(1, best.topk(k, 1).indices)


def recall(found, true):
    return (found[:, :, None] == true[:, None, :]).any(2).float().mean().item()


def built(base, metric):
    method = fused.TpuKnnFused()
    method.run = Run(backend=get("torch"), device="cuda")
    given = Given(base, metric, K, None)
    if reason := method.skip(given):
        sys.exit(reason)
    method.build(given, method.run)
    return method


def measure(calls, rounds=12):
    """Milliseconds of each call: median over rounds in which all take turns."""
    times = {name: [] for name in calls}
    for number in range(rounds + 2):
        for name, call in calls.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            torch.cuda.synchronize()
            if number >= 2:
                times[name].append(begin.elapsed_time(end))
    return {name: statistics.median(values) for name, values in times.items()}


def by_base(queries, base, select, block=1 << 16):
    """Products block by block of the base into one buffer; with `select`, the k best of each block and of all."""
    out = torch.empty(len(queries), block, dtype=base.dtype, device="cuda")
    found = []
    for start in range(0, len(base), block):
        part = base[start : start + block]
        scores = (
            out[:, : len(part)] if len(part) == block else torch.empty(len(queries), len(part), dtype=base.dtype, device="cuda")
        )
        torch.mm(queries, part.T, out=scores)
        if select:
            values, rows = scores.topk(K, 1)
            found.append((values, rows + start))
    if not select:
        return None
    values, rows = (torch.cat(parts, 1) for parts in zip(*found))
    return rows.gather(1, values.topk(K, 1).indices)


def by_queries(queries, base, block=1000):
    return torch.cat([(part @ base.T).topk(K, 1).indices for part in queries.split(block)])


def jax_line(queries, base, true, shared):
    try:
        import jax
        from jax import lax

        count = min(len(queries), 200 if len(base) > 2_000_000 else 500)
        q, x = (jax.dlpack.from_dlpack(array.contiguous()) for array in (queries[:count], base))
        search = jax.jit(lambda q, x: lax.approx_max_k(lax.dot(q, x.T), K, recall_target=0.95)[1])
        found = jax.block_until_ready(search(q, x))
        import time

        spent = []
        for _ in range(3):
            begin = time.perf_counter()
            jax.block_until_ready(search(q, x))
            spent.append(1e3 * (time.perf_counter() - begin))
        ms = statistics.median(spent)
        rows = torch.from_numpy(np.array(found)).to("cuda")
        flops = 2 * count * len(base) * base.shape[1]
        note = f"sorts on a {jax.devices()[0].platform}; {count} queries only"
        say(method="jax approx_max_k", **shared | {"queries": count}, ms=round(ms, 3), tflops=round(flops / ms / 1e9, 1),
            recall=round(recall(rows, true[:count]), 4), note=note)  # fmt: skip
    except Exception as error:  # an extra line, not the point of the table
        say(method="jax approx_max_k", **shared, skipped=f"{type(error).__name__}: {str(error)[:200]}")


def table(rows, queries, d, jax):
    made = clustered(rows + queries, d, seed=d)
    base, asked = made[:rows].contiguous(), made[rows:].contiguous()
    true = exact(asked[:JUDGED], base, K)
    shared = {"rows": rows, "queries": queries, "d": d, "k": K}
    method = built(base.cpu().numpy(), "ip")
    plan = method._plan(queries, K)
    low, low_base = asked.bfloat16(), base.bfloat16()
    prepared = fused.lowered(asked)
    survivors = fused.reduce(prepared, method.low, method.bias, False, plan)
    calls = {
        "fused": lambda: method.search(asked, K),
        "fused, first kernel": lambda: fused.reduce(prepared, method.low, method.bias, False, plan),
        "fused, second kernel": lambda: fused.select(survivors, asked, method.vectors, False, plan, K),
        "product alone": lambda: by_base(low, low_base, False),
        "product + topk, blocks of the base": lambda: by_base(low, low_base, True),
        "product + topk, blocks of queries": lambda: by_queries(low, low_base),
    }
    if rows > 2_000_000:
        del calls["product + topk, blocks of queries"]  # a block of scores would not fit
    answers = {
        "fused": method.search(asked[:], K)[:JUDGED],
        "product + topk, blocks of the base": by_base(low[:JUDGED], low_base, True),
    }
    for name, ms in measure(calls, rounds=8 if rows > 2_000_000 else 12).items():
        extra = {"recall": round(recall(answers[name], true), 4)} if name in answers else {}
        if name == "fused":
            extra |= {
                "bins": plan.wide,
                "parts": plan.parts,
                "expected_recall": round(plan.recall(K), 4),
                "tiling": repr(plan.tiling),
            }
        if "second" not in name:
            extra |= {"tflops": round(2 * rows * queries * d / ms / 1e9, 1)}
        say(method=name, **shared, ms=round(ms, 3), **extra)
    if jax:
        jax_line(low, low_base, true, shared)


def tune(rows, queries, d):
    made = clustered(rows + queries, d, seed=d)
    base, asked = made[:rows].contiguous(), made[rows:].contiguous()
    true = exact(asked[:JUDGED], base, K)
    low, low_base, bias = fused.lowered(asked), fused.lowered(base), torch.zeros(rows, device="cuda")
    count = torch.cuda.get_device_properties(0).multi_processor_count
    for numbers in TILINGS[d]:
        tiling = fused.Tiling(*numbers)
        try:
            plan = fused.plan(rows, queries, K, 0.95, tiling, count)
            survivors = fused.reduce(low, low_base, bias, False, plan)
            found = fused.select(survivors, asked, base, False, plan, K)
            calls = {
                "reduce": lambda p=plan: fused.reduce(low, low_base, bias, False, p),
                "select": lambda s=survivors, p=plan: fused.select(s, asked, base, False, p, K),
            }
            ms = measure(calls, rounds=8)
            say(d=d, tiling=dataclasses.astuple(tiling), parts=plan.parts, bins=plan.wide, recall=round(recall(found[:JUDGED], true), 4),
                **{f"{name}_ms": round(value, 3) for name, value in ms.items()},
                tflops=round(2 * rows * queries * d / ms["reduce"] / 1e9, 1))  # fmt: skip
        except Exception as error:  # a tiling that does not fit is a line, not the end
            say(d=d, tiling=dataclasses.astuple(tiling), failed=f"{type(error).__name__}: {str(error)[:200]}")


def check():
    """Recall against exact search beside the expected one, on random vectors; every distance must be the true one."""
    bad = 0
    for d in (24, 128, 200, 768):
        for rows, queries in ((50_000, 300), (70_001, 129), (100, 7)):
            torch.manual_seed(d + rows)
            base, asked = torch.randn(rows, d, device="cuda"), torch.randn(queries, d, device="cuda")
            for metric in ("l2", "ip", "cosine"):
                method = built(base.cpu().numpy(), metric)
                for k in (10, 100):
                    found = method.search(asked, min(k, rows))
                    ranking = base / base.norm(dim=1, keepdim=True) if metric == "cosine" else base
                    true = exact(asked, ranking, min(k, rows), metric == "l2")
                    got, wanted = recall(found, true), method.expected(queries, k)["recall"]
                    distinct = all(len(set(row)) == min(k, rows) for row in found.tolist())
                    first = (found[:, 0] == true[:, 0]).float().mean().item()
                    room = 0.02 + 0.3 / queries**0.5  # few queries, whose neighbours share rows
                    fine = bool(got >= wanted - room and distinct and first > 0.98 and found.min() >= 0 and found.max() < rows)
                    bad += not fine
                    say(check=metric, rows=rows, queries=queries, d=d, k=k, recall=round(got, 4), expected=round(wanted, 4),
                        first=round(first, 4), ok=fine)  # fmt: skip
    say(checks_failed=bad)
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for flag in ("--check", "--tune", "--large", "--no-jax"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=10_000)
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device")
    torch.backends.cuda.matmul.allow_tf32 = False
    say(device=torch.cuda.get_device_name(), torch=torch.__version__)
    if chosen.check:
        sys.exit(bool(check()))
    rows = 10_000_000 if chosen.large else chosen.rows
    for d in (128,) if chosen.large else (128, 768):
        if chosen.tune:
            tune(rows, chosen.queries, d)
        else:
            table(rows, chosen.queries, d, not chosen.no_jax)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()

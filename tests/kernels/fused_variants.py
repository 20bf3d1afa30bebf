"""Tilings of the fused search's first kernel on one H100, as JSON lines: right answers first, then times (temporary).

    python tests/kernels/fused_variants.py             # D = 768 and a few at D = 128, about a minute
    python tests/kernels/fused_variants.py --check     # two tilings at D = 200 and 768, l2 and inner product, ragged shapes

Every variant is compared with brute force over its bins (64 queries, all rows), then timed in turns with the product alone. A
kernel that does not end within 20 s is a line; the script then starts anew without it, so that the others still have their turn.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import fused_search as known
import torch
from fused_search import K, by_base, clustered, exact, measure, recall, say

fused = known.fused
PROBED = 64
T = fused.Tiling
VARIANTS = {
    "768 pipelined 128x256, fold 2": (768, T(128, 256, 64, 8, 4, 1, 2, 1)),
    "768 groups 192x256, fold 16": (768, T(192, 256, 64, 12, 4, 1, 16, 1, True)),
    "768 groups 192x256, fold 8": (768, T(192, 256, 64, 12, 4, 1, 8, 1, True)),
    "768 groups 128x256, fold 4": (768, T(128, 256, 64, 8, 4, 1, 4, 1, True)),
    "768 pipelined 128x256, fold 4": (768, T(128, 256, 64, 8, 4, 1, 4, 1)),
    "768 pipelined 128x256, fold 8, 3 stages": (768, T(128, 256, 64, 8, 3, 1, 8, 1)),
    "768 groups 192x256x32, 8 slots": (768, T(192, 256, 32, 12, 8, 1, 16, 1, True)),
    "128 resident 128x128, fold 2 (as now)": (128, T(128, 128, 128, 4, 2, 2)),
    "128 resident 128x128, fold 4": (128, T(128, 128, 128, 4, 2, 2, 4)),
    "128 groups 192x256, fold 16": (128, T(192, 256, 64, 12, 4, 1, 16, 3, True)),
}


def ended(seconds=20):
    """Whether what was launched ends in time."""
    mark = torch.cuda.Event()
    mark.record()
    begin = time.perf_counter()
    while not mark.query():
        if time.perf_counter() - begin > seconds:
            return False
        time.sleep(0.01)
    return True


def wrong(survivors, plan, queries, base, bias=None):
    """The largest error of a bin's best score, and the share of survivors that do not name a row of that score; brute force."""
    scores = queries.float() @ base.float().T
    if bias is not None:
        scores -= bias
    row = torch.arange(len(base), device="cuda")
    tile = row // plan.tiling.columns
    part = torch.where(tile < plan.tiles, tile % max(1, plan.parts), plan.parts)
    bins = part * plan.bins + row % plan.bins
    best = torch.full((len(queries), plan.wide), -torch.inf, device="cuda")
    best.scatter_reduce_(1, bins.expand(len(queries), -1), scores, "amax")
    held = best > -torch.inf
    error = torch.where(held, (survivors - best).abs() / best.abs().clamp(min=0.05), 0.0).max().item()
    code = survivors.view(torch.int32) & ~plan.keep
    places = torch.arange(plan.wide, device="cuda").expand_as(survivors)
    part = places // plan.bins
    tile = torch.where(part < plan.parts, part + code // plan.fold * plan.parts, plan.tiles)
    named = (tile * plan.fold + code % plan.fold) * plan.bins + places % plan.bins
    inside = (named >= 0) & (named < len(base))
    theirs = scores.gather(1, named.clamp(0, len(base) - 1))
    fine = inside & ((theirs - best).abs() <= 2e-3 * best.abs().clamp(min=0.05))
    return error, (held & ~fine).float().mean().item(), (~held & (survivors > -2.9e38)).any().item()


def restart(name, done):
    sys.stdout.flush()
    os.execv(
        sys.executable,
        [sys.executable, *[a for a in sys.argv if not a.startswith("--skip=")], "--skip=" + json.dumps([*done, name])],
    )


def one(name, d, tiling, data, done, final):
    asked, base, low, low_base, bias, true = data
    count = torch.cuda.get_device_properties(0).multi_processor_count
    plan = fused.plan(len(base), len(asked), K, 0.95, tiling, count)
    begin = time.perf_counter()
    survivors = fused.reduce(low, low_base, bias, False, plan)
    built = time.perf_counter() - begin
    if not ended():
        say(variant=name, failed="does not end")
        restart(name, done)
    error, astray, filled = wrong(survivors[:PROBED], plan, low[:PROBED], low_base)
    found = fused.select(survivors, asked, base, False, plan, K)
    calls = {
        "product": lambda: by_base(low, low_base, False),
        "reduce": lambda: fused.reduce(low, low_base, bias, False, plan),
        "select": lambda: fused.select(survivors, asked, base, False, plan, K),
    }
    ms = measure(calls, rounds=8)
    final[name] = calls["reduce"]
    say(variant=name, d=d, reduce_ms=round(ms["reduce"], 3), tflops=round(2 * len(base) * len(asked) * d / ms["reduce"] / 1e9, 1),
        select_ms=round(ms["select"], 3), total_ms=round(ms["reduce"] + ms["select"], 3), product_ms=round(ms["product"], 3),
        recall=round(recall(found[: known.JUDGED], true), 4), expected=round(plan.recall(K), 4), parts=plan.parts, bins=plan.wide,
        right=error < 2e-3 and astray == 0 and not filled, error=f"{error:.1e}", astray=round(astray, 6),
        compile_s=round(built, 1))  # fmt: skip


def check(limit):
    """Ragged shapes and both metrics for the tilings that may be chosen."""
    begin = time.perf_counter()
    for name in ("768 groups 192x256, fold 16", "768 pipelined 128x256, fold 4"):
        tiling = VARIANTS[name][1]
        for d, rows, queries in ((768, 70_001, 129), (200, 50_176, 500), (768, 65_536, 384)):
            base, asked = clustered(rows + queries, d, seed=rows).split([rows, queries])
            low, low_base, bias = (
                fused.lowered(asked),
                fused.lowered(base),
                0.5 * base.square().sum(1) + torch.rand(rows, device="cuda"),
            )
            for l2 in (False, True):
                if time.perf_counter() - begin > limit:
                    return say(stopped="out of time")
                plan = fused.plan(rows, queries, K, 0.95, tiling, 132)
                survivors = fused.reduce(low, low_base, bias, l2, plan)
                if not ended():
                    say(check=name, d=d, rows=rows, failed="does not end")
                    os._exit(1)
                error, astray, filled = wrong(survivors, plan, low, low_base, bias if l2 else None)
                # A score that is nearly 0 beside its parts is known less well than one in a thousand.
                say(check=name, d=d, rows=rows, queries=queries, l2=l2, right=error < 5e-3 and astray < 1e-4 and not filled,
                    error=f"{error:.1e}", astray=astray, ragged=plan.ragged, parts=plan.parts)  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--skip", default="[]", type=json.loads)
    parser.add_argument("--seconds", type=float, default=120)
    chosen = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    begin = time.perf_counter()
    if chosen.check:
        return check(chosen.seconds)
    say(device=torch.cuda.get_device_name(), torch=torch.__version__)
    done = list(chosen.skip)
    for dims in (768, 128):
        final = {}
        made = clustered(1_010_000, dims, seed=dims)
        base, asked = made[:1_000_000].contiguous(), made[1_000_000:].contiguous()
        del made
        data = (asked, base, fused.lowered(asked), fused.lowered(base), torch.zeros(len(base), device="cuda"),
                exact(asked[: known.JUDGED], base, K))  # fmt: skip
        say(d=dims, prepared_s=round(time.perf_counter() - begin, 1))
        for name, (d, tiling) in VARIANTS.items():
            if d != dims or name in done:
                continue
            if time.perf_counter() - begin > chosen.seconds:
                say(variant=name, skipped="out of time")
                continue
            try:
                one(name, d, tiling, data, done, final)
            except Exception as error:  # a variant that fails is a line
                say(variant=name, failed=f"{type(error).__name__}: {str(error)[-300:]}")
            done.append(name)
        try:
            if final:
                turns = {name: round(ms, 3) for name, ms in measure(final, rounds=8).items()}
                say(d=dims, all_in_turns_reduce_ms=dict(sorted(turns.items(), key=lambda item: item[1])))
        except Exception as error:
            say(d=dims, failed=f"{type(error).__name__}: {str(error)[-300:]}")
        del data, base, asked, final
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()

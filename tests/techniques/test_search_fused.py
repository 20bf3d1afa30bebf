"""Fused selection by bins: the plan, and the kernels in Triton's interpreter on the CPU (a GPU is not needed).

The interpreter must be chosen before Triton is imported, so that its tests run in a process of their own, started by
`test_in_the_interpreter`. They use float32 tiles: the interpreter has no products of bfloat16. What is right on a GPU is asked by
tests/kernels/fused_search.py.
"""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from effbench_implementations.search import tpu_knn_fused as fused
from effbench_implementations.search.task import Given
from effbench_implementations.search.vectors import distances, nearest

from effbench import Run
from effbench.backends import get

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
TRITON = importlib.util.find_spec("triton") is not None
inside = pytest.mark.skipif(not INTERPRETED, reason="runs inside test_in_the_interpreter")
SMALL = fused.Tiling(16, 32, 32, 4, 2, 2)
FOLDED = fused.Tiling(16, 32, 32, 4, 2, 2, 4)
METRICS = ("l2", "ip", "cosine")

if INTERPRETED:
    import triton.runtime.interpreter as interpreter

    patch = interpreter._patch_lang_tensor

    def patched(tensor, *scope):
        """numpy 2.4 no longer makes a number of an array with one entry, which the interpreter's loops rely on."""
        patch(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.item())

    interpreter._patch_lang_tensor = patched


@pytest.mark.skipif(INTERPRETED or not TRITON, reason="needs Triton, and a process that has not imported it")
def test_in_the_interpreter():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", __file__], text=True, capture_output=True, timeout=300,
        env={**os.environ, "TRITON_INTERPRET": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


# -- the plan: plain arithmetic ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tiling", [fused.FLAT, fused.WIDE, FOLDED])
@pytest.mark.parametrize("queries", [1, 256, 10_000])
@pytest.mark.parametrize("rows", [5000, 1_000_000, 1_000_064, 10_000_001])
def test_a_plan_reaches_its_target_and_covers_the_base(rows, queries, tiling):
    for k, target in ((1, 0.95), (10, 0.95), (10, 0.98), (40, 0.9)):
        found = fused.plan(rows, queries, k, target, tiling, 132)
        sizes = found.sizes()
        assert sum(size * count for size, count in sizes.items()) == rows
        assert sum(sizes.values()) <= found.wide <= fused.WIDEST
        assert found.recall(k) >= target
        steps = -(-found.tiles // found.parts)
        assert tiling.fold * steps <= -found.keep <= 1 << fused.BITS, "the mark tells every layer of a part's tiles"


def test_the_headline_plan_fills_the_multiprocessors():
    found = fused.plan(1_000_000, 10_000, 10, 0.95, fused.FLAT, 132)
    programs = 79 * found.parts
    assert programs / (-(-programs // 264) * 264) > 0.95
    assert found.recall(10) > 0.97


@pytest.mark.parametrize("tiling", [SMALL, FOLDED])
def test_sizes_of_bins_are_those_of_the_layout(tiling):
    for rows in (6, 20, 31, 32, 40, 64, 80, 500, 1000):
        for parts in range(1, 4):
            plan = fused.Plan(rows, rows // 32, parts if rows >= 32 * parts else min(1, rows // 32), tiling)
            row = np.arange(rows)
            tile = row // 32
            part = np.where(tile < plan.tiles, tile % max(1, plan.parts), plan.parts)
            counts = np.bincount(part * tiling.bins + row % tiling.bins)
            assert plan.sizes() == {size: int((counts == size).sum()) for size in np.unique(counts) if size}


def test_a_target_out_of_reach_is_said():
    assert fused.plan(20_000, 100, 10, 1.0, fused.FLAT, 132) is None
    with pytest.raises(ValueError, match="recall target must lie"):
        fused.plan(20_000, 100, 10, 0.0, fused.FLAT, 132)
    method = on_cpu(np.ones((20_000, 4), np.float32), "ip")
    method.configure(recall_target=1.0)
    with pytest.raises(ValueError, match=r"do not give enough bins for a recall target of 1\.0 at k = 3"):
        method.search(np.ones((2, 4)), 3)


def test_without_a_gpu_it_says_so():
    method = fused.TpuKnnFused()
    method.run = Run(backend=get("torch"))
    assert "need a CUDA device" in method.skip(None)
    method.run.dtype = "bfloat16"
    assert "float32" in method.skip(None)


# -- the kernels, inside the interpreter ------------------------------------------------------------------------------


def on_cpu(base, metric="l2", target=0.95):
    """The method with its kernels on the CPU and float32 tiles."""
    method = fused.TpuKnnFused()
    method.run = Run(backend=get("torch"))
    method.build(Given(base, metric, 10, None), method.run)
    method.low = fused.lowered(method.vectors - method.mean, torch.float32)
    method.configure(recall_target=target)
    return method


@pytest.fixture(params=[SMALL, FOLDED], ids=["2 layers", "4 layers"])
def small(monkeypatch, request):
    """Tiles of 32 rows and 16 queries, in float32."""
    low = fused.lowered
    monkeypatch.setattr(fused, "lowered", lambda vectors, dtype=torch.float32: low(vectors, dtype))
    monkeypatch.setattr(fused, "FLAT", request.param)
    monkeypatch.setattr(fused, "WIDE", request.param)
    return request.param


def expected(metric, base, queries, plan, k):
    """The k best of the best of each bin, by brute force over the layout that the plan describes; without one, of all rows."""
    row = bins = np.arange(len(base))
    if plan:
        tile = row // plan.tiling.columns
        part = np.where(tile < plan.tiles, tile % max(1, plan.parts), plan.parts)
        bins = part * plan.bins + row % plan.bins
    true = distances(metric, queries, base, np.broadcast_to(row, (len(queries), len(base))))
    found = []
    for line in true:
        order = np.argsort(line, kind="stable")
        first = np.unique(bins[order], return_index=True)[1]
        found.append(line[order[np.sort(first)[:k]]])
    return found


@inside
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("rows", "width", "count"), [(200, 24, 5), (333, 70, 17), (32, 8, 1), (20, 8, 2), (96, 33, 3)])
def test_answers_are_the_best_of_the_bins(small, rows, width, count, metric):
    """Full and ragged tiles, full and ragged blocks of queries, one and several products in depth."""
    rng = np.random.default_rng(rows)
    base, queries = rng.standard_normal((rows, width), np.float32), rng.standard_normal((count, width), np.float32)
    method = on_cpu(base, metric, target=0.9)
    found = method.run.numpy(method.search(queries, 6))
    plan = method._plan(count, 6)
    got = distances(metric, queries, base, found)
    for line, true in zip(got, expected(metric, base, queries, plan, 6)):
        np.testing.assert_allclose(line, true, rtol=1e-5, atol=1e-5)
    assert all(len(set(row)) == 6 for row in found.tolist())


@inside
def test_a_wrong_layout_is_seen(small):
    """The oracle fails for a plan that is not the one that ran."""
    rng = np.random.default_rng(0)
    base, queries = rng.standard_normal((400, 16), np.float32), rng.standard_normal((4, 16), np.float32)
    method = on_cpu(base, "ip", target=0.9)
    got = distances("ip", queries, base, method.run.numpy(method.search(queries, 10)))
    plan = method._plan(4, 10)
    other = fused.Plan(plan.rows, plan.tiles, max(1, plan.parts // 2), plan.tiling)
    assert np.allclose(got, expected("ip", base, queries, plan, 10), atol=1e-5)
    assert not np.allclose(got, expected("ip", base, queries, other, 10), atol=1e-5)


@inside
def test_many_candidates_take_the_other_way_and_agree(small):
    rng = np.random.default_rng(1)
    base, queries = rng.standard_normal((300, 16), np.float32), rng.standard_normal((3, 16), np.float32)
    for metric in ("ip", "l2"):
        method = on_cpu(base, metric)
        plan = fused.Plan(300, 9, 4, small)
        raw, l2 = torch.from_numpy(queries), metric == "l2"
        low = fused.lowered(raw - method.mean)
        survivors = fused.reduce(low, method.low, method.bias, l2, plan)
        one, other = (way(survivors, raw, method.vectors, l2, plan, 12) for way in (fused.select, fused.select_many))
        np.testing.assert_array_equal(one, other)
    answer = on_cpu(base, "l2").search(queries, 290)
    assert all(len(set(row)) == 290 for row in answer.tolist())


@inside
@pytest.mark.parametrize("metric", METRICS)
def test_ties_duplicates_negative_scores_and_tiny_bases(small, metric):
    rng = np.random.default_rng(2)
    base = np.repeat(rng.standard_normal((12, 6), np.float32), 8, axis=0)
    found = on_cpu(base, metric).search(base[::40], 8).numpy()
    if metric != "ip":
        assert (found // 8 == (np.arange(0, 96, 40) // 8)[:, None]).all()
    assert all(len(set(row)) == 8 for row in found.tolist())
    same = on_cpu(np.full((70, 3), -1.0), metric).search(np.ones((2, 3)), 10).numpy()  # all scores are negative and equal
    assert all(len(set(row)) == 10 and min(row) >= 0 and max(row) < 70 for row in same.tolist())
    zeros = on_cpu(np.zeros((40, 3), np.float32), metric).search(np.ones((1, 3)), 10).numpy()
    assert len(set(zeros[0])) == 10
    for rows in (1, 2, 17):
        tiny = rng.standard_normal((rows, 3)).astype(np.float32)
        got = on_cpu(tiny, metric).search(rng.standard_normal((2, 3)).astype(np.float32), 5).numpy()
        assert (got[:, rows:] == -1).all() and all(sorted(row[:rows]) == list(range(rows))[:5] for row in got.tolist() if rows <= 5)
        assert all(len(set(row[:5])) == 5 for row in got.tolist() if rows > 5)


@inside
def test_a_common_offset_does_not_reorder_neighbours(small):
    rng = np.random.default_rng(0)
    base = (1000 + 0.1 * rng.standard_normal((100, 16))).astype(np.float32)
    queries = (1000 + 0.1 * rng.standard_normal((3, 16))).astype(np.float32)
    found = on_cpu(base, target=0.99).search(queries, 3).numpy()
    true = nearest("l2", queries, base, 3)[0]
    assert (found[:, 0] == true[:, 0]).all()


@inside
def test_saved_and_loaded_it_answers_alike(small, tmp_path):
    rng = np.random.default_rng(0)
    base, queries = rng.standard_normal((150, 8), np.float32), rng.standard_normal((2, 8), np.float32)
    method = on_cpu(base)
    method.save(tmp_path)
    again = fused.TpuKnnFused()
    again.run = method.run
    again.load(tmp_path, Given(base, "l2", 10, None))
    np.testing.assert_array_equal(method.search(queries, 5), again.search(queries, 5))


# -- the compiler: without a GPU, but not without Triton --------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED or not TRITON, reason="needs Triton, not interpreted")
@pytest.mark.parametrize("l2", [False, True])
def test_the_kernels_compile_for_compute_capability_9_within_its_limits(l2):
    from effbench_implementations.search import tpu_knn_triton as device

    for kernel, tiling in ((device.resident, fused.FLAT), (device.streamed, fused.WIDE)):
        tiles = {name: f"tensordesc<bf16[{n}, {tiling.depth}]>" for name, n in (("queries", tiling.rows), ("base", tiling.columns))}
        constants = {"ROWS": tiling.rows, "COLUMNS": tiling.columns, "DEPTH": tiling.depth}
        made = compiled(kernel, tiling, tiles, {"L2": l2, "RAGGED": False, "FOLD": tiling.fold} | constants)
        assert made.metadata.shared * tiling.together <= 227 * 1024
        # Loads run ahead of the products: some are asked for before the loop.
        assert made.asm["ttgir"].split("scf.for")[0].count("async_tma_copy_global_to_local") >= 2 * (kernel is device.streamed)


def compiled(kernel, tiling, tiles, constants):
    """The kernel for compute capability 9; a merge of a mark is one instruction."""
    import triton
    from triton.backends.compiler import GPUTarget

    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    signature = (
        dict.fromkeys(kernel.arg_names, "i32") | tiles | {"BIAS": "*fp32", "OUT": "*fp32"} | dict.fromkeys(constants, "constexpr")
    )
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    options = {"num_warps": tiling.warps, "num_stages": tiling.stages}
    source = triton.compiler.ASTSource(fn=kernel, signature=signature, constexprs=places)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    assert "wgmma.mma_async" in made.asm["ptx"] and "cp.async.bulk.tensor" in made.asm["ptx"]
    assert made.asm["ptx"].count("lop3.b32") >= tiling.rows * tiling.columns // (32 * tiling.warps), "one merge for a score"
    return made

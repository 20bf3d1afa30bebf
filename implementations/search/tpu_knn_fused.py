"""TPU-KNN on a GPU in one kernel: products and the maximum of every bin stay on the chip, no score is ever written to memory.

Chern et al. (NeurIPS 2022), arXiv:2206.14286. Tiles of bfloat16 products on the tensor cores; a program keeps the best of its bins in
registers while its part of the base streams past a block of queries; a second kernel takes the best survivors of a query and
rescores them exactly, in float32 (`tpu_knn_triton`). Parts take turns tile by tile, so that neighbours in the file are in
different bins. The number of parts is chosen so that the recall target is met and the multiprocessors end together.
Left out: sharding, more than one row a bin, other number formats, GPUs without tensor descriptors.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch

from effbench import Bound, Claim, Flops, knob

from .partial_reduce import checked_target, expected_recall
from .selection import rank
from .task import K, VectorIndex

QUERIES = 1 << 14  # at once
MARGIN = 6  # candidates beyond k: products in bfloat16 swap near ties around the k-th place
CANDIDATES = 64  # that one program of the second kernel can rescore
WIDEST = 1 << 13  # survivors that one program of the second kernel can hold
BITS = 12  # of a score that may give way to a mark: about as exact as a product of bfloat16 still is
SMALL = 1 << 14  # rows that may be searched without bins where there are too few for the target
DEEP = 128  # dimensions from which on the queries do not stay in shared memory


@dataclass(frozen=True)
class Tiling:
    rows: int  # queries of a block
    columns: int  # rows of the base in a tile
    depth: int  # dimensions in one product
    warps: int
    stages: int
    together: int  # programs of a multiprocessor
    fold: int = 2  # columns of a tile for each bin: many bins cost registers, few bins need many parts
    start: float = 6  # turns of a tile that the start and the end of a program cost

    @property
    def bins(self) -> int:
        return self.columns // self.fold


FLAT = Tiling(128, 128, 128, 4, 2, 2)  # two programs at once: one multiplies while the other selects
WIDE = Tiling(128, 256, 64, 8, 4, 1, 2, 1)  # large tiles: each byte from the L2 cache is used more often


@dataclass(frozen=True)
class Plan:
    """How `rows` of the base are dealt out: `tiles` full ones in turn to `parts`; what is left has bins of its own."""

    rows: int
    tiles: int
    parts: int
    tiling: Tiling

    @property
    def bins(self) -> int:
        return self.tiling.bins

    @property
    def fold(self) -> int:
        return self.tiling.fold

    @property
    def ragged(self) -> bool:
        return self.rows > self.tiles * self.tiling.columns

    @property
    def wide(self) -> int:
        """Bins of all parts, survivors of a query."""
        return (self.parts + self.ragged) * self.bins

    @property
    def keep(self) -> int:
        """The bits of a score that do not give way to the mark of its place, which counts layers of the tiles of a part."""
        steps = -(-self.tiles // self.parts) if self.parts else 1
        return -(1 << (self.fold * steps - 1).bit_length())

    def sizes(self) -> dict[int, int]:
        low, more = divmod(self.tiles, self.parts) if self.parts else (0, 0)
        layers, last = divmod(self.rows - self.tiles * self.tiling.columns, self.bins)
        found: dict[int, int] = {}
        for size, count in (
            (self.fold * low, (self.parts - more) * self.bins), (self.fold * (low + 1), more * self.bins),
            (layers, self.bins - last), (layers + 1, last),
        ):  # fmt: skip
            if size and count:
                found[size] = found.get(size, 0) + count
        return found

    def recall(self, k: int) -> float:
        return expected_recall(self.sizes(), k)


@functools.lru_cache(maxsize=256)
def plan(rows: int, queries: int, k: int, target: float, tiling: Tiling, multiprocessors: int) -> Plan | None:
    """The plan whose last program ends first among those that reach the target; None where tiles are too few for it."""
    checked_target(target)
    bins, tiles = tiling.bins, rows // tiling.columns
    blocks, slots = -(-queries // tiling.rows), multiprocessors * tiling.together
    fewest = max(1, -(-tiles // ((1 << BITS) // tiling.fold)))
    most = tiles if k + MARGIN > CANDIDATES else min(tiles, WIDEST // bins - 1)
    for parts in range(fewest, most + 1):
        found = Plan(rows, tiles, parts, tiling)
        if min(k, rows) <= found.wide and found.recall(min(k, rows)) >= target:
            break
    else:
        found = Plan(rows, 0, 0, tiling)
        return found if tiles == 0 and min(k, rows) <= bins and found.recall(min(k, rows)) >= target else None

    def cost(parts: int) -> float:
        """In turns of one tile: rounds of programs, each with a start and an end, and the second kernel."""
        return -(-blocks * parts // slots) * (-(-tiles // parts) + tiling.start) + blocks * parts * bins * tiling.start / 7680

    return Plan(rows, tiles, min(range(parts, min(most, max(parts, 160)) + 1), key=cost), tiling)


class TpuKnnFused(VectorIndex):
    name = "tpu-knn-fused"
    version = 1
    backend = "torch"
    deterministic = True

    recall_target = knob(0.95, sweep=(0.9, 0.95, 0.99))

    claims = (
        Claim(
            text="Selection that never writes a score is at least 3 times as fast as one that does, at recall 0.95 in batches",
            source="our own bar for the idea of Chern et al. (arXiv:2206.14286); they promise the peak of a TPU, which is not this machine",
            parts=(
                Bound("serve.throughput", ">=", 3.0, over="exact", at="quality.recall@10 >= .95", case="batch-10000"),
                Bound("serve.throughput", ">=", 1.0, over="tpu-knn", at="quality.recall@10 >= .95", case="batch-10000"),
            ),
            partly=(1,),
            size="full",
        ),
    )

    def skip(self, given):
        if self.run.dtype != "float32":
            return f"takes and rescores float32 vectors (its products are bfloat16 anyway), not {self.run.dtype}"
        return unfit(self.run.device)

    def index(self, base, given, run):
        mean = base.mean(0, dtype=np.float64).astype(np.float32) if self.metric == "l2" else np.zeros(self.d, np.float32)
        self._hold(base, mean)

    def _hold(self, base, mean):
        self.vectors, self.mean = self.run.put(base), self.run.put(mean)
        centred = self.vectors - self.mean
        self.bias = 0.5 * centred.square().sum(1)
        self.low = lowered(centred)

    def expected(self, queries: int, k: int) -> dict[str, float]:
        """Bins and expected recall of a call."""
        found = self._plan(queries, min(k, self.rows))
        return {"bins": found.wide, "recall": found.recall(min(k, self.rows))} if found else {"bins": self.rows, "recall": 1.0}

    @property
    def notes(self):
        known = self.expected(256, K)
        return [f"recall target {self.recall_target}: {known['bins']} bins, {known['recall']:.4f} expected (batch of 256)"]

    def _plan(self, queries, k):
        count = torch.cuda.get_device_properties(self.vectors.device).multi_processor_count if self.vectors.is_cuda else 4
        tiling = FLAT if self.low.shape[1] <= DEEP else WIDE
        found = plan(self.rows, min(queries, QUERIES), k, self.recall_target, tiling, count)
        if found is None and self.rows > SMALL:
            raise ValueError(
                f"{self.rows} rows in tiles of {tiling.columns} do not give enough bins for a recall target of"
                f" {self.recall_target} at k = {k}: lower it, or use method 'exact'"
            )
        return found

    def nearest(self, queries, k):
        self.run.tally(queries=len(queries), distances=len(queries) * self.rows)
        parts = queries.contiguous().split(QUERIES)
        found = [self._nearest(part, k) for part in parts]
        return found[0] if len(found) == 1 else torch.cat(found)

    def _nearest(self, queries, k):
        found = self._plan(len(queries), k)
        l2 = self.metric == "l2"
        if found is None:
            scores = self.bias - (queries - self.mean) @ (self.vectors - self.mean).T if l2 else -queries @ self.vectors.T
            values, rows = scores.topk(min(k + MARGIN, self.rows), largest=False)
            return rank(self.metric, queries, self.vectors, values, rows, k)
        low = lowered(queries - self.mean if l2 else queries)
        survivors = reduce(low, self.low, self.bias, l2, found)
        return select(survivors, queries, self.vectors, l2, found, k)

    def flops(self, phase, case, tally):
        if phase == "build":
            return Flops(0, other=4 * self.rows * self.d)
        product = 2 * tally["queries"] * self.rows * self.d
        other = tally["queries"] * (2 * self.rows + 3 * (K + MARGIN) * self.d)
        return Flops(product, useful=product, dense=product, other=other)

    def save(self, folder):
        np.savez(folder / "index.npz", vectors=self.run.numpy(self.vectors), mean=self.run.numpy(self.mean))

    def load(self, folder, given):
        self.accept(given)
        with np.load(folder / "index.npz", allow_pickle=False) as file:
            self._hold(file["vectors"], file["mean"])


def unfit(device: str) -> str:
    """Why the kernels cannot run, or ""."""
    if device != "cuda":
        return f"the Triton kernels need a CUDA device, not '{device}'"
    if torch.cuda.get_device_capability() < (9, 0):
        return "the Triton kernels need a GPU with tensor descriptors (compute capability 9.0 or later)"
    try:
        from triton.tools.tensor_descriptor import TensorDescriptor  # noqa: F401
    except ImportError:
        return "Triton is not installed, or has no tensor descriptors (version 3.4 or later)"
    return ""


def lowered(vectors: torch.Tensor, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """In half precision, with columns of zeros up to a multiple of 16, the depth of the smallest product."""
    return torch.nn.functional.pad(vectors, (0, -vectors.shape[1] % 16)).to(dtype)


def reduce(queries, base, bias, l2: bool, plan: Plan) -> torch.Tensor:
    """The best score of every bin with its mark, float32 [q, plan.wide]; `queries` and `base` from `lowered`."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    survivors, tiling = torch.empty(len(queries), plan.wide, device=queries.device), plan.tiling
    depth = min(tiling.depth, max(16, 1 << (base.shape[1] - 1).bit_length()))
    left, right = (TensorDescriptor.from_tensor(x, [n, depth]) for x, n in ((queries, tiling.rows), (base, tiling.columns)))
    chunks = -(-base.shape[1] // depth)
    kernel, deeper = (kernels().resident, {}) if chunks == 1 else (kernels().streamed, {"chunks": chunks, "DEPTH": depth})
    launches = [(0, plan.tiles, plan.parts, 0, False)] if plan.tiles else []
    launches += [(plan.tiles, 1, 1, plan.parts * plan.bins, True)] if plan.ragged else []
    for first, tiles, parts, to, ragged in launches:
        kernel[(-(-len(queries) // tiling.rows), parts)](
            left, right, bias, survivors, len(queries), plan.rows, first, tiles, parts, plan.keep, plan.wide, to, L2=l2, RAGGED=ragged,
            ROWS=tiling.rows, COLUMNS=tiling.columns, FOLD=tiling.fold, num_warps=tiling.warps, num_stages=tiling.stages, **deeper,
        )  # fmt: skip
    return survivors


def select(survivors, queries, vectors, l2: bool, plan: Plan, k: int) -> torch.Tensor:
    """The k best survivors of every query by exact scores, nearest first, int64 [q, k]; -1 where there are fewer."""
    count = min(k + MARGIN, plan.wide)
    width = 1 << (plan.wide - 1).bit_length()
    if count > CANDIDATES or width > WIDEST:
        return select_many(survivors, queries, vectors, l2, plan, k)
    answer = torch.empty(len(queries), k, dtype=torch.int64, device=queries.device)
    slots = max(16, 1 << (count - 1).bit_length())
    kernels().choose[(len(queries),)](
        survivors, queries, vectors, answer, vectors.shape[1], plan.wide, plan.parts, plan.tiles, count, k, plan.keep, L2=l2,
        BINS=plan.bins, FOLD=plan.fold, WIDTH=width, COUNT=slots, DEPTH=2048 // slots, num_warps=max(1, min(8, width // 1024)),
    )  # fmt: skip
    return answer


def select_many(survivors, queries, vectors, l2: bool, plan: Plan, k: int) -> torch.Tensor:
    """As `select`, by torch: for more candidates or survivors than the kernel holds."""
    values, places = survivors.topk(min(k + MARGIN, plan.wide), sorted=False)
    code = values.view(torch.int32) & ~plan.keep
    part = places // plan.bins
    tile = torch.where(part < plan.parts, part + (code // plan.fold) * plan.parts, plan.tiles)
    rows = (tile * plan.fold + code % plan.fold) * plan.bins + places % plan.bins
    nothing = values <= -2.9e38
    rows = rows.masked_fill(nothing, 0)
    if not l2:
        values = torch.cat([torch.einsum("qcd,qd->qc", vectors[r], q) for r, q in zip(rows.split(64), queries.split(64))])
    return rank("l2" if l2 else "ip", queries, vectors, (-values).masked_fill(nothing, torch.inf), rows, k)


@functools.cache
def kernels():
    from . import tpu_knn_triton

    return tpu_knn_triton

"""4-bit codes scored by look-up tables: the layout, the compiled kernel's two functions, and a fallback in numpy.

The kernel (source in `lut16_source.py`) searches a batch partition by partition. Where no C compiler is found, numpy decodes the
visited points and multiplies: the same ranking without the tables' rounding, at the speed of exact search. `reason()` says so.
"""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..shared.compiled import library
from .lut16_source import SOURCE

GROUP = 32  # points whose codes lie together
WORDS = 16  # codewords of a block: 4 bits
SCRATCH = 1 << 26  # bytes of candidates and tables that one call of the kernel may hold
BATCH = 256  # queries that one call of the kernel searches together
INT, POINTER = ctypes.c_int64, ctypes.c_void_p


class _Index(ctypes.Structure):
    _fields_ = [(n, INT) for n in ("d", "partitions", "blocks", "width", "l2", "copies", "stored")] + [
        (n, POINTER)
        for n in ("first", "size", "codes", "ids", "bias", "centre_bias", "codebook", "vectors", "steps", "norms")
    ]  # fmt: skip


def kernel():
    """The library, or None; see `reason`."""
    found, _ = library("lut16", SOURCE)
    if found is not None and found.search.argtypes is None:
        found.search.argtypes = (POINTER,) * 3 + (INT,) * 4 + (POINTER,) * 2 + (INT,)
        found.encode.argtypes = (POINTER,) * 4 + (INT,) * 4 + (POINTER, INT)
    return found


def reason() -> str:
    """Why there is no kernel here; "" where there is one."""
    return library("lut16", SOURCE)[1]


def best_level() -> int:
    """2: AVX-512, 1: AVX2, 0: plain C, -1: no kernel."""
    return kernel().best_level() if kernel() else -1


@dataclass(frozen=True, eq=False)
class Lists:
    """All that a search reads. `blocks` is a multiple of 4; spare blocks and dimensions have codewords of zeros."""

    codes: np.ndarray  # uint8 [groups, blocks, 16]
    ids: np.ndarray  # int32 [groups * 32], -1 on spare places
    first: np.ndarray  # int64 [partitions], number of the first group
    size: np.ndarray  # int64 [partitions], points
    codebook: np.ndarray  # float32 [blocks, width, 16]
    bias: np.ndarray | None  # float32 [groups * 32], |x|^2 / 2 for l2
    centre_bias: np.ndarray | None  # float32 [partitions], |c|^2 / 2 for l2
    centres: np.ndarray  # float32 [partitions, d], added to the decoded codes
    copies: int  # how often a row stands in the lists
    vectors: np.ndarray | None  # float32 or int8 [rows, d], for rescoring
    steps: np.ndarray | None  # float32 [d] of int8 vectors
    norms: np.ndarray | None  # float32 [rows], |x|^2 / 2 of int8 vectors for l2


def pack(codes: np.ndarray, member: np.ndarray, rows: np.ndarray, partitions: int):
    """Points (code [n, m], partition [n], row [n]) sorted into lists: codes, ids, first, size of `Lists`."""
    order = np.argsort(member, kind="stable")
    size = np.bincount(member, minlength=partitions).astype(np.int64)
    groups = -(-size // GROUP)
    first = np.cumsum(groups) - groups
    place = first[member[order]] * GROUP + np.arange(len(order)) - (np.cumsum(size) - size)[member[order]]
    total, blocks = int(groups.sum()), -(-codes.shape[1] // 4) * 4
    flat = np.zeros((total * GROUP, blocks), np.uint8)
    flat[place, : codes.shape[1]] = codes[order]
    ids = np.full(total * GROUP, -1, np.int32)
    ids[place] = rows[order]
    grouped = flat.reshape(total, 2, 16, blocks)
    return np.ascontiguousarray((grouped[:, 0] | grouped[:, 1] << 4).swapaxes(1, 2)), ids, first.astype(np.int64), size


def unpack(codes: np.ndarray) -> np.ndarray:
    """The codes of all places, uint8 [groups * 32, blocks]."""
    return np.concatenate([codes & 15, codes >> 4], axis=2).swapaxes(1, 2).reshape(-1, codes.shape[1])


def encode(residuals, directions, eta, codebook, rounds: int, *, level: int | None = None) -> np.ndarray:
    """Codes uint8 [n, blocks] of residuals [n, blocks * width]: least |r - c|^2 + (eta - 1) <r - c, u>^2 by coordinate descent.

    directions: unit vectors [n, blocks * width] with eta [n], or None for the nearest codewords.
    """
    n, (blocks, width, _) = len(residuals), codebook.shape
    level = best_level() if level is None else level
    if level < 0:
        return _encode(residuals, directions, eta, codebook, rounds)
    arrays = [None if a is None else np.ascontiguousarray(a, np.float32) for a in (residuals, directions, eta, codebook)]
    out = np.empty((n, blocks), np.uint8)
    if kernel().encode(*(a if a is None else a.ctypes.data for a in arrays), n, blocks, width, rounds, out.ctypes.data, level):
        raise MemoryError("the encoder found no memory")
    return out


def _encode(residuals, directions, eta, codebook, rounds, rows=4096):
    """`encode` in numpy, all points of a slice at once."""
    out = []
    for start in range(0, len(residuals), rows):
        part = slice(start, start + rows)
        r = residuals[part].reshape(-1, *codebook.shape[:2])
        off = r[..., None] - codebook  # [n, blocks, width, 16]
        error = (off**2).sum(2)
        code = error.argmin(2)
        if directions is not None:
            along = (off * directions[part].reshape(*r.shape, 1)).sum(2)
            extra, n = np.asarray(eta[part])[:, None] - 1, np.arange(len(r))
            order = np.argsort(-(r**2).sum(2), axis=1, kind="stable")
            total = np.take_along_axis(along, code[..., None], 2)[..., 0].sum(1)
            for _ in range(rounds):
                before = code.copy()
                for j in order.T:
                    rest = total - along[n, j, code[n, j]]
                    code[n, j] = (error[n, j] + extra * (rest[:, None] + along[n, j]) ** 2).argmin(1)
                    total = rest + along[n, j, code[n, j]]
                if (before == code).all():
                    break
        out.append(code.astype(np.uint8))
    return np.concatenate(out) if out else np.empty((0, len(codebook)), np.uint8)


class Searcher:
    """A search over `Lists` with a number of threads. `level` as `best_level` gives it; lower ones are for tests."""

    def __init__(self, lists: Lists, *, l2: bool, threads: int = 1, level: int | None = None):
        self.lists, self.l2, self.threads = lists, l2, threads
        self.level = best_level() if level is None else min(level, best_level())
        self.d = lists.centres.shape[1]
        self._centres = np.ascontiguousarray(lists.centres.T)
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        if self.level < 0:
            self._decoded = None
            return
        names = ("first", "size", "codes", "ids", "bias", "centre_bias", "codebook", "vectors", "steps", "norms")
        self._kept = [None if a is None else np.ascontiguousarray(a) for a in (getattr(lists, n) for n in names)]
        pointers = [None if a is None else a.ctypes.data for a in self._kept]
        stored = 0 if lists.vectors is None else 1 if lists.vectors.dtype == np.float32 else 2
        blocks, width, _ = lists.codebook.shape
        self._index = _Index(self.d, len(lists.size), blocks, width, l2, lists.copies, stored, *pointers)
        self._search, self._address = kernel().search, ctypes.addressof(self._index)

    def search(self, queries: np.ndarray, k: int, leaves: int, rescored: int) -> tuple[np.ndarray, int, int]:
        """Rows int64 [q, k], -1 where there are none; points looked up; rows rescored. Queries: contiguous float32 [q, d]."""
        rescored = max(rescored, k)
        products = queries @ self._centres
        keep = 2 * (rescored + GROUP) * self.lists.copies * 8 + 16 * self.lists.codebook.shape[0]
        at_once = max(1, min(BATCH, SCRATCH // keep, -(-len(queries) // self.threads)))
        if len(queries) <= at_once:
            return self._part(queries, products, k, leaves, rescored)
        starts = range(0, len(queries), at_once)
        run = self._pool.map if self._pool else map
        parts = list(run(lambda a: self._part(queries[a : a + at_once], products[a : a + at_once], k, leaves, rescored), starts))
        return np.concatenate([p[0] for p in parts]), sum(p[1] for p in parts), sum(p[2] for p in parts)

    def _part(self, queries, products, k, leaves, rescored):
        if self.level < 0:
            return self._fallback(queries, products, k, leaves, rescored)
        # One array for the answer and the two counts: every look at an address costs a microsecond.
        out = np.zeros(len(queries) * k + 2, np.int64)
        address = out.ctypes.data
        failed = self._search(
            self._address, queries.ctypes.data, products.ctypes.data, len(queries), k, leaves, rescored, address,
            address + 8 * len(queries) * k, self.level,
        )  # fmt: skip
        if failed:
            raise MemoryError("the search found no memory")
        return out[:-2].reshape(len(queries), k), int(out[-2]), int(out[-1])

    def _fallback(self, queries, products, k, leaves, rescored):
        """Decoded points and matrix products, partition by partition; no tables, so no rounding of them."""
        lists = self.lists
        if self._decoded is None:
            self._decoded = decode(unpack(lists.codes), lists.codebook)[:, : self.d]
        ranking = products if lists.centre_bias is None else products - lists.centre_bias
        probed = np.argpartition(-ranking, leaves - 1, axis=1)[:, :leaves]
        scores = np.full((len(queries), len(lists.ids)), -np.inf, np.float32)
        for leaf in np.unique(probed):
            those = np.flatnonzero((probed == leaf).any(1))
            part = slice(lists.first[leaf] * GROUP, lists.first[leaf] * GROUP + lists.size[leaf])
            scores[those, part] = queries[those] @ self._decoded[part].T + products[those, leaf, None]
        if lists.bias is not None:
            scores -= lists.bias
        wanted = min(scores.shape[1], (rescored if lists.vectors is not None else k) * lists.copies)
        place = np.argpartition(-scores, wanted - 1, axis=1)[:, :wanted] if wanted else np.empty((len(queries), 0), int)
        place = np.take_along_axis(place, np.argsort(-np.take_along_axis(scores, place, 1), axis=1, kind="stable"), 1)
        value, rows = np.take_along_axis(scores, place, 1), lists.ids[place].astype(np.int64)
        rows[np.isinf(value)] = -1
        by_row = np.argsort(rows, axis=1, kind="stable")  # the second copy of a row, which scores less, stands behind the first
        ordered = np.take_along_axis(rows, by_row, 1)
        twice = np.zeros(rows.shape, bool)
        np.put_along_axis(twice, by_row[:, 1:], ordered[:, 1:] == ordered[:, :-1], 1)
        value[twice | (rows < 0)] = -np.inf
        points, work = int(lists.size[probed].sum()), 0
        if lists.vectors is not None:
            order = np.argsort(-value, axis=1, kind="stable")[:, :rescored]
            value, rows = np.take_along_axis(value, order, 1), np.take_along_axis(rows, order, 1)
            exact = self._exact(queries, rows)
            work = int(np.isfinite(value).sum())
            value = np.where(np.isinf(value), -np.inf, exact)
        order = np.argsort(-value, axis=1, kind="stable")[:, :k]
        rows = np.where(np.isinf(np.take_along_axis(value, order, 1)), -1, np.take_along_axis(rows, order, 1))
        return np.pad(rows, ((0, 0), (0, k - rows.shape[1])), constant_values=-1), points, work

    def _exact(self, queries, rows):
        vectors = self.lists.vectors[rows].astype(np.float32)
        if self.lists.steps is not None:
            score = np.einsum("qcd,qd->qc", vectors, queries * self.lists.steps)
            return score if self.lists.norms is None else score - self.lists.norms[rows]
        if self.l2:
            return -((vectors - queries[:, None]) ** 2).sum(2)
        return np.einsum("qcd,qd->qc", vectors, queries)


def decode(codes: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Codes [n, blocks] -> float32 [n, blocks * width]."""
    blocks, width, _ = codebook.shape
    words = codebook.swapaxes(1, 2)  # [blocks, 16, width]
    return words[np.arange(blocks), codes[:, :blocks]].reshape(len(codes), blocks * width)

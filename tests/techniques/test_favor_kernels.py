"""The Triton kernels of attention by positive features, without Triton: their source runs on a stand-in of the language in numpy.

It shows that indices, masks, scales and running maxima are right, also at lengths that no tile divides. It shows nothing about
types, layouts or speed: those are for the tests with a GPU (test_favor_gpu.py).
"""

import contextlib
import importlib.util
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from effbench_implementations.attention import favor_kernels, features

ml_dtypes = pytest.importorskip("ml_dtypes")  # numpy has no bfloat16

SOURCE = Path(favor_kernels.__file__).with_name("favor_triton.py")
MINUS = float("-inf")


class Block(np.ndarray):
    def to(self, dtype):
        return block(np.asarray(self).astype(dtype))


def block(x):
    return np.asarray(x).view(Block)


class Pointer:
    """An address into a flat array: what a kernel gets for a tensor, plus offsets."""

    def __init__(self, array, offset=0):
        self.array, self.offset = array, offset
        self.dtype = types.SimpleNamespace(element_ty=array.dtype)

    def __add__(self, offset):
        return Pointer(self.array, self.offset + np.asarray(offset, dtype=np.int64))

    def where(self, mask, shape):
        return np.broadcast_to(True if mask is None else np.asarray(mask), shape)


class Language(types.ModuleType):
    """What the kernels use of triton.language. Loads and stores outside the array are errors; what was never written is NaN."""

    constexpr, int64, float32, bfloat16 = int, np.int64, np.float32, ml_dtypes.bfloat16
    arange = staticmethod(lambda start, stop: block(np.arange(start, stop, dtype=np.int32)))
    zeros = staticmethod(lambda shape, dtype: block(np.zeros(shape, dtype)))
    full = staticmethod(lambda shape, value, dtype: block(np.full(shape, value, dtype)))
    trans = staticmethod(lambda x: x.T)
    dot = staticmethod(lambda a, b, c=0.0: block(np.asarray(a, np.float32) @ np.asarray(b, np.float32) + np.float32(c)))
    max = staticmethod(lambda x, axis: block(np.max(np.asarray(x), axis)))
    sum = staticmethod(lambda x, axis: block(np.sum(np.asarray(x), axis, dtype=np.float32)))
    where = staticmethod(lambda c, a, b: block(np.where(c, np.asarray(a, np.float32), np.asarray(b, np.float32))))
    debug_barrier = staticmethod(lambda: None)  # the stand-in runs one program after the other
    exp2 = staticmethod(lambda x: block(np.exp2(np.asarray(x, np.float32))))
    log2 = staticmethod(lambda x: block(np.log2(x)))
    sqrt = staticmethod(np.sqrt)
    maximum = staticmethod(lambda a, b: block(np.maximum(a, b)))
    minimum = staticmethod(min)

    def program_id(self, axis):
        return block(np.int64(self.index[axis]))

    def num_programs(self, axis):
        return self.grid[axis]

    @staticmethod
    def load(pointer, mask=None, other=None):
        offset = np.asarray(pointer.offset)
        keep = pointer.where(mask, offset.shape)
        assert (offset[keep] >= 0).all() and (offset[keep] < pointer.array.size).all(), "read outside the array"
        found = np.full(offset.shape, 0 if other is None else other, pointer.array.dtype)
        found[keep] = pointer.array.reshape(-1)[offset[keep]]
        return block(found)

    @staticmethod
    def store(pointer, value, mask=None):
        offset = np.asarray(pointer.offset)
        keep = pointer.where(mask, offset.shape)
        assert (offset[keep] >= 0).all() and (offset[keep] < pointer.array.size).all(), "write outside the array"
        pointer.array.reshape(-1)[offset[keep]] = np.broadcast_to(value, offset.shape)[keep]


class Launcher:
    def __init__(self, function, language):
        self.function, self.language = function, language

    def __call__(self, *arguments):
        return self.function(*arguments)

    def __getitem__(self, grid):
        def launch(*arguments, num_warps, num_stages=None, **named):
            grid3 = (*grid, 1, 1)[:3]
            self.language.grid = grid3
            pointers = [Pointer(x) if isinstance(x, np.ndarray) else x for x in arguments]
            for index in np.ndindex(grid3):
                self.language.index = index
                with np.errstate(all="ignore"):
                    self.function(*pointers, **named)

        return launch


def mounted(text=None):
    """The kernels' module over the stand-in; `text` replaces its source."""
    language = Language("triton.language")
    fake = types.ModuleType("triton")
    fake.jit, fake.language = (lambda **options: lambda function: Launcher(function, language)), language
    saved = {name: sys.modules.pop(name) for name in ("triton", "triton.language") if name in sys.modules}
    sys.modules |= {"triton": fake, "triton.language": language}
    try:
        module = types.ModuleType("stand_in")
        exec(compile(text or SOURCE.read_text(), str(SOURCE), "exec"), module.__dict__)
        return module
    finally:
        for name in ("triton", "triton.language"):
            del sys.modules[name]
        sys.modules |= saved


class Array(np.ndarray):
    def new_empty(self, shape):
        return filled(shape).astype(self.dtype).view(Array)


def filled(shape):
    """Scratch space as a GPU gives it: whatever is there. NaN, so that reading it shows."""
    return np.full(shape, np.nan, np.float32)


def run(
    n, causal, a=0.0, *, m=32, d=16, tiles=None, heads=2, batch=2, scale=1.0, dtype=ml_dtypes.bfloat16, module=None, programs=12
):
    rng = np.random.default_rng(n)
    q, k, v = (rng.standard_normal((batch, heads, n, d)).astype(dtype) for _ in range(3))
    k = (k.astype(np.float32) * scale).astype(dtype)
    w = features.draw(rng, heads, m, d).astype(dtype)
    out = filled(q.shape).astype(dtype).view(Array)
    tiles = tiles or {"keys": (32, 4, 2), "segments": (32, 4, 2), "queries": (16, 4, 2), "causal": (16, 4, 2)}
    coefficients = np.full(batch * heads, a, np.float32)
    saved, favor_kernels.PROGRAMS = favor_kernels.PROGRAMS, programs
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, favor_kernels, "PROGRAMS", saved)
        low = lambda shape: filled(shape).astype(ml_dtypes.bfloat16)  # noqa: E731
        favor_kernels.launch(module or mounted(), q, k, v, w, coefficients, out, causal, tiles, filled, low)
    return np.asarray(out, np.float64), explicit(q, k, v, w, a, causal)


def explicit(q, k, v, w, a, causal):
    """The quadratic form in float64: phi phi^T, masked, normalised."""
    q, k, v, w = (np.asarray(x, np.float64) for x in (q, k, v, w))
    d = q.shape[-1]
    b = np.sqrt(1 - 4 * a)

    def phi(x):
        x = x * d**-0.25
        return np.exp(a * (w**2).sum(-1)[None, :, None] + b * x @ w.swapaxes(-1, -2) - (x**2).sum(-1, keepdims=True) / 2)

    weights = phi(q) @ phi(k).swapaxes(-1, -2)
    if causal:
        weights = np.tril(weights)
    with np.errstate(invalid="ignore"):  # underflows for keys that are too long, where nobody looks at it
        return weights @ v / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("n", [1, 15, 16, 17, 100, 257])
def test_the_kernels_compute_the_quadratic_form(n, causal):
    for a in (0.0, -0.2):
        out, expected = run(n, causal, a)
        assert np.abs(out - expected).max() < 0.03 * np.abs(expected).max()


@pytest.mark.parametrize("causal", [False, True])
def test_several_blocks_of_features_and_one_part(causal):
    for m, programs in ((256, 1), (16, 40), (64, 4)):
        out, expected = run(70, causal, m=m, programs=programs)
        assert np.abs(out - expected).max() < 0.03 * np.abs(expected).max()


@pytest.mark.parametrize("causal", [False, True])
def test_keys_of_any_length_give_finite_answers(causal):
    for scale in (0.0, 20.0, 300.0):
        for dtype in (np.float16, ml_dtypes.bfloat16):
            out, _ = run(50, causal, scale=scale, dtype=dtype)
            assert np.isfinite(out).all()


@pytest.mark.parametrize(
    ("line", "broken", "causal"),
    [
        ("total = total * shrink + tl.sum(p, 1)", "total = total + tl.sum(p, 1)", False),
        ("weight = tl.exp2(tl.load(TOP + at) - top)", "weight = tl.exp2(tl.load(TOP + at))", False),
        ("+ bias[None, :]", "+ 0.0 * bias[None, :]", False),
        ("twice * tl.load(A + head)", "0.0 * tl.load(A + head)", False),
        ("steps[:, None] >= steps[None, :]", "steps[:, None] > steps[None, :]", True),
        ("acc.to(STATE.dtype.element_ty)", "values.to(STATE.dtype.element_ty)", True),
        ("total += sums * grow", "total += sums", True),
        ("acc = acc * shrink[:, None]\n        at", "at", True),
        ("here, sums, values = here1, sums1, values1", "here, sums, values = here2, sums2, values2", True),
        ("tl.store(BIAS + at, new + fixed)", "tl.store(BIAS + at, fixed)", True),
        ("fixed = twice * tl.load(A + head)", "fixed = 0.0 * tl.load(A + head)", True),
        ("(norm[None, :] + reference[:, None])", "norm[None, :]", True),
        ("(norm[None, :] + reference[:, None])", "reference[:, None]", True),
        ("total = tl.dot(pk, ones, total)", "total = tl.dot(pk, 0.0 * ones, total)", True),
        ("acc = tl.dot(pk, v, acc)", "acc = tl.dot(0.0 * pk, v, acc)", True),
    ],
)
def test_a_broken_kernel_is_noticed(line, broken, causal):
    text = SOURCE.read_text()
    assert line in text
    module = mounted(text.replace(line, broken))
    out, expected = run(100, causal, -0.2, module=module)
    assert not np.abs(out - expected).max() < 0.03 * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
def test_the_kernels_in_tritons_own_interpreter():
    """The script that times them on a GPU, in the mode that only checks: several segments, the last one not full."""
    script = Path(__file__).parents[1] / "kernels" / "favor_causal.py"
    command = [sys.executable, str(script), "--interpret", "--check", "1100", "--features", "64", "--head-dim", "32"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["causal"] for line in lines] == [False, True], done.stderr[-3000:]
    assert all(line["error"] < 0.02 for line in lines)


def test_the_coefficient_of_a_head_is_the_formulas():
    module, rng = mounted(), np.random.default_rng(0)
    q, k = (rng.standard_normal((3, 77, 16)).astype(np.float32) + 0.3 for _ in range(2))
    moments, found = filled((2, 3, 2, 2, 16)), filled(3)
    for side, x in enumerate((q, k)):
        module.moments[(3, 2)](x, moments[side], 77, 64, D=16, TOKENS=32, num_warps=4)
    module.optimum[(3,)](moments[0], moments[1], found, 2, 1 / 77, 16**-0.5, D=16, num_warps=1)
    for head in range(3):
        pairs = ((q[head][:, None] + k[head][None]) ** 2).sum(-1).mean() * 16**-0.5
        assert found[head] == pytest.approx(features.optimal(float(pairs), 16), rel=1e-4)

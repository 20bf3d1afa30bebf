"""The Triton kernels that skip unused neurons, in Triton's interpreter: TRITON_INTERPRET=1 python -m pytest FILE.

Indices, masks, ties, tickets and counters are shown to be right, and that broken variants are found. Programs run one after the other
there, so nothing is shown about the order of memory between them, or about speed: `tests/kernels/sparse_mlp.py` on a GPU is for that.
"""

import os
from pathlib import Path

import pytest
import torch
from effbench_implementations.activation import skipping_kernels
from effbench_implementations.activation.skipping import SkippingMLP

from . import device_code

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("set TRITON_INTERPRET=1", allow_module_level=True)
pytest.importorskip("triton")

SOURCE = Path(skipping_kernels.__file__).with_name("skipping_triton.py")
pytestmark = pytest.mark.usefixtures("interpreter_scalars")
SHAPES = [(64, 96, 1), (40, 70, 3), (300, 200, 9), (64, 128, 8), (40, 70, 16)]


# The interpreter keeps bfloat16 as integers and multiplies those: here both factors become float32, where all their products fit.
WIDER = (
    ("y = tl.dot(x, w, y,", "y = tl.dot(x.to(tl.float32), w.to(tl.float32), y,"),
    ("sums = tl.dot(value, w, sums,", "sums = tl.dot(value.to(tl.float32), w.to(tl.float32), sums,"),
)


def module(folder, **replaced):
    return device_code.module(SOURCE, folder, *WIDER, *replaced.values())


def weights(d, f, dtype):
    torch.manual_seed(0)
    up, rows = torch.randn(f, d) / d**0.5, torch.randn(f, d)
    return [t.to(dtype) for t in (up, torch.randn(f) - 1, rows, torch.randn(d))]


def agrees(at, d=40, f=70, n=3, k=70, dtype=torch.float32, tiles=None):
    """Two calls against the gathered form; counters are zero after each."""
    w, x = weights(d, f, dtype), torch.randn(n, d, generator=torch.Generator().manual_seed(1)).to(dtype)
    scratch = skipping_kernels.Scratch("cpu")
    wide = [t.double() for t in w]
    answer = SkippingMLP(*wide, k=0 if k >= f else k, kernel_choice="torch")(x.double())
    for _ in range(2):
        out = skipping_kernels.mlp(x, *w, k, scratch, tiles, at)
        assert out.dtype == dtype
        limit = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
        assert (out.double() - answer).norm() <= limit * answer.norm()
        assert not any(counter.any() for counter in scratch.counters)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("d", "f", "n"), SHAPES)
def test_the_kernels_are_the_dense_layer(tmp_path, d, f, n, dtype):
    agrees(module(tmp_path), d, f, n, f, dtype)


@pytest.mark.parametrize("n", [1, 3])
def test_one_part_needs_no_second_pass(tmp_path, n):
    """What layers of 4,096 numbers are served by for one token: as many blocks of columns as there are programs."""
    agrees(module(tmp_path), 64, 200, n, 200, tiles={"up": (4, 32, 1, 4), "down": (16, 16, 1, 4), "programs": 1})


@pytest.mark.parametrize("k", [1, 5, 69])
@pytest.mark.parametrize(("d", "f", "n"), SHAPES)
def test_top_k_keeps_the_largest(tmp_path, d, f, n, k):
    agrees(module(tmp_path), d, f, n, k)


def ties_are_kept_in_order(at, n=3, f=200, k=20, dtype=torch.float32):
    """W1 is the identity and h of forty numbers, so that many are equal; W2 tells the neurons apart."""
    random = torch.Generator().manual_seed(2)
    h = torch.randn(40, generator=random).to(dtype).float()[torch.randint(0, 40, (n, f), generator=random)]
    zero, scratch = torch.zeros(f), skipping_kernels.Scratch("cpu")
    order = torch.argsort(-h, dim=1, stable=True)[:, :k]
    answer = torch.zeros(n, f).scatter(1, order, h.gather(1, order)).relu()
    for _ in range(2):
        w = [t.to(dtype) for t in (torch.eye(f), zero, torch.eye(f), zero)]
        assert torch.equal(skipping_kernels.mlp(h.to(dtype), *w, k, scratch, at=at).float(), answer)
        assert not any(counter.any() for counter in scratch.counters)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("n", "k"), [(1, 20), (3, 20), (16, 7), (3, 199)])
def test_of_many_ties_the_first_are_kept(tmp_path, n, k, dtype):
    ties_are_kept_in_order(module(tmp_path), n=n, k=k, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ties_go_to_the_first_neurons(tmp_path, dtype):
    up, rows, x = torch.zeros(8, 8, dtype=dtype), torch.eye(8, dtype=dtype), torch.zeros(1, 8, dtype=dtype)
    bias = torch.tensor([1.0, 2, 2, 2, 0, -1, 2, 3], dtype=dtype)
    at, scratch = module(tmp_path), skipping_kernels.Scratch("cpu")
    expected = {3: [0, 2, 2, 0, 0, 0, 0, 3], 7: [1, 2, 2, 2, 0, 0, 2, 3], 8: [1, 2, 2, 2, 0, 0, 2, 3]}
    for k, answer in expected.items():
        assert skipping_kernels.mlp(x, up, bias, rows, x[0], k, scratch, at=at).tolist() == [answer]


@pytest.mark.parametrize("k", [5, 70])
def test_nan_is_not_skipped_and_unused_rows_are_not_read(tmp_path, k):
    at, w, x = module(tmp_path), weights(40, 70, torch.float32), torch.ones(1, 40)
    used = SkippingMLP(*w, k=0 if k == 70 else k).used(x)[0]
    w[2][~used] = float("nan")
    scratch = skipping_kernels.Scratch("cpu")
    assert torch.isfinite(skipping_kernels.mlp(x, *w, k, scratch, at=at)).all()
    x[0, 3] = float("nan")
    assert torch.isnan(skipping_kernels.mlp(x, *weights(40, 70, torch.float32), k, scratch, at=at)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("relu", [False, True])
def test_the_dense_product_of_one_token(tmp_path, dtype, relu):
    up, bias, _, _ = weights(300, 70, dtype)
    x = torch.randn(1, 300, generator=torch.Generator().manual_seed(1)).to(dtype)
    answer = torch.nn.functional.linear(x.double(), up.double(), bias.double())
    answer = answer.relu() if relu else answer
    out = skipping_kernels.product(x, up, bias, relu=relu, at=module(tmp_path))
    assert out.dtype == dtype and (out.double() - answer).norm() <= (1e-5 if dtype == torch.float32 else 1e-2) * answer.norm()


BROKEN = {
    "no bias": ("return y + tl.load(BIAS + rows, mask=inside, other=0.0).to(tl.float32)[None, :]", "return y"),
    "lists overwritten": ("if COMPACT:\n", "if COMPACT:\n        tl.store(COUNT, 0)\n"),
    "neurons of the first token only": (
        "used = tl.max(((h == 0.0) == 0).to(tl.int32), 0)",
        "used = tl.sum(tl.where(tokens[:, None] == 0, ((h == 0.0) == 0).to(tl.int32), 0), 0)",
    ),
    "a part left out": ("for left in tl.range(part * ROWS, count", "for left in tl.range(part * ROWS + ROWS, count"),
    "the count kept": ("tl.store(COUNT, 0)", "pass"),
    "a ticket kept": ("tl.store(TICKET + column, 0)", "pass"),
}
BROKEN_SELECTION = {
    "one too few": ("room = k - tl.sum", "room = k - 1 - tl.sum"),
    "bins kept": ("tl.store(BINS + token * 2048 + bins, tl.zeros([2048], tl.int32))", "pass"),
    "all ties": ("& (rows[None, :] <= cut)", ""),
    "the leading bits alone": ("least += passed << shift", "pass"),
}


@pytest.fixture
def cleared(monkeypatch):
    """A broken kernel may read places that nobody wrote: as row numbers, these must not lead out of memory."""
    monkeypatch.setattr(torch, "empty", torch.zeros)


@pytest.mark.parametrize("name", BROKEN)
def test_the_oracle_rejects_what_is_broken(tmp_path, cleared, name):
    with pytest.raises(AssertionError):
        agrees(module(tmp_path, line=BROKEN[name]))


def test_the_oracle_rejects_one_part_without_bias(tmp_path, cleared):
    broken = module(tmp_path, line=("(sums + bias).to(OUT.dtype.element_ty)", "sums.to(OUT.dtype.element_ty)"))
    with pytest.raises(AssertionError):
        agrees(broken, tiles={"up": (4, 32, 1, 4), "down": (16, 16, 1, 4), "programs": 1})


@pytest.mark.parametrize("name", BROKEN_SELECTION)
def test_the_oracle_rejects_a_broken_selection(tmp_path, cleared, name):
    with pytest.raises(AssertionError):
        ties_are_kept_in_order(module(tmp_path, line=BROKEN_SELECTION[name]))

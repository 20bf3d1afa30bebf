"""Counted FLOPs of torch operations against counts derived by hand. Each row shows the derivation; MAC = multiply-add = 2."""

from math import log2

import pytest

from effbench.measure.flops import count

torch = pytest.importorskip("torch")
nn, F, R = torch.nn, torch.nn.functional, torch.randn


def backward(make):
    """Forward and backward of a scalar made by `make()`; inputs and weights need gradients."""
    return lambda: make().sum().backward()


def leaf(*shape):
    return R(*shape, requires_grad=True)


def no_grad(call):
    def run():
        with torch.no_grad():
            return call()

    return run


def lstm(**more):
    torch.manual_seed(0)
    return nn.LSTM(6, 7, batch_first=True, **more)


def encoder():
    return nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()


TABLE = [
    # name, call, FLOPs as derived
    ("mm 3x4 @ 4x5", lambda: R(3, 4) @ R(4, 5), 2 * 3 * 4 * 5),
    ("bmm of 6", lambda: torch.bmm(R(6, 3, 4), R(6, 4, 5)), 6 * 2 * 3 * 4 * 5),
    (
        "grouped mm, 3 + 0 + 4 rows of 8 with a matrix 8x4 each",
        no_grad(lambda: F.grouped_mm(R(7, 8), R(3, 8, 4), offs=torch.tensor([3, 3, 7], dtype=torch.int32))),
        2 * 7 * 8 * 4,
    ),
    ("baddbmm: the addition of the first argument is not counted", lambda: torch.baddbmm(R(6, 3, 5), R(6, 3, 4), R(6, 4, 5)), 720),
    ("addbmm", lambda: torch.addbmm(R(3, 5), R(6, 3, 4), R(6, 4, 5)), 6 * 2 * 3 * 4 * 5),
    ("linear with bias on [2, 3, 4]: 6 rows", lambda: F.linear(R(2, 3, 4), R(5, 4), R(5)), 2 * 6 * 4 * 5),
    ("linear forward and backward: y, dx, dw", backward(lambda: F.linear(leaf(8, 4), leaf(5, 4))), 3 * (2 * 8 * 4 * 5)),
    ("einsum through bmm", lambda: torch.einsum("bik,bkj->bij", R(2, 3, 4), R(2, 4, 5)), 2 * 2 * 3 * 4 * 5),
    ("matrix-vector 5x7", lambda: R(5, 7) @ R(7), 2 * 5 * 7),
    ("addmv 5x7", lambda: torch.addmv(R(5), R(5, 7), R(7)), 2 * 5 * 7),
    ("dot of 11", lambda: torch.dot(R(11), R(11)), 2 * 11),
    ("addr is a rank-one update: a MAC for each entry", lambda: torch.addr(R(5, 7), R(5), R(7)), 2 * 5 * 7),
    ("outer is element-wise for torch: other work", lambda: torch.outer(R(5), R(7)), 0),
    ("complex product: 4 multiplies and 4 adds a MAC", lambda: R(3, 4, dtype=torch.cfloat) @ R(4, 5, dtype=torch.cfloat), 8 * 60),
    ("conv 3->4, 3x3, valid on 8x8: 6x6 outputs of 27 MACs", lambda: F.conv2d(R(2, 3, 8, 8), R(4, 3, 3, 3)), 2 * 2 * 36 * 4 * 27),
    (
        "grouped conv 8->12 g=4, padded 6x6: 36 outputs x 12 channels x (2 inputs x 9 taps)",
        no_grad(lambda: F.conv2d(R(2, 8, 6, 6), R(12, 2, 3, 3), padding=1, groups=4)),
        2 * 2 * 36 * 12 * 18,
    ),
    (
        "its forward and backward is three times that (torch's own counter says 1 + 1 + groups + ...)",
        backward(lambda: F.conv2d(leaf(2, 8, 6, 6), leaf(12, 2, 3, 3), padding=1, groups=4)),
        3 * (2 * 2 * 36 * 12 * 18),
    ),
    (
        "depthwise, weights only: forward and one gradient",
        backward(lambda: F.conv2d(R(1, 16, 5, 5), leaf(16, 1, 3, 3), padding=1, groups=16)),
        2 * (2 * 25 * 16 * 9),
    ),
    (
        "transposed conv, stride 2: every input meets every tap, 36 x 8 x (3 x 9)",
        backward(lambda: F.conv_transpose2d(leaf(2, 8, 6, 6), leaf(8, 3, 3, 3), stride=2, groups=4)),
        3 * (2 * 2 * 36 * 8 * 27),
    ),
    ("conv1d 4->5, 3 taps on 9: 7 outputs", lambda: F.conv1d(R(2, 4, 9), R(5, 4, 3)), 2 * 2 * 7 * 5 * 12),
    (
        "attention b2 h4 s16 d8: scores and sum, 2 x 2 x (8 x 256 x 8)",
        lambda: F.scaled_dot_product_attention(R(2, 4, 16, 8), R(2, 4, 16, 8), R(2, 4, 16, 8)),
        2 * 2 * (2 * 4) * 16 * 16 * 8,
    ),
    (
        "causal attention is not halved",
        lambda: F.scaled_dot_product_attention(R(2, 4, 16, 8), R(2, 4, 16, 8), R(2, 4, 16, 8), is_causal=True),
        2 * 2 * (2 * 4) * 16 * 16 * 8,
    ),
    (
        "attention forward 2 products, backward 5",
        backward(lambda: F.scaled_dot_product_attention(leaf(2, 4, 16, 8), leaf(2, 4, 16, 8), leaf(2, 4, 16, 8))),
        (2 + 5) * 2 * (2 * 4) * 16 * 16 * 8,
    ),
    (
        "cross attention with 24 keys",
        lambda: F.scaled_dot_product_attention(R(2, 4, 16, 8), R(2, 4, 24, 8), R(2, 4, 24, 8)),
        2 * 2 * (2 * 4) * 16 * 24 * 8,
    ),
    (
        "encoder layer d16 f32, 10 tokens, 5x5 attention: 4 x 16x16 and 2 x 16x32 a token, fused path off",
        no_grad(lambda: encoder()(R(2, 5, 16))),
        2 * 10 * (4 * 256 + 2 * 512) + 2 * 2 * (2 * 2) * 5 * 5 * 8,
    ),
    ("LSTM 6->7, 15 steps in all: 4 gates of 6x7 and 7x7", no_grad(lambda: lstm()(R(3, 5, 6))), 2 * 15 * 4 * (42 + 49)),
    ("two-way LSTM is two of them", no_grad(lambda: lstm(bidirectional=True)(R(3, 5, 6))), 2 * 2 * 15 * 4 * (42 + 49)),
    ("LSTM forward and backward", backward(lambda: lstm()(R(3, 5, 6))[0]), 3 * 2 * 15 * 4 * (42 + 49)),
    ("GRU has 3 gates", no_grad(lambda: nn.GRU(6, 7)(R(5, 3, 6))), 2 * 15 * 3 * (42 + 49)),
    ("FFT, 3 of 64: 5 N log2 N", lambda: torch.fft.fft(R(3, 64, dtype=torch.cfloat)), 3 * 5 * 64 * 6),
    ("real FFT: half of it", lambda: torch.fft.rfft(R(3, 64)), 3 * 5 * 64 * 6 / 2),
    ("real FFT and back", lambda: torch.fft.irfft(torch.fft.rfft(R(3, 64))), 3 * 5 * 64 * 6),
    ("real FFT 8x16: half over 16, whole over 8 on 9 columns", lambda: torch.fft.rfft2(R(8, 16)), 2.5 * 128 * 4 + 5 * 72 * log2(8)),
    ("int8 product 32x16x8", lambda: torch._int_mm(torch.ones(32, 16).char(), torch.ones(16, 8).char()), 2 * 32 * 16 * 8),
    ("solve 5x5, 2 columns: LU 2/3 n^3, two substitutions", lambda: torch.linalg.solve(R(5, 5), R(5, 2)), 250 / 3 + 2 * 25 * 2),
    ("solve a batch of vectors", lambda: torch.linalg.solve(R(3, 5, 5), R(3, 5)), 3 * (250 / 3 + 2 * 25)),
    ("Cholesky n^3 / 3", lambda: torch.linalg.cholesky(torch.eye(6)), 72),
    ("inverse 2 n^3", lambda: torch.linalg.inv(torch.eye(6)), 432),
    ("triangular solve n^2 a column", lambda: torch.linalg.solve_triangular(torch.eye(5), R(5, 3), upper=False), 75),
    ("QR 6x5, factor and Q: 2 x 2 n^2 (m - n / 3)", lambda: torch.linalg.qr(R(6, 5)), 2 * 2 * 25 * (6 - 5 / 3)),
    ("distances of few rows: subtract, square, add", lambda: torch.cdist(R(5, 7), R(6, 7)), 3 * 5 * 6 * 7),
    ("distances of many rows: a product of width d + 2", lambda: torch.cdist(R(50, 7), R(60, 7)), 2 * 50 * 60 * 9),
    ("embedding bag is a look-up", lambda: F.embedding_bag(torch.tensor([[0, 1]]), R(5, 7)), 0),
    ("sparse COO: 5 stored values meet 7 columns", lambda: torch.sparse.mm(torch.eye(5).to_sparse(), R(5, 7)), 2 * 5 * 7),
    ("sparse CSR the same", lambda: torch.eye(5).to_sparse_csr() @ R(5, 7), 2 * 5 * 7),
    (
        "a chain is associated cheaply: 2x3x4 then 2x4x5",
        lambda: torch.linalg.multi_dot([R(2, 3), R(3, 4), R(4, 5)]),
        2 * 24 + 2 * 40,
    ),
    ("softmax, layer norm, gelu: other work", lambda: F.gelu(F.layer_norm(R(4, 8).softmax(1), (8,))), 0),
]


@pytest.mark.parametrize(("call", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_counts_match_the_derivation(call, expected):
    counted = count(call, "torch")
    assert counted.executed == pytest.approx(expected, rel=1e-12)
    assert counted.uncounted == ()
    assert sum(counted.by_op.values()) == pytest.approx(counted.executed)


def test_the_table_is_large_enough():
    assert len(TABLE) >= 25


def test_torchs_own_counter_misses_what_we_correct():
    """The reasons for the corrections; where torch mends one, its row here may go."""
    from torch.utils.flop_counter import FlopCounterMode

    rows = {name: (call, expected) for name, call, expected in TABLE}
    for name in ("matrix-vector 5x7", "LSTM 6->7, 15 steps in all: 4 gates of 6x7 and 7x7", "int8 product 32x16x8"):
        call, expected = rows[name]
        with FlopCounterMode(display=False) as theirs:
            call()
        assert theirs.get_total_flops() < expected


def test_agrees_with_torchs_counter_where_that_is_right():
    from torch.utils.flop_counter import FlopCounterMode

    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    x = R(2, 3, 8, 8)
    with FlopCounterMode(display=False) as theirs:
        net(x).sum().backward()
    assert count(lambda: net(x).sum().backward(), "torch").executed == theirs.get_total_flops()


def test_a_wrong_formula_is_rejected_by_the_table(monkeypatch):
    """The oracle can fail: with grouped backward counted torch's way, the row above no longer holds."""
    from torch.utils.flop_counter import conv_backward_flop

    from effbench.measure import flops_torch

    def theirs(out, *args, **kwargs):
        return conv_backward_flop(*args, out_val=out)

    original = flops_torch.formulas
    monkeypatch.setattr(flops_torch, "formulas", lambda: {**original(), torch.ops.aten.convolution_backward: theirs})
    call = backward(lambda: F.conv2d(leaf(2, 8, 6, 6), leaf(12, 2, 3, 3), padding=1, groups=4))
    assert count(call, "torch").executed > 1.5 * 3 * (2 * 2 * 36 * 12 * 18)


def test_results_written_into_a_given_tensor_are_counted():
    out = torch.empty(3, 5)
    assert count(lambda: torch.addmm(R(5), R(3, 4), R(4, 5), out=out), "torch").executed == 120


def test_products_in_place_are_counted():
    assert count(lambda: R(3, 5).addmm_(R(3, 4), R(4, 5)), "torch").executed == 120


def test_other_work_in_place_is_known():
    counted = count(lambda: R(3, 5).masked_fill_(R(3, 5) > 0, 1.0).add_(1).clamp_(0, 1).floor_divide_(2), "torch")
    assert counted.uncounted == ()


def test_other_work_is_listed_in_elements():
    counted = count(lambda: torch.relu(R(4, 8)).sum(), "torch")
    assert counted.elementwise["aten.relu"] == 32
    assert counted.elementwise["aten.sum"] == 32
    assert counted.executed == 0


def test_a_training_step_is_fully_accounted_for():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(36, 3)
    )
    optimiser = torch.optim.AdamW(net.parameters())

    def step():
        F.cross_entropy(net(R(2, 1, 8, 8)), torch.tensor([0, 1])).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()

    assert count(step, "torch").uncounted == ()


def test_an_unknown_operation_is_reported_not_ignored():
    library = torch.library.Library("effbench_test", "DEF")
    library.define("mystery(Tensor x) -> Tensor")
    library.impl("mystery", lambda x: x @ x, "CompositeExplicitAutograd")
    counted = count(lambda: torch.ops.effbench_test.mystery(R(3, 3)), "torch")
    assert counted.uncounted == ("effbench_test.mystery",)
    assert "mystery" in counted.coverage()


@pytest.mark.slow
def test_compiled_functions_are_counted_by_running_them_eagerly():
    compiled = torch.compile(lambda a, b: a @ b)
    assert count(compiled, "torch", R(3, 4), R(4, 5)).executed == 120


def test_the_fused_encoder_path_is_restored():
    assert torch.backends.mha.get_fastpath_enabled()
    count(lambda: None, "torch")
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_call_that_leaves_no_trace_is_not_called_free():
    counted = count(lambda: None, "torch")
    assert counted.executed is None
    assert "formula only" in counted.reason


def test_wrapper_tensors_unfold_into_what_really_runs():
    two = pytest.importorskip("torch.testing._internal.two_tensor")
    pair = two.TwoTensor(R(4, 4), R(4, 4))
    assert count(lambda: pair @ R(4, 4), "torch").executed == 2 * (2 * 64)


def test_inference_mode_is_counted():
    def call():
        with torch.inference_mode():
            return F.linear(R(3, 4), R(5, 4))

    assert count(call, "torch").executed == 120


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_dynamic_int8_layers_are_counted():
    if not hasattr(getattr(torch.ao, "quantization", None), "quantize_dynamic"):
        pytest.skip("this torch has no quantize_dynamic")
    net = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 4)), {nn.Linear})
    assert count(net, "torch", R(3, 8)).executed == 2 * 3 * 8 * 4


def test_numpy_and_native_say_why_they_are_not_counted():
    counted = count(lambda: 1, "native")
    assert counted.executed is None
    assert "formula only" in counted.reason


def test_errors_of_the_call_pass_through():
    with pytest.raises(RuntimeError):
        count(lambda: R(3, 4) @ R(3, 4), "torch")

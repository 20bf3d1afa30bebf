"""The kernels that skip unused neurons, on a GPU: `python -m pytest -m gpu tests/techniques/test_activation_gpu.py`, a minute to compile.

The interpreter shows the same of the code in test_activation_kernels.py; here the order of memory between programs counts as well.
"""

import pytest
import torch
from effbench_implementations.activation import skipping_kernels
from effbench_implementations.activation.skipping import SkippingMLP, top
from torch.nn.functional import linear

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
LIMIT = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def weights(d, f, dtype, share=-1.0):
    torch.manual_seed(0)
    up, rows = torch.randn(f, d, device="cuda") / d**0.5, torch.randn(f, d, device="cuda")
    return [t.to(dtype) for t in (up, torch.randn(f, device="cuda") + share, rows, torch.randn(d, device="cuda"))]


def answer(x, up, up_bias, rows, bias, k):
    """Which neurons are the k largest is decided on what the kernels see: activations rounded to the dtype."""
    x, up, up_bias, rows, bias = (t.double() for t in (x, up, up_bias, rows, bias))
    return top(linear(x, up, up_bias).relu(), k) @ rows + bias


@pytest.mark.parametrize("dtype", LIMIT)
@pytest.mark.parametrize("n", [0, 1, 2, 8, 16, 17, 40])
@pytest.mark.parametrize(("d", "f"), [(40, 70), (300, 1000), (1024, 4096)])
def test_skipping_is_the_dense_layer(d, f, n, dtype):
    w, x = weights(d, f, dtype), torch.randn(n, d, device="cuda").to(dtype)
    served = SkippingMLP(*w)
    assert served.how == "triton"
    expected = answer(x, *w, f)
    for _ in range(20):
        out = served(x)
        assert out.dtype == dtype and out.shape == x.shape
        assert (out.double() - expected).norm() <= LIMIT[dtype] * expected.norm()


@pytest.mark.parametrize("n", [1, 8, 16, 17])
@pytest.mark.parametrize("k", [1, 100, 999])
def test_top_k_keeps_the_largest(n, k):
    w, x = weights(300, 1000, torch.float32, 1.0), torch.randn(n, 300, device="cuda")
    served, expected = SkippingMLP(*w, k=k), answer(x, *w, k)
    for _ in range(20):
        assert (served(x).double() - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("dtype", LIMIT)
def test_of_equal_activations_the_first_are_kept(dtype):
    h = torch.randn(40, device="cuda").to(dtype).float()[torch.randint(0, 40, (5, 512), device="cuda")]
    order = torch.argsort(-h, dim=1, stable=True)[:, :50]
    expected = torch.zeros_like(h).scatter(1, order, h.gather(1, order)).relu()
    one, none = torch.eye(512, device="cuda").to(dtype), torch.zeros(512, device="cuda").to(dtype)
    served = SkippingMLP(one, none, one, none, k=50)
    for x in (h, h[:1]):
        torch.testing.assert_close(served(x.to(dtype)).float(), expected[: len(x)], rtol=1e-6, atol=0)


@pytest.mark.parametrize("n", [1, 8])
def test_a_graph_replays_the_call(n):
    w = weights(300, 1000, torch.bfloat16)
    served, x = SkippingMLP(*w, k=100), torch.randn(n, 300, device="cuda").bfloat16()
    served(x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = served(x)
    for _ in range(3):
        x.normal_()
        graph.replay()
        torch.testing.assert_close(out, served(x), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", LIMIT)
@pytest.mark.parametrize("relu", [False, True])
def test_the_dense_product(dtype, relu):
    up, bias, _, _ = weights(300, 1000, dtype)
    x = torch.randn(1, 300, device="cuda").to(dtype)
    expected = linear(x.double(), up.double(), bias.double())
    expected = expected.relu() if relu else expected
    out = skipping_kernels.product(x, up, bias, relu=relu)
    assert out.dtype == dtype and (out.double() - expected).norm() <= LIMIT[dtype] * expected.norm()

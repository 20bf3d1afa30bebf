"""On a real GPU: event timing agrees with the profiler's kernel times, early returns are caught, energy is plausible."""

from statistics import median

import pytest

from effbench.measure import cuda, energy, roofline

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    return torch


def elementwise(torch, numbers):
    x = torch.randn(numbers, device="cuda")
    return x.add_


def product(torch, n, dtype):
    a, b = (torch.randn(n, n, device="cuda", dtype=getattr(torch, dtype)) for _ in range(2))
    out = torch.empty_like(a)
    return lambda _: torch.mm(a, b, out=out)


KERNELS = {
    "add 64 MB": (elementwise, (8 << 20,)),
    "add 1 GB": (elementwise, (128 << 20,)),
    "bfloat16 product 2048": (product, (2048, "bfloat16")),
    "bfloat16 product 8192": (product, (8192, "bfloat16")),
    "float32 product 12288": (product, (12288, "float32")),
}


@pytest.mark.parametrize("name", KERNELS)
def test_agrees_with_the_profilers_kernel_time(torch, name):
    """Within max(2 %, 1.5 us), on the very launches that were timed."""
    make, args = KERNELS[name]
    call = make(torch, *args)
    kit = cuda.TorchKit()
    cuda.device_turn(call, [1.0, 2.0], seconds=0.2, cold=False, kit=kit)  # clocks settle
    calls = 0

    def counted(batch):
        nonlocal calls
        calls += 1
        return call(batch)

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        turn = cuda.device_turn(counted, [1.0, 2.0], seconds=0.3, cold=False, kit=kit)
    ours = ("spin_kernel", "memset", "fillfunctor")
    kernels = [
        event
        for event in sorted(profile.events(), key=lambda event: event.time_range.start)
        if event.device_type == torch.autograd.DeviceType.CUDA and not any(word in event.name.lower() for word in ours)
    ]
    assert len(kernels) % calls == 0, (len(kernels), calls, {event.name for event in kernels})
    each = len(kernels) // calls  # a product may be split into several kernels
    seconds = [event.device_time_total * 1e-6 for event in kernels]
    expected = median(sum(seconds[i : i + each]) for i in range(0, len(seconds), each))
    assert turn.early == ""
    assert abs(median(turn.device) - expected) <= max(0.02 * expected, 1.5e-6), (median(turn.device), expected, turn.overhead)


def test_cold_is_slower_than_hot_where_the_data_fit_the_cache(torch):
    x, y = (torch.randn(4 << 20, device="cuda") for _ in range(2))
    call = lambda _: torch.dot(x, y)  # noqa: E731
    cold, hot = cuda.device_turn(call, [0]), cuda.device_turn(call, [0], cold=False)
    assert median(cold.device) > 1.1 * median(hot.device)


def test_a_method_that_returns_before_its_work_is_done_is_caught(torch):
    a = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    side = torch.cuda.Stream()

    def hasty(_):
        with torch.cuda.stream(side):
            return a @ a

    def honest(_):
        out = hasty(_)
        torch.cuda.current_stream().wait_stream(side)
        return out

    assert "another stream" in cuda.device_turn(hasty, [0]).early
    assert cuda.device_turn(honest, [0]).early == ""
    assert cuda.device_turn(lambda _: a @ a, [0]).early == ""


def test_launch_overhead_is_not_work_and_a_graph_removes_it(torch):
    x = torch.randn(1024, device="cuda")

    def call(_):
        y = x
        for _ in range(50):
            y = y * 1.0001
        return y

    eager = cuda.device_turn(call, [0])
    graph, reason = cuda.graph_turn(call, [0])
    assert reason == ""
    assert median(eager.device) < 0.8 * median(eager.wall)
    assert median(graph.wall) < 0.8 * median(eager.wall)


def test_energy_of_three_seconds_of_products_is_plausible(torch):
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    calls = 0
    with energy.meter("cuda") as meter:
        begin = energy.time.perf_counter()
        while energy.time.perf_counter() - begin < 3.0:
            a @ a
            torch.cuda.synchronize()
            calls += 1
    found = meter.reading(calls)
    if found["value"] is None and "NVML" in found["reason"]:
        pytest.skip(found["reason"])
    watts = found["value"] * calls / meter.seconds
    assert 50 < watts < 1500
    with energy.meter("cuda") as short:
        a @ a
    assert short.reading()["value"] is None


def test_roofs_are_measured_and_nothing_beats_them(torch):
    roofs = roofline.calibrate("cuda", seconds=0.3)
    assert roofs["matmul"]["bfloat16"] > roofs["matmul"]["float32"]
    assert roofs["copy"] > 1e11
    n = 4096
    a = torch.randn(n, n, device="cuda", dtype=torch.bfloat16)
    turn = cuda.device_turn(lambda _: a @ a, [0])
    found = roofline.share(2.0 * n**3, None, median(turn.device), roofs, "bfloat16")
    assert found.compute > 0.2
    assert found.reason == ""


def test_flop_counter_sees_cuda_kernels(torch):
    from effbench.measure.flops import count

    q = torch.randn(2, 4, 128, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    lstm = torch.nn.LSTM(6, 7, batch_first=True).cuda()
    x = torch.randn(3, 5, 6, device="cuda")
    attention = lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q).sum().backward()  # noqa: E731
    assert count(attention, "torch").executed == 7 * 2 * 8 * 128 * 128 * 64
    counted = count(lambda: lstm(x)[0].sum().backward(), "torch")
    assert counted.executed == 3 * 2 * 15 * 4 * (42 + 49)
    assert counted.uncounted == ()

"""Bytes that operations move, against counts made by hand."""

import pytest
import torch

from effbench.measure.traffic import moved

A, B = torch.ones(4, 8), torch.ones(8, 16)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda x: A @ B, {"aten::mm": 4 * (32 + 128 + 64)}),
        (lambda x: A.double() @ B.double(), {"aten::_to_copy": 12 * (32 + 128), "aten::mm": 8 * (32 + 128 + 64)}),
        (lambda x: A.t().reshape(2, 16).contiguous(), {"aten::clone": 4 * 2 * 32}),  # the view before it is free
        (lambda x: A.view(8, 4), {}),
        (lambda x: torch.ops.aten._unsafe_view(A, [8, 4]), {}),
        (lambda x: A + torch.zeros(1).expand(4, 8), {"aten::add": 4 * (32 + 1 + 32), "aten::zeros": 4}),
        (lambda x: A + A, {"aten::add": 4 * (32 + 32)}),  # one input, read once
        (lambda x: x.add_(1), {"aten::add_": 4 * 2 * 32}),
        (lambda x: x.fill_(2.0), {"aten::fill_": 4 * 32}),
        (lambda x: x.copy_(A), {"aten::copy_": 4 * 2 * 32}),
        (lambda x: torch.empty(1000), {}),
        (lambda x: B[torch.tensor([1, 5])], {"aten::index": 2 * 4 * 32 + 8 * 2}),
        (lambda x: B.index_select(0, torch.tensor([3])), {"aten::index_select": 2 * 4 * 16 + 8}),
    ],
)
def test_by_hand(call, expected):
    found = moved(call, torch.ones(4, 8))
    assert {name: size for name, size in found.items() if name in expected or expected == {}} == expected, found


def test_attention_in_one_operation_reads_and_writes_each_number_once():
    q = torch.ones(1, 2, 32, 8)
    found = moved(lambda x: torch.nn.functional.scaled_dot_product_attention(q, q + 1, q + 2), None)
    (size,) = [size for name, size in found.items() if "attention" in name]
    assert 4 * q.nbytes <= size <= 5 * q.nbytes  # and the logarithms of the sums


def test_it_neither_changes_nor_repeats_the_call():
    calls = []
    moved(lambda x: calls.append(x + 1), torch.ones(3))
    assert len(calls) == 1

"""Operations that write into `out=` are counted like the others."""

import torch

from effbench.measure.flops import count


def test_out_variants_are_counted():
    a, b, out = torch.ones(3, 4), torch.ones(4, 5), torch.empty(3, 5)
    assert count(lambda: torch.addmm(torch.zeros(3, 5), a, b, out=out), "torch").executed == 2 * 3 * 4 * 5
    assert count(lambda: torch.mm(a, b, out=out), "torch").executed == 2 * 3 * 4 * 5

"""A hundred calls of a layer of torch: linear, GELU, linear; more calls are more work."""

import torch

from effbench import param

from .task import Work

CALLS, ROWS, WIDTH = 100, 32, 64


class Layer(Work):
    name = "layer"
    backend = "torch"
    extra = param(0)

    def build(self, given, run):
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(WIDTH, 2 * WIDTH), torch.nn.GELU(), torch.nn.Linear(2 * WIDTH, WIDTH))
        self.rows = torch.randn(ROWS, WIDTH)
        self.calls = CALLS * (100 + self.extra) // 100

    @torch.no_grad()
    def work(self, number):
        for _ in range(self.calls):
            found = self.net(self.rows)
        return float(found[0, number])

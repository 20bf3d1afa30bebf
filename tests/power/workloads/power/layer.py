"""A layer of torch: linear, GELU, linear; more rows are more work."""

import torch

from effbench import param

from .task import Work

ROWS, WIDTH = 200, 256


class Layer(Work):
    name = "layer"
    backend = "torch"
    extra = param(0)

    def build(self, given, run):
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(WIDTH, 2 * WIDTH), torch.nn.GELU(), torch.nn.Linear(2 * WIDTH, WIDTH))
        self.rows = torch.randn(ROWS * (100 + self.extra) // 100, WIDTH)

    @torch.no_grad()
    def work(self, number):
        return float(self.net(self.rows)[0, number])

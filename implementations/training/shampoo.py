"""Shampoo, grafted on Adam: the gradient of a matrix is preconditioned from both sides, L^(-1/4) G R^(-1/4).

L and R are running averages of G G^T and G^T G. Each layer's step keeps the direction of Shampoo and takes the length of the
step that Adam would make without its momentum, so that Adam's learning rates transfer; momentum is applied after. The
second-order arm: what LocoProp should come near to.

Source: Gupta, Koren and Singer, arXiv 1802.09568; grafting and refresh as in Anil et al., arXiv 2002.09018. Left out: blocking
of large matrices, and preconditioning of biases (the grafted step itself). Roots come from eigen-decompositions in float64, every
`refresh` steps; their work is nominal (they iterate until they converge) and is charged to the method like its products.
"""

from __future__ import annotations

import itertools

import torch

from effbench import Choice, Flops, Log, param

from .formulas import back_propagation_flops
from .task import Optimiser

# One root, per d^3. Symmetric eigen-decomposition with vectors: about 4/3 for the reduction, the rest for the vectors (Golub and
# Van Loan), 9 together; then one product.
ROOT_FLOPS = 9.0 + 2.0


def cubes(sizes) -> int:
    """Sum of d^3 over both sides of every weight matrix."""
    return sum(a**3 + b**3 for a, b in itertools.pairwise(sizes))


def inverse_fourth_root(matrix: torch.Tensor, ridge: float) -> torch.Tensor:
    """(M + ridge * tr(M)/d * I)^(-1/4) of a symmetric positive semi-definite M, by eigen-decomposition in float64."""
    values, vectors = torch.linalg.eigh(matrix.double())
    floor = ridge * values.clamp(min=0).mean() + 1e-30  # finite in float32 for a zero matrix
    return ((vectors * (values.clamp(min=0) + floor) ** -0.25) @ vectors.T).to(matrix.dtype)


class Shampoo(Optimiser):
    name = "shampoo"
    version = 2  # 2: the eigen-decompositions count as executed work
    lr = param(0.006, tune=Log(0.0006, 0.06))
    beta1 = param(0.9)
    beta2 = param(0.95, tune=Choice(0.9, 0.95, 0.99))
    refresh = param(10)
    ridge = param(0.0001)

    def start(self, net, steps):
        self.step = 0
        self.first = [torch.zeros_like(p) for p in net.parameters]  # momentum of the preconditioned steps
        self.second = [torch.zeros_like(p) for p in net.parameters]
        self.left = [w.new_zeros(w.shape[0], w.shape[0]) for w in net.weights]
        self.right = [w.new_zeros(w.shape[1], w.shape[1]) for w in net.weights]

    def update(self, net, batch, factor):
        y, _ = net.forward(batch)
        gradients = net.gradients(y, net.signals(y))
        self.step += 1
        averaged = 1.0 - self.beta2**self.step
        torch._foreach_mul_(self.second, self.beta2)
        torch._foreach_addcmul_(self.second, gradients, gradients, 1.0 - self.beta2)
        moves = torch._foreach_div(self.second, averaged)
        torch._foreach_sqrt_(moves)
        torch._foreach_add_(moves, 1e-8)
        moves = list(torch._foreach_div(gradients, moves))  # Adam's step before momentum: its length is grafted
        for m in range(len(net.weights)):
            moves[m] = self.precondition(m, gradients[m], moves[m])
        torch._foreach_lerp_(self.first, moves, 1.0 - self.beta1)
        torch._foreach_add_(net.parameters, self.first, alpha=-self.lr * factor / (1.0 - self.beta1**self.step))

    def precondition(self, m, gradient, adam):
        """L^(-1/4) G R^(-1/4), rescaled to the length of Adam's step. Roots are scale-free here: grafting removes any factor."""
        self.left[m] = torch.addmm(self.left[m], gradient, gradient.T, beta=self.beta2, alpha=1.0 - self.beta2)
        self.right[m] = torch.addmm(self.right[m], gradient.T, gradient, beta=self.beta2, alpha=1.0 - self.beta2)
        if (self.step - 1) % self.refresh == 0:
            if m == 0:
                self.roots = []
            self.roots.append((inverse_fourth_root(self.left[m], self.ridge), inverse_fourth_root(self.right[m], self.ridge)))
        left, right = self.roots[m]
        move = left @ gradient @ right
        return move * (adam.norm() / (move.norm() + 1e-30))

    def step_flops(self, given):
        pairs = list(zip(given.sizes, given.sizes[1:]))
        sides = sum(4.0 * a * b * (a + b) for a, b in pairs)  # two statistics, two products with the roots
        return back_propagation_flops(given.sizes, given.batch) + sides + ROOT_FLOPS * cubes(given.sizes) / self.refresh

    def flops(self, phase, case, tally):
        found = super().flops(phase, case, tally)
        if found is None:
            return None
        refreshes = -(-self.done // self.refresh)
        unequal = ROOT_FLOPS * cubes(self.net.sizes) * (refreshes - self.done / self.refresh)  # step_flops spreads them evenly
        return Flops(executed=found.executed + unequal)

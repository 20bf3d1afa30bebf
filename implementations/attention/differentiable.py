"""The interface of attention that a network can be trained through: its gradients, and how much room they need. PyTorch."""

from __future__ import annotations

from .task import Attention


class DifferentiableAttention(Attention):
    """`compute` must be differentiable by torch in q, k and v; a method with a backward pass of its own overrides `gradients`.

    `flops` is asked about cases with `backward` set: a forward and a backward pass. See `backward`.
    """

    training = False  # set while `gradients` runs its forward pass

    def gradients(self, q, k, v, g):
        """(out, dq, dk, dv) for the gradient g of the output, all [batch, heads, length, head_dim]. An input that the output
        does not depend on differentiably has a gradient of zeros."""
        import torch

        if g.shape != q.shape:
            raise ValueError(f"the gradient of the output must have the shape of q, {tuple(q.shape)}, not {tuple(g.shape)}")
        leaves = [x.detach().requires_grad_() for x in (q, k, v)]
        self.training = True
        try:
            with torch.enable_grad():
                out = self.attend(*leaves)
            found = torch.autograd.grad(out, leaves, g, allow_unused=True)
        finally:
            self.training = False
        return out.detach(), *(torch.zeros_like(x) if y is None else y for x, y in zip(leaves, found))

    def require(self, size: float, what: str) -> None:
        # What the forward pass keeps has a gradient of its size beside it in the backward pass.
        super().require(2 * size if self.training else size, f"{what} with its gradients" if self.training else what)


def backward(case) -> bool:
    """Whether a call of this case is a forward and a backward pass."""
    return bool(case and case.args.get("backward"))

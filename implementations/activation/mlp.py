"""The feed-forward module of all arms: act(x W1 + b1) W2 + b2, with Top-k or without, and the way to serve it by the skipping kernel."""

from __future__ import annotations

from torch import nn
from torch.nn.functional import gelu, relu

from .skipping import SkippingMLP, top

ACTIVATIONS = {"relu": relu, "gelu": gelu}


class Mlp(nn.Module):
    """(x [n, d], ids) -> [n, d]. `k` above 0 keeps the k largest activations of a token, in training and inference alike."""

    def __init__(self, d: int, width: int, activation: str = "relu", k: int = 0):
        super().__init__()
        if not 0 <= k <= width:
            raise ValueError(f"k={k} must be 0 (no limit) to {width}, the number of neurons")
        self.up, self.down = nn.Linear(d, width), nn.Linear(width, d)
        self.activation, self.k, self.skipping = ACTIVATIONS[activation], k, None

    def hidden(self, x):
        """[n, width]: what W2 sees."""
        a = self.activation(self.up(x))
        return top(a, self.k) if self.k else a

    def forward(self, x, ids=None):
        if self.skipping is not None and not self.training:
            return self.skipping(x)
        return self.down(self.hidden(x))

    def skip_unused(self, run, kernel: str) -> None:
        """From now on inference skips: W2 is stored a second time, neuron by neuron."""
        weights = (
            self.up.weight.detach(),
            self.up.bias.detach(),
            self.down.weight.detach().T.contiguous(),
            self.down.bias.detach(),
        )
        self.skipping = SkippingMLP(*weights, k=self.k, threads=run.threads, kernel_choice=kernel)

"""A small transformer, read in one sitting: encoder, decoder with cross-attention, or causal language model. PyTorch.

Pre-norm residual blocks, learned positions, GELU feed-forward layers, no dropout, no biases in the attention. What sits where the
feed-forward layer does is up to the caller: any module that takes (x [n, d], ids [n]) and returns [n, d].

    Transformer(vocabulary, d, layers, heads, length)                    encoder
    Transformer(..., causal=True)                                        causal language model
    Transformer(..., causal=True, cross=True)                            decoder: forward(ids, memory, memory_mask)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention


class Attention(nn.Module):
    """Multi-head softmax attention of x over `memory`, or over itself."""

    def __init__(self, d: int, heads: int):
        super().__init__()
        if d % heads:
            raise ValueError(f"{heads} heads do not divide the width {d}")
        self.heads = heads
        self.query, self.key_value, self.out = (nn.Linear(d, n, bias=False) for n in (d, 2 * d, d))

    def forward(self, x, memory=None, mask=None, causal=False):
        """x [batch, n, d], memory [batch, m, d], mask True where a key may be seen: [batch, m]."""
        memory = x if memory is None else memory
        q, k, v = (split(y, self.heads) for y in (self.query(x), *self.key_value(memory).chunk(2, -1)))
        mask = None if mask is None else mask[:, None, None, :]
        return self.out(scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal).transpose(1, 2).flatten(2))


def split(x, heads: int):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """gelu(x W1 + b1) W2 + b2; the ids are not looked at."""

    def __init__(self, d: int, width: int):
        super().__init__()
        self.up, self.down = nn.Linear(d, width), nn.Linear(width, d)

    def forward(self, x, ids=None):
        return self.down(gelu(self.up(x)))


class Block(nn.Module):
    def __init__(self, d: int, heads: int, feed_forward: nn.Module, cross: bool = False):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(3 if cross else 2))
        self.attention, self.feed_forward = Attention(d, heads), feed_forward
        self.cross = Attention(d, heads) if cross else None

    def forward(self, x, ids, causal, memory=None, memory_mask=None):
        x = x + self.attention(self.norms[0](x), causal=causal)
        if self.cross is not None:
            x = x + self.cross(self.norms[2](x), memory, memory_mask)
        y = self.norms[1](x)
        return x + self.feed_forward(y.flatten(0, 1), ids.flatten()).view_as(x)


class Transformer(nn.Module):
    """ids int64 [batch, n] -> logits [batch, n, vocabulary]; `encode` stops before the output layer. Seeded by torch's own seed."""

    def __init__(
        self, vocabulary: int, d: int, layers: int, heads: int, length: int, *, width: int = 0, causal: bool = False,
        cross: bool = False, feed_forward: Callable[[int], nn.Module] | None = None,
    ):  # fmt: skip
        super().__init__()
        make = feed_forward or (lambda layer: FeedForward(d, width or 4 * d))
        self.causal, self.length = causal, length
        self.tokens, self.positions = nn.Embedding(vocabulary, d), nn.Embedding(length, d)
        self.blocks = nn.ModuleList(Block(d, heads, make(layer), cross) for layer in range(layers))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, vocabulary, bias=False)
        for table in (self.tokens, self.positions):
            nn.init.normal_(table.weight, std=0.02)

    def encode(self, ids, memory=None, memory_mask=None):
        n = ids.shape[1]
        if n > self.length:
            raise ValueError(f"{n} tokens, and positions for {self.length}")
        x = self.tokens(ids) + self.positions.weight[:n]
        for block in self.blocks:
            x = block(x, ids, self.causal, memory, memory_mask)
        return self.norm(x)

    def forward(self, ids, memory=None, memory_mask=None):
        return self.head(self.encode(ids, memory, memory_mask))


def attention_flops(tokens: float, length: float, d: int) -> float:
    """Forward, self-attention: four projections and the n^2 products (a causal mask is not subtracted)."""
    return 8.0 * tokens * d * d + 4.0 * tokens * length * d


def feed_forward_flops(tokens: float, d: int, width: int) -> float:
    return 4.0 * tokens * d * width


def parameter_count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@torch.no_grad()
def store(net: nn.Module) -> dict:
    """All parameters and buffers as numpy arrays: for `np.savez`, without pickle."""
    return {name: value.detach().float().cpu().numpy() for name, value in net.state_dict().items()}


def restore(net: nn.Module, arrays) -> None:
    net.load_state_dict({name: torch.from_numpy(arrays[name]).to(value.dtype) for name, value in net.state_dict().items()})

"""The shared transformer with keys and values from outside. PyTorch.

Encoder with directions and padding, decoder over cached documents, causal network after a cached prefix. Same parameters and same
function as `Transformer`; what is new is what may be left out of a call, and a fixed bias of all scores of self-attention.
"""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from ..shared.transformer import Transformer, split

UNSEEN = -1e9  # finite, so that a row which sees nothing is no NaN; nobody reads such a row


def directions(heads: int, length: int):
    """Bias [heads, length, length] of attention scores: in pairs of heads, one looks left and one right, ever further.

    The pairs' slopes are 1/2, 1/8, ... a token, 0 for the last of several (ALiBi, Press et al., arXiv 2108.12409, both ways).
    It stands for T5's learned relative positions: with absolute ones alone an encoder did not learn to bind a key to its value,
    and a causal reader of documents predicted text worse than one that had none.
    """
    ahead = torch.arange(length) - torch.arange(length)[:, None]
    made = [torch.where((ahead <= 0) if head % 2 == 0 else (ahead >= 0), 0.0, UNSEEN) for head in range(heads)]
    return torch.stack(made) - slopes(heads) * ahead.abs()


def backwards(heads: int, length: int):
    """The same for causal rows, where both heads of a pair look left: what an encoder is given, a decoder is given too."""
    ahead = torch.arange(length) - torch.arange(length)[:, None]
    return torch.where(ahead <= 0, slopes(heads) * ahead, UNSEEN)


def slopes(heads: int):
    """[heads, 1, 1]"""
    last = (heads - 1) // 2
    pairs = [head // 2 for head in range(heads)]
    return torch.tensor([0.0 if pair and pair == last else 0.5 ** (1 + 2 * pair) for pair in pairs])[:, None, None]


def causal(net: Transformer, heads: int) -> Transformer:
    """`net` with the bias that `decode` and `advance` add to the scores of its self-attention."""
    net.register_buffer("bias", backwards(heads, net.length), persistent=False)
    return net


def encode(net: Transformer, ids, mask=None, marks=None):
    """Tokens [b, t] -> [b, t, d], positions from 0, `net.bias` from `directions`; `mask` [b, t] is False at padding.

    `marks` [t, d] is added to the tokens: what a token is there for.
    """
    t = ids.shape[1]
    bias = net.bias[None, :, :t, :t]
    if mask is not None:
        bias = bias.masked_fill(~mask[:, None, None, :], UNSEEN)
    x = net.tokens(ids) + net.positions.weight[:t]
    if marks is not None:
        x = x + marks
    for block in net.blocks:
        y, attention = block.norms[0](x), block.attention
        q, k, v = (split(z, attention.heads) for z in (attention.query(y), *attention.key_value(y).chunk(2, -1)))
        x = x + attention.out(scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2))
        x = x + block.feed_forward(block.norms[1](x))
    return net.norm(x)


def project(net: Transformer, hidden):
    """Keys and values of every decoder layer for hidden [..., t, d]: a list of (key, value)."""
    return [block.cross.key_value(hidden).chunk(2, -1) for block in net.blocks]


def decode(net: Transformer, ids, pairs, mask=None):
    """Tokens [b, n] -> logits [b, n, vocabulary]; `pairs` gives (key, value), each [b, m, d], for each layer; mask [b, m]."""
    mask, n = None if mask is None else mask[:, None, None, :], ids.shape[1]
    bias = net.bias[None, :, :n, :n]
    x = net.tokens(ids) + net.positions.weight[:n]
    for block, (key, value) in zip(net.blocks, pairs):
        y, attention = block.norms[0](x), block.attention
        q, k, v = (split(z, attention.heads) for z in (attention.query(y), *attention.key_value(y).chunk(2, -1)))
        x = x + attention.out(scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2))
        q, k, v = (split(y, block.cross.heads) for y in (block.cross.query(block.norms[2](x)), key, value))
        x = x + block.cross.out(scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))
        x = x + block.feed_forward(block.norms[1](x))
    return net.head(net.norm(x))


def advance(net: Transformer, ids, start: int, append, *, answer: bool):
    """Causal rows at places start, start + 1, ... [b, t] after `start` earlier ones.

    `append(layer, key, value)` keeps the rows' own and returns all keys and values so far, each [b, start + t, d]. Returns logits,
    or None without `answer`: then the last layer is left as soon as its keys and values are there.
    """
    t = ids.shape[1]
    x = net.tokens(ids) + net.positions.weight[start : start + t]
    bias = net.bias[None, :, start : start + t, : start + t]
    for layer, block in enumerate(net.blocks):
        y, attention = block.norms[0](x), block.attention
        key, value = append(layer, *attention.key_value(y).chunk(2, -1))
        if layer == len(net.blocks) - 1 and not answer:
            return None
        q, k, v = (split(z, attention.heads) for z in (attention.query(y), key, value))
        z = scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = x + attention.out(z.transpose(1, 2).flatten(2))
        x = x + block.feed_forward(block.norms[1](x))
    return net.head(net.norm(x))


def in_list(pairs: list):
    """Appends to a list of (key, value) a layer, by concatenation: for training."""

    def append(layer, key, value):
        if layer == len(pairs):
            pairs.append((key, value))
        else:
            pairs[layer] = tuple(torch.cat((old, new), 1) for old, new in zip(pairs[layer], (key, value)))
        return pairs[layer]

    return append


def in_place(slots, start: int):
    """Appends by writing into slots [layers, 2, b, at least start + t, d]: nothing that is cached is copied again."""

    def append(layer, key, value):
        end = start + key.shape[1]
        slots[layer, 0, :, start:end], slots[layer, 1, :, start:end] = key, value
        return slots[layer, 0, :, :end], slots[layer, 1, :, :end]

    return append


def state(net) -> tuple:
    """Changes with every update of the parameters in place: what a cache was computed from."""
    return tuple(parameter._version for parameter in net.parameters())

"""The shared transformer with keys and values from outside: encoder with padding, decoder over cached documents, causal prefix. PyTorch.

Same parameters and same function as `Transformer.encode` and `Transformer.forward`; what is new is what may be left out of a call.
"""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from ..shared.transformer import Transformer, split


def encode(net: Transformer, ids, mask=None):
    """Tokens [b, t] -> [b, t, d], bidirectional, positions from 0. `mask` [b, t] is False at padding, which nobody then reads."""
    if mask is not None:
        mask = mask.clone()
        mask[:, 0] = True  # of a document without a token, which is masked where it would be read
    x = net.tokens(ids) + net.positions.weight[: ids.shape[1]]
    for block in net.blocks:
        x = x + block.attention(block.norms[0](x), mask=mask)
        x = x + block.feed_forward(block.norms[1](x))
    return net.norm(x)


def project(net: Transformer, hidden):
    """Keys and values of every decoder layer for hidden [..., t, d]: a list of (key, value)."""
    return [block.cross.key_value(hidden).chunk(2, -1) for block in net.blocks]


def decode(net: Transformer, ids, pairs, mask=None):
    """Tokens [b, n] -> logits [b, n, vocabulary]; `pairs` gives (key, value), each [b, m, d], for each layer; mask [b, m]."""
    mask = None if mask is None else mask[:, None, None, :]
    x = net.tokens(ids) + net.positions.weight[: ids.shape[1]]
    for block, (key, value) in zip(net.blocks, pairs):
        x = x + block.attention(block.norms[0](x), causal=True)
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
    mask = None
    if start and t > 1:
        mask = torch.ones(t, start + t, dtype=torch.bool, device=ids.device).tril(start)
    for layer, block in enumerate(net.blocks):
        y, attention = block.norms[0](x), block.attention
        key, value = append(layer, *attention.key_value(y).chunk(2, -1))
        if layer == len(net.blocks) - 1 and not answer:
            return None
        q, k, v = (split(z, attention.heads) for z in (attention.query(y), key, value))
        z = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=start == 0)
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

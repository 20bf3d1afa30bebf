"""Bytes that the operations of one call must move: inputs read once, outputs written once. PyTorch, CPU and CUDA alike.

That is the least that memory or a cache has to give, not what a counter of the hardware would see: a product that reads its inputs in
blocks reads them more than once, and what fits a cache does not come from memory. Views move nothing, numbers that a stride of zero
repeats count once, and of a table that is indexed only the rows that come out. What a compiled kernel does inside (Triton) is not seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

# They overwrite their first argument.
UNREAD = {"copy_", "fill_", "zero_", "normal_", "uniform_", "random_", "exponential_", "bernoulli_"}
INDEXED = {"index", "index_select", "gather", "embedding", "take"}


def moved(call: Callable[[Any], Any], batch: Any) -> dict[str, float]:
    """{"aten::bmm": bytes, ...} of one call. Operations that move nothing are left out."""
    from torch.utils._python_dispatch import TorchDispatchMode

    found: Counter[str] = Counter()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if size := touched(func, (args, kwargs or {}), out):
                found[func.name().partition(".")[0]] += size
            return out

    with Watch():
        call(batch)
    return dict(found)


def touched(func: Any, given: tuple[tuple, dict], out: Any) -> int:
    """Bytes that one operation reads and writes. `func` is an overload of torch's, `given` its (args, kwargs)."""
    name = func.name().partition("::")[2].partition(".")[0]
    if func.is_view or name.startswith(("empty", "new_empty")) or name in ("detach", "alias"):
        return 0
    args, kwargs = given
    read, written = tensors((args[1:] if name in UNREAD else args, kwargs)), tensors(out)
    if written and not func._schema.is_mutable and {place(x) for x in written} <= {place(x) for x in read}:
        return 0  # a view that torch does not call one, as `_unsafe_view`
    if name in INDEXED:
        rows = sum(map(size, written))
        return 2 * rows + sum(
            size(tensor) for tensor in read if not tensor.is_floating_point() and tensor.data_ptr() != place(args[0])
        )
    return sum(map(size, read)) + sum(map(size, written))


def place(value: Any) -> int:
    return value.data_ptr() if hasattr(value, "data_ptr") else 0


def tensors(tree: Any) -> list:
    """The tensors of nested arguments, each once."""
    import torch
    from torch.utils._pytree import tree_leaves

    found = {}
    for leaf in tree_leaves(tree):
        if isinstance(leaf, torch.Tensor):
            found.setdefault((leaf.data_ptr(), leaf.shape, leaf.stride(), leaf.dtype), leaf)
    return list(found.values())


def size(tensor: Any) -> int:
    count = tensor.element_size()
    for length, stride in zip(tensor.shape, tensor.stride()):
        count *= length if stride else min(length, 1)
    return count

"""Counts the FLOPs of a torch call: a dispatch mode over torch's own table of formulas, with the corrections of flops_torch_ops.

Known limits: a Triton or CUDA kernel launched outside the dispatcher, a replayed CUDA graph, and numpy or a foreign library called
on the side leave no trace (where nothing at all was seen, `executed` is None rather than 0); a fused encoder layer is counted by its slow path, which also multiplies padded tokens; iterative factorisations are nominal.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from . import formulas as f
from .flops import Counted, Ledger
from .flops_torch_ops import FREE, OTHER, OTHER_PREFIXES, REAL_ALREADY, formulas

COUNTER = "torch-flop-counter"


def count_torch(call: Callable, *args: Any) -> Counted:
    """Run `call(*args)` once and count every operation that passes the dispatcher, backward passes included."""
    ledger = Ledger()
    with _as_written(), _Counting(ledger) as mode:
        call(*args)
    if not mode.seen:
        return Counted(
            None, counter=COUNTER, reason="no operation passed torch's dispatcher (a replayed graph or foreign code): formula only"
        )
    return ledger.counted(COUNTER)


@contextlib.contextmanager
def _as_written() -> Iterator[None]:
    """Compiled graphs and the fused encoder hide their operations from the dispatcher: run eagerly and unfused."""
    with contextlib.ExitStack() as stack:
        # Importing dynamo takes two seconds; where nobody has, nothing is compiled.
        if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        mha = getattr(torch.backends, "mha", None)
        if mha is not None and mha.get_fastpath_enabled():
            mha.set_fastpath_enabled(False)
            stack.callback(mha.set_fastpath_enabled, True)
        yield


class _Counting(TorchDispatchMode):
    supports_higher_order_operators = True

    def __init__(self, ledger: Ledger):
        super().__init__()
        self.ledger = ledger
        self.ours = formulas()
        self.seen = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self.seen += 1
        if any(_unwraps(kind) for kind in types):
            return NotImplemented  # a quantised or sparse wrapper: let it unfold into the operations that really run
        if not isinstance(func, torch._ops.OpOverload):
            return self._higher_order(func, args, kwargs)
        packet = func.overloadpacket
        known = self._ours(packet) is not None or packet in flop_registry
        if not known and func.namespace == "aten":
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        self._book(func, packet, args, kwargs, out)
        return out

    def _ours(self, packet):
        """Our formula for an operation, or for the one that it does in place (`addmm_`)."""
        if packet not in self.ours and packet.__name__.endswith("_"):
            self.ours[packet] = self.ours.get(getattr(torch.ops.aten, packet.__name__.rstrip("_"), None))
        return self.ours.get(packet)

    def _higher_order(self, func, args, kwargs):
        out = func(*args, **kwargs)
        if func in flop_registry:
            self.ledger.work(str(func), flop_registry[func](*args, **kwargs, out_val=out))
        else:
            self.ledger.miss(str(func))
        return out

    def _book(self, func, packet, args, kwargs, out) -> None:
        name = packet.__name__
        formula = self._ours(packet)
        if formula is not None:
            tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
            complex_numbers = name not in REAL_ALREADY and any(x.is_complex() for x in tensors)
            self.ledger.work(str(packet), formula(out, *args, **kwargs) * (f.COMPLEX if complex_numbers else 1))
        elif packet in flop_registry:
            self.ledger.work(str(packet), flop_registry[packet](*args, **kwargs, out_val=out))
        elif func.namespace in ("prim", "prims", "profiler") or func.is_view or name in FREE:
            pass
        elif _is_other(func, name):
            self.ledger.touch(str(packet), _elements(args, kwargs, out))
        else:
            self.ledger.miss(str(packet))


def _unwraps(kind: type) -> bool:
    return kind is not torch.Tensor and kind.__torch_dispatch__ is not torch._C._disabled_torch_dispatch_impl


def _is_other(func, name: str) -> bool:
    tags = set(func.tags)
    if name.endswith("_"):  # many operations carry their tag only out of place
        twin = getattr(torch.ops.aten, name.rstrip("_"), None)
        tags |= set(getattr(twin, func._overloadname, func).tags) if twin is not None else set()
    if torch.Tag.pointwise in tags or (hasattr(torch.Tag, "reduction") and torch.Tag.reduction in tags):
        return True
    stem = name.removesuffix("_backward").removesuffix("_dense")
    return (
        name in OTHER or stem in OTHER or name.rstrip("_") in OTHER or stem + "_forward" in OTHER or name.startswith(OTHER_PREFIXES)
    )


def _elements(args, kwargs, out) -> int:
    """The larger of what goes in and what comes out; lists of tensors (optimisers) are summed, not maximised."""

    def size(value) -> int:
        return sum(leaf.numel() for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor))

    return max([size(out), *(size(arg) for arg in args), *(size(arg) for arg in kwargs.values())], default=0)

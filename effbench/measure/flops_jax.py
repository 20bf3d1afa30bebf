"""Counts the FLOPs of a jax call by walking its jaxpr, before any compiler looks at it; XLA's own answer stands beside it.

XLA counts the body of a scan once and changes with its version, so it is the second opinion only. Here a scan's body counts once
for each step. A `while` whose trip count is not in the program is reported as uncounted, with the work of one pass left out.
Branches of a `cond` that differ count as the largest and are reported. Zeros that a strided transposed convolution inserts are
not counted (kernels skip them); zero padding is. Triton and Pallas kernels, callbacks and foreign calls are reported as uncounted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np

from .flops import Counted, Ledger
from .flops_jax_ops import FORMULAS, FREE, OPAQUE, OTHER, OTHER_PREFIXES
from .formulas import COMPLEX

COUNTER, EAGER = "jaxpr", "jax-eager"


def count_jax(call: Callable, *args: Any, xla: bool = True) -> Counted:
    """Trace `call(*args)`; arrays among the leaves of `args` are abstract, everything else keeps its value.

    A call that needs concrete values (it looks at a result in Python) cannot be traced. It is then run once without jit and its
    operations are counted as they happen (counter "jax-eager"): loops by the steps they take, dead code included.
    """
    import jax

    leaves, tree = jax.tree_util.tree_flatten(args)
    dynamic = [i for i, leaf in enumerate(leaves) if isinstance(leaf, (jax.Array, np.ndarray))]

    def pure(*arrays):
        filled = list(leaves)
        for place, array in zip(dynamic, arrays):
            filled[place] = array
        out = call(*jax.tree_util.tree_unflatten(tree, filled))
        return [leaf for leaf in jax.tree_util.tree_leaves(out) if isinstance(leaf, (jax.Array, np.ndarray))]

    arrays = [leaves[i] for i in dynamic]
    try:
        closed = jax.make_jaxpr(pure)(*arrays)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
        return _count_eagerly(jax, call, args)
    ledger = Ledger()
    _walk(_alive(closed.jaxpr), ledger)
    estimate = _xla_flops(jax, pure, arrays) if xla else None
    return ledger.counted(COUNTER, second={} if estimate is None else {"xla": estimate})


def _alive(jaxpr):
    """Without equations whose results nobody uses: a gradient leaves them behind, and no compiler runs them."""
    try:
        from jax.interpreters.partial_eval import dce_jaxpr
    except ImportError:
        return jaxpr
    return dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)[0]


def _xla_flops(jax, pure, arrays) -> float | None:
    """XLA's count before compilation; None where it gives none (it says -1 for some programs)."""
    try:
        cost = jax.jit(pure).lower(*arrays).cost_analysis()
    except Exception:  # a second opinion never costs the first
        return None
    return read_cost(cost, "flops")


def read_cost(cost: Any, key: str) -> float | None:
    """A figure out of `cost_analysis()`, which is a dict or a list of one dict by version; negative means unknown."""
    if isinstance(cost, (list, tuple)):
        cost = cost[0] if cost else None
    value = cost.get(key) if isinstance(cost, dict) else None
    return None if value is None or not value >= 0 else float(value)


def _count_eagerly(jax, call: Callable, args: tuple) -> Counted:
    ledger = Ledger()
    try:
        hook = _watching(ledger)
    except (ImportError, AttributeError):
        return Counted(None, counter=EAGER, reason="the call needs concrete values and this jax cannot be watched: formula only")
    with jax.disable_jit(), hook:
        call(*args)
    return ledger.counted(EAGER)


def _watching(ledger: Ledger) -> contextlib.AbstractContextManager:
    """Books every primitive that jax evaluates. jax has no public place for this; AttributeError where the private one is gone."""
    from jax._src import core

    original = core.EvalTrace.process_primitive

    def watched(self, primitive, args, params, /):
        out = original(self, primitive, args, params)
        outs = out if primitive.multiple_results else [out]
        variables = [
            [
                SimpleNamespace(
                    aval=SimpleNamespace(shape=np.shape(x), dtype=x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype)
                )
                for x in group
            ]
            for group in (args, outs)
        ]
        _book(SimpleNamespace(primitive=primitive, params=params, invars=variables[0], outvars=variables[1]), ledger)
        return out

    @contextlib.contextmanager
    def patched() -> Iterator[None]:
        core.EvalTrace.process_primitive = watched
        try:
            yield
        finally:
            core.EvalTrace.process_primitive = original

    return patched()


def _walk(jaxpr, ledger: Ledger) -> None:
    for eqn in jaxpr.eqns:
        _book(eqn, ledger)


def _book(eqn, ledger: Ledger) -> None:
    name = eqn.primitive.name
    if name in _CONTROL:
        _CONTROL[name](eqn, ledger)
    elif name in FORMULAS:
        complex_numbers = name != "fft" and any(np.issubdtype(v.aval.dtype, np.complexfloating) for v in eqn.invars)
        flops = FORMULAS[name](eqn, *(tuple(v.aval.shape) for v in eqn.invars))
        if flops is None:
            ledger.miss(name)
        else:
            ledger.work(name, flops * (COMPLEX if complex_numbers else 1))
    elif name in FREE:
        return
    elif name in OTHER or name.startswith(OTHER_PREFIXES):
        ledger.touch(name, max(_numel(eqn.invars), _numel(eqn.outvars)))
    elif name in OPAQUE:
        ledger.miss(name)
    else:
        inner = list(_inner(eqn.params.values()))
        if not inner:
            ledger.miss(name)
        for body in inner:
            _walk(body, ledger)


def _numel(variables) -> int:
    return max((prod(getattr(v.aval, "shape", ())) for v in variables), default=0)


def _inner(values: Iterable) -> Iterable:
    """Jaxprs among an equation's parameters: open, closed, or in a tuple of them."""
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _inner(value)
        elif hasattr(value, "eqns"):
            yield value
        elif hasattr(value, "jaxpr") and hasattr(value.jaxpr, "eqns"):
            yield value.jaxpr


def _sub(closed) -> Ledger:
    ledger = Ledger()
    _walk(getattr(closed, "jaxpr", closed), ledger)
    return ledger


def _scan(eqn, ledger: Ledger) -> None:
    ledger.merge(_sub(eqn.params["jaxpr"]), eqn.params["length"])


def _while(eqn, ledger: Ledger) -> None:
    one = _sub(eqn.params["body_jaxpr"])
    one.merge(_sub(eqn.params["cond_jaxpr"]))
    if one.executed() or one.uncounted:
        ledger.miss(f"while (trip count unknown; {one.executed():.6g} FLOP a pass)")
    else:
        for name, elements in one.elementwise.items():
            ledger.touch(f"while, one pass: {name}", elements)


def _cond(eqn, ledger: Ledger) -> None:
    branches = [_sub(branch) for branch in eqn.params["branches"]]
    largest = max(branches, key=Ledger.executed)
    ledger.merge(largest)
    if len({branch.executed() for branch in branches}) > 1:
        ledger.miss("cond (branches differ; the largest is counted)")


def _linear_solve(eqn, ledger: Ledger) -> None:
    ledger.merge(_sub(eqn.params["jaxprs"].solve))  # the other three serve differentiation and do not run


def _shard_map(eqn, ledger: Ledger) -> None:
    size = getattr(eqn.params.get("mesh"), "size", 1) or 1
    for body in _inner([eqn.params["jaxpr"]]):
        ledger.merge(_sub(body), size)  # the body is what one shard does


_CONTROL = {
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "custom_linear_solve": _linear_solve,
    "shard_map": _shard_map,
}

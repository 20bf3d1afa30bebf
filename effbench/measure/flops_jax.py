"""Counts the FLOPs of a jax call by walking its jaxpr, before any compiler looks at it; XLA's own answer stands beside it.

XLA counts the body of a scan once and changes with its version, so it is the second opinion only. Here a scan's body counts once
for each step. A `while` whose trip count is not in the program is reported as uncounted, with the work of one pass left out.
Branches of a `cond` that differ count as the largest and are reported. Zeros that a strided transposed convolution inserts are
not counted (kernels skip them); zero padding is. Triton and Pallas kernels, callbacks and foreign calls are reported as uncounted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod
from typing import Any

import numpy as np

from . import formulas as f
from .flops import Counted, Ledger

COUNTER = "jaxpr"


def count_jax(call: Callable, *args: Any, xla: bool = True) -> Counted:
    """Trace `call(*args)`; arrays among the leaves of `args` are abstract, everything else keeps its value.

    A call that needs concrete values (it turns results into numpy or Python numbers) cannot be traced: `executed` is None.
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
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        reason = f"the call needs concrete values and cannot be traced ({type(error).__name__}): formula only"
        return Counted(None, counter=COUNTER, reason=reason)
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


def _walk(jaxpr, ledger: Ledger) -> None:
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name in _CONTROL:
            _CONTROL[name](eqn, ledger)
        elif name in _FORMULAS:
            complex_numbers = name != "fft" and any(np.issubdtype(v.aval.dtype, np.complexfloating) for v in eqn.invars)
            flops = _FORMULAS[name](eqn, *(tuple(v.aval.shape) for v in eqn.invars))
            if flops is None:
                ledger.miss(name)
            else:
                ledger.work(name, flops * (f.COMPLEX if complex_numbers else 1))
        elif name in FREE:
            continue
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


def _dot_general(eqn, a, b, *_):
    (contracted, _b), _batch = eqn.params["dimension_numbers"]
    return 2.0 * prod(eqn.outvars[0].aval.shape) * prod(a[d] for d in contracted)


def _conv(eqn, lhs, rhs, *_):
    p, out = eqn.params, eqn.outvars[0].aval.shape
    features = rhs[p["dimension_numbers"].rhs_spec[0]]
    if prod(p["lhs_dilation"]) > 1:
        batch, channels = (lhs[d] for d in p["dimension_numbers"].lhs_spec[:2])
        return 2.0 * prod(lhs) / channels * prod(rhs) / p["batch_group_count"] if batch else 0.0
    return 2.0 * prod(out) * prod(rhs) / max(features, 1)


def _ragged(eqn, a, b, *_):
    """[m, k] with groups of [g, k, n]: every row meets one group."""
    return f.matmul(a[0], a[1], b[2]) if len(a) == 2 and len(b) == 3 else None


def _fft(eqn, shape, *_):
    kind, lengths, out = str(eqn.params["fft_type"]).upper(), eqn.params["fft_lengths"], eqn.outvars[0].aval.shape
    dims = range(len(shape) - len(lengths), len(shape))
    if "IRFFT" in kind or kind.endswith("3"):
        return f.real_fft(out, shape, dims)
    return f.real_fft(shape, out, dims) if "RFFT" in kind or kind.endswith("2") else f.fft(shape, dims)


def _batched(per_matrix: Callable) -> Callable:
    return lambda eqn, a, *_: prod(a[:-2]) * per_matrix(*a[-2:])


def _triangular(eqn, a, b):
    return prod(b) * a[-1]


def _householder(eqn, a, taus, *_):
    return prod(a[:-2]) * f.form_q(a[-2], a[-1], taus[-1])


def _svd(eqn, a, *_):
    return prod(a[:-2]) * f.svd(*a[-2:], eqn.params.get("compute_uv", True))


_CONTROL = {
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "custom_linear_solve": _linear_solve,
    "shard_map": _shard_map,
}
_FORMULAS = {
    "dot_general": _dot_general,
    "conv_general_dilated": _conv,
    "ragged_dot": _ragged,
    "ragged_dot_general": _ragged,
    "fft": _fft,
    "cholesky": _batched(lambda m, n: f.cholesky(n)),
    "lu": _batched(f.lu),
    "geqrf": _batched(f.qr),
    "qr": _batched(lambda m, n: f.qr(m, n) + f.form_q(m, min(m, n), min(m, n))),
    "householder_product": _householder,
    "triangular_solve": _triangular,
    "eigh": _batched(lambda m, n: f.eigh(n, True)),
    "eig": _batched(lambda m, n: f.eig(n, True)),
    "svd": _svd,
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPAQUE = _words("""
    pallas_call tpu_custom_call custom_call ffi_call pure_callback io_callback debug_callback custom_partitioning run_state
    schur hessenberg tridiagonal tridiagonal_solve xla_pmap
""")
FREE = _words("""
    broadcast_in_dim reshape transpose squeeze expand_dims convert_element_type bitcast_convert_type slice concatenate pad
    iota copy device_put stop_gradient split dynamic_slice dynamic_update_slice rev create_token after_all empty
    optimization_barrier sharding_constraint layout_constraint random_wrap random_unwrap random_seed pvary reduce_precision
    name broadcast full lu_pivots_to_permutation mesh_cast reshard debug_print real imag complex axis_index copy_start
    copy_done
""")
OTHER = _words("""
    add add_any sub mul div rem neg sign abs max min pow integer_pow exp exp2 expm1 log log1p sqrt rsqrt cbrt square sin cos
    tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh logistic erf erfc erf_inv lgamma digamma polygamma igamma
    igammac bessel_i0e bessel_i1e regularized_incomplete_beta floor ceil round is_finite nextafter conj clamp select_n and or
    xor not eq ne lt le gt ge eq_to le_to lt_to population_count clz shift_left shift_right_logical shift_right_arithmetic
    mulhi argmax argmin sort top_k approx_top_k gather cumsum cumprod cummax cummin cumlogsumexp select_and_scatter_add
    select_and_gather_add random_bits random_fold_in random_split random_clone random_gamma random_gamma_grad threefry2x32
    rng_bit_generator rng_uniform psum pmax pmin all_gather all_to_all reduce_scatter ppermute reduce psum_invariant psum2
    all_gather_invariant scatter
""")
OTHER_PREFIXES = ("reduce_", "scatter-", "scatter_", "igamma_grad")

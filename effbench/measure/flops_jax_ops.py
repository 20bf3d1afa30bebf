"""FLOP formulas of jax primitives, and the lists of those that are not matmul-like.

A formula gets the equation and the shapes of its inputs; it answers None where it cannot tell.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from . import formulas as f


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


FORMULAS = {
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

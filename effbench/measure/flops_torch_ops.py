"""FLOP formulas for torch operations that torch's own counter misses or gets wrong, and the lists of what is not matmul-like.

`formulas()` looks operations up by name and leaves out those that this torch does not have, so there is no version number here.
A formula gets the operation's real arguments and its result: `formula(result, *args, **kwargs) -> FLOPs`.

Decisions: FFTs and dense factorisations are executed work. `torch.outer` is an element-wise multiply for torch, hence other work,
while `addr` is a rank-one update and counts 2 m n. A sparse product counts its stored values only. Embedding bags are look-ups.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch

from . import formulas as f


def _stored(tensor) -> int:
    """Values that a sparse tensor stores, explicit zeros included."""
    return (tensor._values() if tensor.layout is torch.sparse_coo else tensor.values()).numel()


def _product(a, b) -> float:
    """Matrix with matrix or vector, batched or not; either may be sparse (the result of sparse times sparse is not known: dense)."""
    rows = a.shape[-2] if a.dim() > 1 else 1
    columns = b.shape[-1] if b.dim() > a.dim() - 1 and b.dim() > 1 else 1
    if a.layout is not torch.strided and b.layout is torch.strided:
        return 2.0 * _stored(a) * columns
    if b.layout is not torch.strided and a.layout is torch.strided:
        return 2.0 * _stored(b) * rows
    return f.matmul(rows, a.shape[-1], columns, prod(a.shape[:-2]))


def _two(out, /, a, b, *rest, **_):
    return _product(a, b)


def _three(out, /, bias, a, b, *rest, **_):
    return _product(a, b)


def _by_output(out, /, x, *rest, **_):
    """A linear layer whose weight is packed: every input number meets every output feature."""
    return 2.0 * x.numel() * out.shape[-1]


def _grouped(out, /, a, b, *rest, **_):
    if a.dim() == 3 and b.dim() == 3:
        return f.matmul(a.shape[1], a.shape[2], b.shape[2], a.shape[0])
    return f.matmul(a.shape[-2], a.shape[-1], b.shape[-1])  # groups share the dimension that is two-dimensional


def _conv(out, /, x, weight, bias, stride, padding, dilation, transposed, *rest, **_):
    return f.convolution(x.shape[0], (x if transposed else out).shape[2:], weight.shape)


def _plain_conv(out, /, x, weight, *rest, **_):
    return f.convolution(x.shape[0], out.shape[2:], weight.shape)


def _transposed_conv(out, /, x, weight, *rest, **_):
    return f.convolution(x.shape[0], x.shape[2:], weight.shape)


def _conv_backward(out, /, grad, x, weight, bias, stride, padding, dilation, transposed, output_padding, groups, mask, **_):
    return (mask[0] + mask[1]) * f.convolution(x.shape[0], (x if transposed else grad).shape[2:], weight.shape)


def _packed_conv(out, /, x, packed, *rest, **_):
    return f.convolution(x.shape[0], out.shape[2:], packed.unpack()[0].shape)


def _attention(out, /, q, k, v, *rest, **_):
    return f.attention(q.shape, k.shape, v.shape)


def _attention_backward(out, /, grad, q, k, v, *rest, **_):
    return f.attention_backward(q.shape, k.shape, v.shape)


def _rnn(passes: int) -> Callable:
    def formula(out, /, x, first, second=None, *rest, **_):
        weights = list(first) if isinstance(first, (list, tuple)) else [first, second]
        rows = x.numel() // x.shape[-1]  # time steps times batch, also where sequences are packed
        return passes * 2.0 * rows * sum(w.numel() for w in weights if w.dim() == 2)

    return formula


def _fft_complex(out, /, x, dims, *rest, **_):
    return f.fft(x.shape, dims)


def _fft_to_complex(out, /, x, dims, *rest, **_):
    return f.real_fft(x.shape, out.shape, dims)


def _fft_to_real(out, /, x, dims, *rest, **_):
    return f.real_fft(out.shape, x.shape, dims)


def _square(per_matrix: Callable[[int], float]) -> Callable:
    return lambda out, /, a, *rest, **_: prod(a.shape[:-2]) * per_matrix(a.shape[-1])


def _columns(b, n: int) -> float:
    return b.numel() / max(n, 1)


def _solve(out, /, a, b, *rest, **_):
    n, batch = a.shape[-1], prod(a.shape[:-2])
    return batch * f.lu(n, n) + 2.0 * n * n * _columns(out[0] if isinstance(out, (tuple, list)) else out, n)


def _substitutions(count: int, matrix: int) -> Callable:
    """`count` triangular solves; `matrix` says which argument is the matrix, the result has the shape of the right-hand side."""

    def formula(out, /, *args, **_):
        n = args[matrix].shape[-1]
        return count * n * n * _columns(out, n)

    return formula


def _qr(out, /, a, mode="reduced", *rest, **_):
    m, n = a.shape[-2:]
    k = min(m, n)
    form = {"r": 0.0, "reduced": f.form_q(m, k, k), "complete": f.form_q(m, m, k)}[mode]
    return prod(a.shape[:-2]) * (f.qr(m, n) + form)


def _lstsq(out, /, a, b, *rest, **_):
    return prod(a.shape[:-2]) * f.least_squares(*a.shape[-2:], b.shape[-1] if b.dim() == a.dim() else 1)


def _svd(out, /, a, full_matrices=False, compute_uv=True, *rest, **_):
    return prod(a.shape[:-2]) * f.svd(*a.shape[-2:], compute_uv)


def _eigh(out, /, a, UPLO="L", compute_v=True, **_):
    return prod(a.shape[:-2]) * f.eigh(a.shape[-1], compute_v)


def _cdist(first: int) -> Callable:
    def formula(out, /, *args, **_):
        a, b = args[first], args[first + 1]
        return prod(a.shape[:-2]) * f.distances(a.shape[-2], b.shape[-2], a.shape[-1])

    return formula


def _euclidean(out, /, a, b, **_):
    return f.matmul(a.shape[-2], a.shape[-1] + 2, b.shape[-2], prod(a.shape[:-2]))  # torch appends the norms as two columns


def _pdist(out, /, a, *rest, **_):
    return f.distances(out.numel(), 1, a.shape[-1])


def _sampled(out, /, bias, a, b, **_):
    return 2.0 * _stored(bias) * a.shape[-1]


def _half_dense(out, /, *args, **_):
    """2:4 sparse weights: half of the multiply-adds of the dense product really run."""
    dense = [a for a in args if isinstance(a, torch.Tensor) and a.dim() == 2][-1]
    return 1.0 * out.numel() * dense.shape[0]


TABLE: dict[str, Callable] = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot", "_int_mm", "_sparse_mm", "_scaled_mm", "_scaled_mm_v2", "hspmm"), _two),
    **dict.fromkeys(("addmm", "baddbmm", "addbmm", "addmv", "_sparse_addmm", "_addmm_activation", "sspaddmm"), _three),
    "addr": lambda out, /, *rest, **_: 2.0 * out.numel(),
    "sparse_sampled_addmm": _sampled,
    **dict.fromkeys(("_grouped_mm", "_scaled_grouped_mm", "_scaled_grouped_mm_v2"), _grouped),
    **dict.fromkeys(("_weight_int8pack_mm", "_weight_int4pack_mm", "_weight_int4pack_mm_for_cpu"), _by_output),
    **dict.fromkeys(
        ("_weight_int4pack_mm_with_scales_and_zeros", "_dyn_quant_matmul_4bit", "mkldnn_linear", "_mixed_dtypes_linear"), _by_output
    ),
    **dict.fromkeys(("_sparse_semi_structured_mm", "_sparse_semi_structured_addmm", "_cslt_sparse_mm"), _half_dense),
    **dict.fromkeys(("convolution", "_convolution", "convolution_overrideable"), _conv),
    **dict.fromkeys(("cudnn_convolution", "mkldnn_convolution", "cudnn_convolution_relu", "_slow_conv2d_forward"), _plain_conv),
    **dict.fromkeys(("_conv_depthwise2d", "conv_depthwise3d", "slow_conv3d_forward", "thnn_conv2d"), _plain_conv),
    **dict.fromkeys(("cudnn_convolution_add_relu", "slow_conv_dilated2d", "slow_conv_dilated3d"), _plain_conv),
    **dict.fromkeys(("cudnn_convolution_transpose", "slow_conv_transpose2d", "slow_conv_transpose3d"), _transposed_conv),
    "convolution_backward": _conv_backward,
    **dict.fromkeys(("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention"), _attention),
    **dict.fromkeys(("_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention"), _attention),
    "_scaled_dot_product_fused_attention_overrideable": _attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
    "_scaled_dot_product_flash_attention_backward": _attention_backward,
    "_scaled_dot_product_efficient_attention_backward": _attention_backward,
    "_scaled_dot_product_cudnn_attention_backward": _attention_backward,
    **dict.fromkeys(("mkldnn_rnn_layer", "_cudnn_rnn"), _rnn(1)),
    **dict.fromkeys(("mkldnn_rnn_layer_backward", "_cudnn_rnn_backward"), _rnn(2)),  # gradients of inputs and of weights
    "_fft_c2c": _fft_complex,
    "_fft_r2c": _fft_to_complex,
    "_fft_c2r": _fft_to_real,
    **dict.fromkeys(("linalg_cholesky_ex", "cholesky"), _square(f.cholesky)),
    "linalg_inv_ex": _square(f.inverse),
    "cholesky_inverse": _square(f.cholesky_inverse),
    **dict.fromkeys(("_linalg_det", "_linalg_slogdet"), _square(lambda n: f.lu(n, n))),
    **dict.fromkeys(
        ("linalg_lu_factor_ex", "linalg_lu", "_lu_with_info"), lambda out, /, a, *r, **_: prod(a.shape[:-2]) * f.lu(*a.shape[-2:])
    ),
    "_linalg_solve_ex": _solve,
    "linalg_solve_triangular": _substitutions(1, 0),
    "cholesky_solve": _substitutions(2, 1),
    "linalg_lu_solve": _substitutions(2, 0),
    "linalg_qr": _qr,
    "geqrf": lambda out, /, a, *rest, **_: prod(a.shape[:-2]) * f.qr(*a.shape[-2:]),
    "linalg_householder_product": lambda out, /, a, tau, **_: prod(a.shape[:-2]) * f.form_q(*a.shape[-2:], tau.shape[-1]),
    "linalg_lstsq": _lstsq,
    "_linalg_svd": _svd,
    "_linalg_eigh": _eigh,
    "linalg_eig": _square(lambda n: f.eig(n, True)),
    **dict.fromkeys(("linalg_eigvals", "_linalg_eigvals"), _square(lambda n: f.eig(n, False))),
    "_cdist_forward": _cdist(0),
    "_cdist_backward": _cdist(1),
    "_euclidean_dist": _euclidean,
    "_pdist_forward": _pdist,
}
PACKED: dict[str, Callable] = {
    **dict.fromkeys(
        ("quantized.linear", "quantized.linear_relu", "quantized.linear_dynamic", "quantized.linear_relu_dynamic"), _by_output
    ),
    **dict.fromkeys(("quantized.linear_dynamic_fp16", "mkldnn._linear_pointwise", "onednn.qlinear_pointwise"), _by_output),
    **{f"quantized.conv{d}d{tail}": _packed_conv for d in (1, 2, 3) for tail in ("", "_relu")},
}
REAL_ALREADY = ("_fft_c2c", "_fft_r2c", "_fft_c2r")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# No arithmetic: memory is made, moved or looked at.
FREE = _words("""
    empty empty_like empty_strided new_empty new_empty_strided zeros zeros_like new_zeros ones ones_like new_ones full
    full_like new_full scalar_tensor lift lift_fresh lift_fresh_copy clone copy copy_ _to_copy _unsafe_view _reshape_alias
    _reshape_copy cat stack split unsafe_split unsafe_split_with_sizes unsafe_chunk _pin_memory _local_scalar_dense
    is_same_size set_ resize_ _linalg_check_errors _assert_async _fused_sdp_choice equal item detach_ zero_ fill_ fill
    tril_indices triu_indices eye arange linspace _efficientzerotensor sym_size sym_numel sym_stride slice_scatter
    select_scatter as_strided_scatter constant_pad_nd roll flip repeat tril triu tril_ triu_ unfold_backward select_backward
    slice_backward index_copy index_copy_ _to_sparse _to_dense _to_sparse_csr _coalesced_ to_mkldnn _mkldnn_reshape
    _sparse_coo_tensor_with_dims_and_tensors _nested_tensor_from_mask _values _indices values indices crow_indices col_indices
    _nnz sparse_dim dense_dim is_coalesced _is_any_true record_stream _conj_physical alias unsqueeze_ squeeze_ transpose_ t_
    as_strided_ _cudnn_init_dropout_state _cudnn_rnn_flatten_weight diag_embed block_diag as_strided_copy view_copy
    expand_copy permute_copy complex resize resize_as resize_as_ _resize_output_ to_padded_tensor channel_shuffle is_pinned
    empty_permuted _chunk_cat _has_same_storage_numel _convert_weight_to_int4pack _convert_weight_to_int4pack_for_cpu
    _cslt_compress _print _stack diagonal_scatter rot90 zero set _pack_padded_sequence lu_unpack
""")
# Reductions, normalisations, look-ups, comparisons and random numbers that carry no "pointwise" or "reduction" tag.
OTHER = _words("""
    sum mean prod amax amin max min argmax argmin all any var std var_mean std_mean norm linalg_vector_norm logsumexp cumsum
    cumprod cummax cummin _cummax_helper _cummin_helper logcumsumexp nansum aminmax median nanmedian mode kthvalue
    count_nonzero _softmax _log_softmax _softmax_backward_data _log_softmax_backward_data _safe_softmax native_layer_norm
    native_group_norm native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training _batch_norm_with_update
    cudnn_batch_norm _batch_norm_no_update batch_norm_stats batch_norm_elemt _fused_rms_norm _fused_dropout native_dropout
    renorm batch_norm_backward nll_loss_forward nll_loss2d_forward topk sort argsort searchsorted bucketize unique_dim _unique
    _unique2 unique_consecutive nonzero bincount histc index index_put index_put_ _index_put_impl _unsafe_index
    _unsafe_index_put index_add index_add_ index_select index_fill index_fill_ gather scatter scatter_ scatter_add
    scatter_add_ scatter_reduce scatter_reduce_ masked_select masked_scatter take put put_ embedding embedding_renorm_
    _embedding_bag _embedding_bag_forward_only segment_reduce max_pool2d_with_indices max_pool3d_with_indices avg_pool2d
    avg_pool3d adaptive_max_pool2d _adaptive_avg_pool2d _adaptive_avg_pool3d mkldnn_max_pool2d upsample_nearest1d
    upsample_nearest2d upsample_bilinear2d upsample_bicubic2d grid_sampler_2d reflection_pad1d reflection_pad2d
    replication_pad2d im2col col2im pixel_shuffle pixel_unshuffle cross linalg_cross trace diff repeat_interleave rand
    rand_like randn randn_like randint randint_like randperm uniform normal normal_ uniform_ bernoulli bernoulli_ multinomial
    exponential_ geometric_ cauchy_ log_normal_ random_ random_from_to poisson _ctc_loss _thnn_fused_lstm_cell
    _thnn_fused_gru_cell _thnn_fused_lstm_cell_backward_impl _thnn_fused_gru_cell_backward quantize_per_tensor
    quantize_per_tensor_dynamic quantize_per_channel dequantize fake_quantize_per_tensor_affine_cachemask
    fake_quantize_per_channel_affine_cachemask _make_per_tensor_quantized_tensor _choose_qparams_per_tensor glu isin isclose
    _amp_foreach_non_finite_check_and_unscale_ _fused_moving_avg_obs_fq_helper _prelu_kernel rrelu_with_noise mse_loss
    binary_cross_entropy binary_cross_entropy_with_logits huber_loss smooth_l1_loss soft_margin_loss multi_margin_loss
    multilabel_margin_loss_forward histogramdd floor_divide masked_fill dist grid_sampler_3d index_reduce log_sigmoid_forward
    native_norm polar histogram frexp binomial _standard_gamma _sample_dirichlet _masked_softmax _weight_norm_interface
    adaptive_max_pool3d fractional_max_pool2d max_unpool2d max_unpool3d _coalesce _coalesced _is_all_true allclose
    _masked_scale _add_relu _unsafe_masked_index _transform_bias_rescale_qkv exponential geometric cauchy log_normal random
    lcm gcd heaviside xlogy _assert_scalar unfold popcount
""")
OTHER_PREFIXES = (
    "_foreach_",
    "_fused_adam",
    "_fused_sgd",
    "_fused_adagrad",
    "_fused_rms",
    "special_",
    "bitwise_",
    "upsample_",
    "_upsample_",
    "reflection_pad",
    "replication_pad",
    "fake_quantize_",
    "_fake_quantize_",
)


def formulas() -> dict:
    """Operation -> formula, for those that this torch has."""
    found = {}
    for full, formula in {**{f"aten.{name}": g for name, g in TABLE.items()}, **PACKED}.items():
        space, name = full.split(".")
        packet = getattr(getattr(torch.ops, space), name, None)
        if packet is not None:
            found[packet] = formula
    return found

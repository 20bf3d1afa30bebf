"""Serving without capacity: assignments sorted by expert, one grouped product over ragged rows, rows added up token by token.

After MegaBlocks (Gale et al., arXiv 2211.15841), with PyTorch's grouped product in place of block-sparse ones. Nothing is padded
and nothing dropped. The offsets stay on the device: no call waits for the host, so a call can be captured as a CUDA graph.
Training keeps its buffers of fixed capacity (routing.py).
"""

from __future__ import annotations

import torch
from torch.nn.functional import gelu

KERNELS = ("auto", "padded", "grouped")
BYTES = {"float32": 4, "bfloat16": 2}


def refusal(dtype: str, device: str, d: int, width: int) -> str:
    """Why the grouped product does not run, or "". Rows must be multiples of 16 bytes long; the number of rows is free."""
    if not hasattr(torch.nn.functional, "grouped_mm"):
        return f"torch {torch.__version__} has no grouped_mm"
    if dtype not in BYTES:
        return f"grouped products are for float32 and bfloat16, not {dtype}"
    step = 16 // BYTES[dtype]
    if d % step or width % step:
        return f"grouped products in {dtype} need widths divisible by {step}, not d={d}, width={width}"
    if device == "cuda" and (dtype != "bfloat16" or torch.cuda.get_device_capability() < (9, 0)):
        return f"in {dtype} on this GPU torch's grouped product runs one expert after another and waits for the host"
    return ""


def chosen(kernel: str, run, d: int, width: int) -> bool:
    """Whether a served call runs grouped. ValueError where `kernel` demands what cannot be."""
    if kernel not in KERNELS:
        raise ValueError(f"kernel='{kernel}' must be one of {', '.join(KERNELS)}")
    reason = "" if kernel == "padded" else refusal(run.dtype, run.device, d, width)
    if kernel == "grouped" and reason:
        raise ValueError(reason)
    return kernel != "padded" and not reason


def two_best(logits):
    """float32 [n, experts] -> the two best experts int16 [n, 2] and their chances, divided by their sum: float32 [n, 2]."""
    if logits.is_cuda and not torch.is_grad_enabled():
        from . import combine_triton

        return combine_triton.choose(logits)
    best, expert = logits.topk(2, -1)
    return expert.to(torch.int16), torch.softmax(best, -1)


def serve(x, expert, weight, experts):
    """sum_j weight[t, j] f_expert[t, j](x[t]): [n, d]. expert [n, k] integers, weight float32 [n, k] or None for 1."""
    n, k = expert.shape
    ends, token, place = by_expert(expert, len(experts.up))
    y = products(x.index_select(0, token), ends, experts)
    if weight is None and k == 1:
        return y.index_select(0, place)
    return combine(y, place, weight.flatten(), n, each=k)


def by_expert(expert, count: int):
    """expert integers [n, k] -> ends int32 [count], token and place [n k]: row i, sorted by expert, is token[i]; assignment j is row place[j]."""
    expert = expert.to(torch.int16)
    if expert.is_cuda and count <= 256:
        from . import counting_triton

        return counting_triton.by_expert(expert, count)
    # Short keys: a radix sort passes over them twice, not eight times.
    ranked, order = expert.flatten().sort(stable=True)
    edges = torch.arange(count, dtype=torch.int16, device=expert.device)
    ends = torch.searchsorted(ranked, edges, right=True, out_int32=True)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=expert.device))
    return ends, order // expert.shape[1], place


def products(rows, ends, experts):
    """gelu(rows W1) W2, rows sorted by expert; ends int32 [experts]: where each expert's rows end."""
    grouped_mm = torch.nn.functional.grouped_mm
    return grouped_mm(gelu(grouped_mm(rows, experts.up, offs=ends)), experts.down, offs=ends)


def combine(y, row, weight, n: int, each: int = 0, start=None):
    """out[t] = sum_i weight[i] y[row[i]], in float32 at least; i runs over `each` a token, or start[t] to start[t + 1]."""
    if y.is_cuda and not torch.is_grad_enabled():  # the kernels know no gradients
        from . import combine_triton

        return combine_triton.combine(y, row, weight, n, each, start)
    wide = torch.promote_types(y.dtype, torch.float32)
    parts = y.index_select(0, row).to(wide) * weight[:, None].to(wide)
    if each:
        return parts.view(n, each, y.shape[1]).sum(1).to(y.dtype)
    counts = start.diff()
    token = torch.repeat_interleave(torch.arange(n, device=y.device), counts, output_size=len(row))
    return torch.zeros(n, y.shape[1], dtype=wide, device=y.device).index_add_(0, token, parts).to(y.dtype)


def by_token(token, n: int):
    """token [rows] -> (row, start): the rows of token t are row[start[t] : start[t + 1]]."""
    key = token.to(torch.int16) if n <= 2**15 else token.to(torch.int32)
    ranked, row = key.sort(stable=True)
    return row, torch.searchsorted(ranked.to(torch.int32), torch.arange(n + 1, dtype=torch.int32, device=token.device))

"""torch on the CPU and on CUDA."""

from __future__ import annotations

import numpy
import torch

from .numpy_backend import tree_map

_device = "cpu"


def put(array, device: str):
    global _device
    _device = device
    tensor = torch.from_numpy(numpy.array(array))  # a copy: methods may write into what they are lent
    return tensor.to(device) if device != "cpu" else tensor


def _leaf(value):
    if isinstance(value, torch.Tensor):
        value = value.detach()
        if value.dtype in (torch.bfloat16, torch.float16):
            value = value.float()
        return value.cpu().numpy()
    return numpy.asarray(value)


def to_numpy(value):
    return tree_map(_leaf, value)


def synchronise(value=None) -> None:
    if _device == "cuda":
        torch.cuda.synchronize()


def available(device: str) -> str:
    global _device
    if device == "cpu":
        return ""
    if device != "cuda":
        return f"torch is not set up for '{device}' here"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    _device = device
    return ""


def pin_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)


def device_reset() -> None:
    if _device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()


def device_peak() -> tuple[int | None, str]:
    if _device != "cuda":
        return None, "no device memory on the CPU"
    return torch.cuda.max_memory_allocated(), ""


def release() -> None:
    """Give back device memory that is kept for the next call: other workers hold theirs on the same device."""
    if _device == "cuda":
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and ("can't allocate memory" in str(error) or "not enough memory" in str(error))


def seed(value: int) -> None:
    torch.manual_seed(value)
    numpy.random.seed(value % 2**32)


def compile_seconds() -> float | None:
    """Seconds this process has spent compiling so far; None where the framework does not tell."""
    return None

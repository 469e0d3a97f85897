"""What the algorithms that are Triton kernels share: where they run, tiles, launches.

Nothing here imports Triton before a kernel runs.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from lambda_seq.functional.problem import Sizes

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
KEYS, VALUES = 64, 128  # most that K and V may be: what a program holds in registers and shared memory
LIMIT = 2**31 - 2**16  # int32, and a few tiles
CAPABILITY = (8, 0)  # of a CUDA device, at least: what the kernels are compiled for in the tests
# Of the compiler: loads one iteration ahead; products and sums in one rounding, as ever (its default is to change)
OPTIONS = {"num_stages": 2, "enable_fp_fusion": True}
PROGRAMS = 512  # of a kernel whose programs share a sum: enough for the largest GPU, few enough to add up


def interpreted() -> bool:
    """Whether Triton is told to run kernels on the CPU, step by step: for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def applies(s: Sizes, device: torch.device, dtype: torch.dtype) -> str | None:
    """`supports` of all kernels: why they do not apply, None where they may."""
    if device.type != "cuda" and not (device.type == "cpu" and interpreted()):
        return f"it runs on CUDA devices, not on {device}"
    if dtype not in DTYPES:
        return f"it computes in {', '.join(map(str, DTYPES))}, not in {dtype}"
    if s.K > KEYS or s.V > VALUES:
        return f"it is for k up to {KEYS} and v up to {VALUES}, not {s.K} and {s.V}"
    if max(s.X * s.H, 2 * s.X, s.U * s.K * s.RY * s.RX) >= LIMIT:
        return (
            "it is for less than 2^30 positions and 2^31 queries in a row and 2^31 numbers in an embedding, "
            f"not {s.X}, {s.X * s.H} and {s.U * s.K * s.RY * s.RX}"
        )
    if device.type == "cpu" or torch.cuda.is_available():  # not where a plan is made for a device that is elsewhere
        return missing(device.type, device.index)
    return None


@lru_cache
def missing(kind: str, index: int | None) -> str | None:
    """What the kernels need and this machine has not."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed; run pip install triton"
    if kind == "cuda" and torch.version.cuda and torch.cuda.get_device_capability(index) < CAPABILITY:
        needed, found = (".".join(map(str, x)) for x in (CAPABILITY, torch.cuda.get_device_capability(index)))
        return f"it needs a device of compute capability {needed}, not {found}"
    return None


def power_of_two(least: int, *others: int) -> int:
    """The smallest power of two that is none of these smaller than."""
    return 1 << (max((least, *others)) - 1).bit_length()


def pairs(length: int, scope: int, origin: int) -> int:
    """Pairs of positions of a row, or of rows of an image, whose offset is in the scope: Σ_d (length − |d|)."""
    before, after = origin, scope - 1 - origin
    return scope * length - before * (before + 1) // 2 - after * (after + 1) // 2


def shares(programs: int, tiles: int) -> tuple[int, int]:
    """Parts that tiles are cut into, and tiles of a part, for so many programs in each part."""
    parts = max(1, min(tiles, -(-PROGRAMS // programs)))
    share = -(-tiles // parts)
    return -(-tiles // share), share


def operands(dtype: torch.dtype) -> Any:
    """Triton's dtype of the operands of products, for tensors of a dtype."""
    import triton.language as tl

    if dtype == torch.float32 or (interpreted() and dtype == torch.bfloat16):  # NumPy multiplies no bfloat16
        return tl.float32
    return tl.float16 if dtype == torch.float16 else tl.bfloat16


def launch(kernel: Any, programs: int, tensors: Sequence[Tensor], numbers: Sequence[int], **constants: Any) -> None:
    """Run a kernel on the tensors' device.

    Args:
        kernel: of `triton.jit`.
        programs: how many of it.
        tensors, numbers, constants: its arguments, but for `DOT`, the dtype of operands of products; and `num_warps`.
    """
    with torch.cuda.device_of(tensors[0]):
        kernel[(programs,)](*tensors, *numbers, DOT=operands(tensors[0].dtype), **constants, **OPTIONS)

"""Section machine: the device, its software, and the limits that everything else is seen against."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from benchmarks.recording import Record
from benchmarks.reporting import Table, number

from gpu.running import Part, Section, Settings
from gpu.timing import fastest, kernels

SMI = ("name", "driver_version", "power.limit", "clocks.max.sm", "clocks.max.mem")


def cells(settings: Settings) -> list[Record]:
    """Software, copies of several sizes, products in several dtypes."""
    sizes = settings.sized((2**22, 2**26, 2**30), (2**16,))  # bytes that are moved
    found: list[Record] = [{"what": "software"}, *({"what": "copy", "bytes": size} for size in sizes)]
    dtypes = ("bfloat16", "float16", "float32", "float64") if settings.device == "cuda" else ("float32",)
    return found + [{"what": "product", "dtype": dtype, "side": settings.sized(8192, 64)} for dtype in dtypes]


def run(key: Record, settings: Settings) -> Record:
    """One of them."""
    device = settings.device
    if key["what"] == "software":
        return software(device)
    if key["what"] == "copy":
        source = torch.ones(key["bytes"] // 2, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        copy = lambda: target.copy_(source)  # noqa: E731
        alone = kernels(copy, device, settings.patience)
        return {"rate": key["bytes"] / (fastest(copy, device, settings.patience) if alone is None else alone)}
    dtype, side = getattr(torch, key["dtype"]), key["side"]
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    result = torch.empty_like(left)
    taken = fastest(lambda: torch.mm(left, right, out=result), device, settings.patience)
    return {"rate": side**3 / taken}  # multiply-adds


def software(device: str) -> Record:
    """Names and versions."""
    found: dict[str, Any] = {"torch": torch.__version__}
    try:
        import triton

        found["triton"] = triton.__version__
    except ImportError:
        found["triton"] = "not installed"
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "device": properties.name,
            "devices": torch.cuda.device_count(),
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory": f"{properties.total_memory / 2**30:.1f} GiB",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "nccl": ".".join(map(str, torch.cuda.nccl.version())) if dist.is_nccl_available() else "not there",
            "float32 products": torch.get_float32_matmul_precision(),
            **smi(),
        }
    return {"software": {name: str(value) for name, value in found.items()}}


def smi() -> dict[str, str]:
    """What nvidia-smi says of the first GPU; nothing where there is no such command."""
    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={','.join(SMI)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return {}
    values = [value.strip() for value in done.stdout.strip().split(",")]
    return dict(zip((name.replace("_", " ") for name in SMI), values, strict=False)) if len(values) == len(SMI) else {}


def copy_rate(records: Sequence[Record]) -> float | None:
    """Bytes a second of the largest copy."""
    rates = [(one["key"]["bytes"], one["rate"]) for one in records if one["key"]["what"] == "copy" and "rate" in one]
    return max(rates)[1] if rates else None


def product_rates(records: Sequence[Record]) -> dict[str, float]:
    """Multiply-adds a second by dtype."""
    return {one["key"]["dtype"]: one["rate"] for one in records if one["key"]["what"] == "product" and "rate" in one}


def parts(records: Sequence[Record], settings: Settings) -> Iterator[Part]:
    """A table of names, and one of limits."""
    for one in records:
        if "software" in one:
            yield Table("Device and software", ("", "found"), tuple(one["software"].items()))
    rows = [
        (f"copy, {one['key']['bytes'] / 2**20:g} MiB moved", f"{one['rate'] / 1e9:,.0f} GB/s")
        for one in records
        if one["key"]["what"] == "copy" and "rate" in one
    ]
    rows += [
        (f"matrix product, {dtype}", f"{number(2 * rate / 1e12)} TFLOP/s")
        for dtype, rate in product_rates(records).items()
    ]
    yield Table("Limits", ("", "measured"), tuple(rows))


SECTION = Section("machine", "Machine", 15, cells, run, parts)

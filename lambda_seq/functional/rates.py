"""How fast a machine is at the six things that the cost model counts, measured once and cached."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Rates:
    """Speeds per second, of one device and dtype."""

    products: float  # multiply-adds of matrix products
    streamed: float  # numbers through cache
    transforms: float  # operations of FFTs
    convolutions: float  # multiply-adds of convolutions of one channel
    convolution_gradients: float  # the same, backward
    calls: float  # torch operations


# Where nothing was calibrated. CPU: two cores of an AMD EPYC with AVX2, float32, fitted to the times of all algorithms
# over a grid of 71 shapes; `scripts/benchmark.py plan --full --fit` fits anew. CUDA: not measured yet;
# the order of magnitude of a data centre GPU.
DEFAULTS = {
    "cpu": Rates(77e9, 9.3e9, 48e9, 53e9, 14.6e9, 110e3),
    "cuda": Rates(10e12, 300e9, 2e12, 2e12, 1e12, 100e3),
}

# What `_probe` gave on that CPU. A probe is one call in a loop, the fit is whole algorithms: their ratio carries over.
PROBED = Rates(63.6e9, 10.7e9, 25e9, 44e9, 6.2e9, 230e3)

_measured: dict[str, Rates] | None = None


def rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """The rates of a device: what `calibrate` measured on this machine, or the defaults."""
    global _measured
    if _measured is None:
        _measured = _load()
    return _measured.get(_name(device, dtype)) or DEFAULTS.get(device.type, DEFAULTS["cpu"])


def cache_file() -> Path:
    """Where calibrations are kept: `$LAMBDA_SEQ_CACHE`, else `~/.cache/lambda_seq`, file `rates.json`."""
    folder = os.environ.get("LAMBDA_SEQ_CACHE") or Path.home() / ".cache" / "lambda_seq"
    return Path(folder) / "rates.json"


def calibrate(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Rates:
    """Measure this machine, so that `plan` and `algorithm="auto"` choose by its own speeds; takes seconds.

    The result is used at once, and cached in `cache_file()` for later processes, per device, dtype and thread count.

    Raises:
        ValueError: the device does not exist.
    """
    global _measured
    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={str(device)!r}: no CUDA device was found; use device='cpu'")
    probed = _probe(device, dtype)
    measured = Rates(
        **{
            field.name: getattr(probed, field.name) * getattr(DEFAULTS["cpu"], field.name) / getattr(PROBED, field.name)
            for field in fields(Rates)
        }
    )
    known = {**_load(), _name(device, dtype): measured}
    file = cache_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    # Written beside and renamed, so that a kill leaves the old file or the new one.
    beside = file.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps({name: asdict(entry) for name, entry in known.items()}, indent=1))
    beside.replace(file)
    _measured = known
    return measured


def _name(device: torch.device, dtype: torch.dtype) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {dtype}"
    return f"{device.type}, {torch.get_num_threads()} threads, {dtype}"


def _load() -> dict[str, Rates]:
    """Cached calibrations; a file that cannot be read counts as none, as it can be measured again."""
    try:
        entries = json.loads(cache_file().read_text())
        wanted = {field.name for field in fields(Rates)}
        return {name: Rates(**entry) for name, entry in entries.items() if set(entry) == wanted}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _probe(device: torch.device, dtype: torch.dtype) -> Rates:
    low = device.type == "cpu" and dtype in (torch.bfloat16, torch.float16)
    narrow = torch.float32 if low else dtype  # what the algorithms compute products in there
    wide = torch.promote_types(dtype, torch.float32)

    def randn(*size: int, dtype: torch.dtype) -> Tensor:
        return torch.randn(*size, device=device, dtype=dtype)

    a, b = randn(16, 128, 160, dtype=narrow), randn(16, 160, 64, dtype=narrow)
    x, y, z = (randn(2**18, dtype=narrow) for _ in range(3))
    signal = randn(16, 2**14, dtype=wide)
    spectrum = torch.fft.rfft(signal)
    image, kernel = randn(64, 1, 62, 62, dtype=wide), randn(16, 1, 7, 7, dtype=wide)
    grad = F.conv2d(image, kernel)
    tiny = randn(1, dtype=narrow)
    products = a.numel() * b.shape[-1]
    convolved = grad.numel() * kernel[0].numel()

    def convolution_gradient() -> None:
        torch.ops.aten.convolution_backward(
            grad, image, kernel, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False]
        )

    return Rates(
        products=products / _seconds(lambda: torch.bmm(a, b), device),
        streamed=3 * x.numel() / _seconds(lambda: torch.add(x, y, out=z), device),
        transforms=2.5 * signal.numel() * 14 / _seconds(lambda: torch.fft.irfft(spectrum), device),
        convolutions=convolved / _seconds(lambda: F.conv2d(image, kernel), device),
        convolution_gradients=2 * convolved / _seconds(convolution_gradient, device),
        calls=1 / _seconds(lambda: tiny.add_(1), device),
    )


def _seconds(run: Callable[[], object], device: torch.device, repeats: int = 15) -> float:
    """Median time of one run."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]

"""How fast a machine is at the six things that the cost model counts, measured once and cached."""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

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

# What `_probe` gave on that CPU. A probe is one call in a loop, the fit is whole algorithms: on a CPU, their ratio
# carries over. Devices that no fit has been made for are taken by their probe.
PROBED = {"cpu": Rates(63.6e9, 10.7e9, 25e9, 44e9, 6.2e9, 230e3)}

_measured: dict[str, Rates] | None = None


def rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """The rates of a device: what `calibrate` measured on this machine, or the defaults."""
    global _measured
    if _measured is None:
        _measured = _load()
    return _measured.get(name_of(device, dtype)) or DEFAULTS.get(device.type, DEFAULTS["cpu"])


def cache_file() -> Path:
    """Where calibrations are kept: `$LAMBDA_SEQ_CACHE`, else `~/.cache/lambda_seq`, file `rates.json`."""
    folder = os.environ.get("LAMBDA_SEQ_CACHE") or Path.home() / ".cache" / "lambda_seq"
    return Path(folder) / "rates.json"


def guessed(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the rates of a device are neither measured there nor fitted to a device of its type."""
    return device.type not in PROBED and rates(device, dtype) is DEFAULTS.get(device.type, DEFAULTS["cpu"])


def measure(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Rates:
    """Measure this machine; `calibration.calibrate` documents it."""
    global _measured
    try:
        device = torch.device(device)
        torch.get_device_module(device)  # the meta device has none
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device={device!r}: expected a device of this machine; use 'cpu' or 'cuda'") from error
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype={dtype!r}: expected a floating point dtype, torch.float32 for example")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={str(device)!r}: no CUDA device was found; use device='cpu'")
    measured = _probe(device, dtype)
    if device.type in PROBED:
        fitted, probed = DEFAULTS[device.type], PROBED[device.type]
        names = (field.name for field in fields(Rates))
        measured = Rates(
            **{name: getattr(measured, name) * getattr(fitted, name) / getattr(probed, name) for name in names}
        )
    known = {**_read()[0], name_of(device, dtype): measured}
    file = cache_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    # Written beside and renamed, so that a kill leaves the old file or the new one.
    beside = file.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps({name: asdict(entry) for name, entry in known.items()}, indent=1))
    beside.replace(file)
    _measured = known
    return measured


def name_of(device: torch.device, dtype: torch.dtype) -> str:
    """What measurements of a device and dtype are filed under."""
    if device.type == "cuda" and not torch.cuda.is_available():
        return f"no CUDA device, {dtype}"  # a plan for one that is elsewhere
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {dtype}"
    return f"{device.type}, {torch.get_num_threads()} threads, {dtype}"


def _load() -> dict[str, Rates]:
    """Cached calibrations. What cannot be read counts as none, with a warning, as it can be measured again."""
    known, fault = _read()
    if fault:
        warnings.warn(
            f"{cache_file()} holds speeds that cannot be used ({fault}); they are ignored, and algorithm='auto' "
            "chooses by others: delete the file, or measure again by lambda_seq.functional.calibrate()",
            stacklevel=2,
        )
    return known


def _read() -> tuple[dict[str, Rates], str]:
    """Calibrations by name, and what is wrong with others, in words; "" where nothing is."""
    try:
        entries = json.loads(cache_file().read_text())
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError) as error:  # unreadable, no text, no JSON
        return {}, str(error) or type(error).__name__
    if not isinstance(entries, dict):
        return {}, f"a {type(entries).__name__} for a table of devices"
    known, fault = {}, ""
    for name, entry in entries.items():
        wrong = _fault(entry)
        fault = fault or (f"{name!r}: {wrong}" if wrong else "")
        if not wrong:
            known[name] = Rates(**entry)
    return known, fault


def _fault(entry: Any) -> str:
    """What is wrong with the speeds of a device, "" if nothing is."""
    wanted = [field.name for field in fields(Rates)]
    if not isinstance(entry, dict) or set(entry) != set(wanted):
        return f"expected {', '.join(wanted)}"
    for name, rate in entry.items():
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < math.inf:
            return f"{name} is {rate!r}, expected a number above 0"
    return ""


def _probe(device: torch.device, dtype: torch.dtype) -> Rates:
    low = device.type == "cpu" and dtype in (torch.bfloat16, torch.float16)
    narrow = torch.float32 if low else dtype  # what the algorithms compute products in there
    wide = torch.promote_types(dtype, torch.float32)

    def randn(*size: int, dtype: torch.dtype) -> Tensor:
        return torch.randn(*size, device=device, dtype=dtype)

    # Enough to do for a GPU, whose calls would take longer than their work otherwise
    many = 1 if device.type == "cpu" else 64
    a, b = randn(16 * many, 128, 160, dtype=narrow), randn(16 * many, 160, 64, dtype=narrow)
    x, y, z = (randn(2**18 * many, dtype=narrow) for _ in range(3))
    signal = randn(16 * many, 2**14, dtype=wide)
    spectrum = torch.fft.rfft(signal)
    image, kernel = randn(64 * many, 1, 62, 62, dtype=wide), randn(16, 1, 7, 7, dtype=wide)
    grad = F.conv2d(image, kernel)
    tiny = randn(1, dtype=narrow)
    products = a.numel() * b.shape[-1]
    convolved = grad.numel() * kernel[0].numel()

    def convolution_gradient() -> None:
        torch.ops.aten.convolution_backward(
            grad, image, kernel, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False]
        )

    return Rates(
        products=products / seconds(lambda: torch.bmm(a, b), device),
        streamed=3 * x.numel() / seconds(lambda: torch.add(x, y, out=z), device),
        transforms=2.5 * signal.numel() * 14 / seconds(lambda: torch.fft.irfft(spectrum), device),
        convolutions=convolved / seconds(lambda: F.conv2d(image, kernel), device),
        convolution_gradients=2 * convolved / seconds(convolution_gradient, device),
        calls=1 / seconds(lambda: tiny.add_(1), device),
    )


def seconds(run: Callable[[], object], device: torch.device, repeats: int = 15) -> float:
    """Median time of one run. Those of a GPU are timed ten at once, as calls that wait for results do not overlap."""
    wait: Callable[[], object] = (lambda: None) if device.type == "cpu" else torch.get_device_module(device).synchronize
    count = 1 if device.type == "cpu" else 10
    times = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        for _ in range(count):
            run()
        wait()
        times.append((time.perf_counter() - start) / count)
    return sorted(times)[repeats // 2]

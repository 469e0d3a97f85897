"""`calibrate`: how fast this machine is, and which kernels are right on it; measured once and cached.

Most algorithms are calls of torch, right wherever torch is, and as fast as its operations. Kernels that are compiled
for a device are not `trusted`: each is run against the definition there, and timed, before "auto" takes it.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lambda_seq import __version__
from lambda_seq.functional import rates, reference
from lambda_seq.functional.position.registry import REGISTRY, Algorithm
from lambda_seq.functional.problem import origin, sized


@dataclass(frozen=True)
class Trial:
    """What came of trying a kernel on a device.

    Attributes:
        fault: why it is not to be used; "" where it computes what it should.
        slowness: measured over predicted time, forward and backward; how the plan corrects what it predicts.
    """

    fault: str
    slowness: tuple[float, float] = (1.0, 1.0)


class Shape(NamedTuple):
    """Sizes of a problem, the letters of `problem.Sizes`; the embedding is centred."""

    B: int
    H: int
    U: int
    K: int
    V: int
    Y: int
    X: int
    RY: int
    RX: int


# No powers of two, an image among them, scopes wider than the input, more values than one tile
RIGHT = (
    Shape(2, 3, 1, 16, 20, 1, 203, 1, 31),
    Shape(1, 4, 2, 5, 9, 11, 13, 5, 27),
    Shape(1, 1, 1, 24, 64, 1, 300, 1, 63),
)
FAST = Shape(4, 4, 1, 16, 64, 1, 16384, 1, 63)  # enough to do for a large GPU
EXACT = 1e-5  # relative error that float32 may have; half precision may have twice the definition's

_tried: dict[str, dict[str, Trial]] | None = None


def calibrate(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> rates.Rates:
    """Measure this machine, so that `plan` and `algorithm="auto"` choose by its own speeds; takes seconds.

    On other devices than the CPU it also runs the kernels that are made for them, "triton_weights" for example, against
    the definition in this dtype; "auto" takes those that are right, from then on. One that is not right is named in a
    warning, and in the plan.

    The result is used at once, and cached in `rates.cache_file()` and beside it for later processes, per device, dtype
    and thread count; for kernels per version of torch and of this library, too.

    Raises:
        TypeError: dtype is no floating point dtype of torch.
        ValueError: the device does not exist.
    """
    measured = rates.measure(device, dtype)
    device = torch.device(device)
    if device.type != "cpu":
        found = {}
        for name, algorithm in REGISTRY.items():
            trial = None if algorithm.trusted else try_out(algorithm, device, dtype, measured)
            if trial is not None:
                found[name] = trial
                if trial.fault:
                    warnings.warn(
                        f"algorithm={name!r} is not used on {rates.name_of(device, dtype)}: {trial.fault}", stacklevel=2
                    )
        _keep(device, dtype, found)
    return measured


def not_used(algorithm: Algorithm, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why "auto" does not take an algorithm on a device where it applies; None where it may."""
    if algorithm.trusted:
        return None
    if device.type == "cpu":
        return "kernels are for GPUs; on a CPU they are run to be tested"
    trial = tried(device, dtype).get(algorithm.name)
    if trial is None:
        return (
            f"not calibrated on this device; run lambda_seq.functional.calibrate({str(device)!r}, {dtype}), "
            "which checks and times it"
        )
    return f"it failed when it was tried on this device: {trial.fault}" if trial.fault else None


def kernels(device: torch.device, dtype: torch.dtype) -> dict[str, tuple[float, float]]:
    """Slowness of the kernels that "auto" may take on a device, by the name of the algorithm."""
    if device.type == "cpu":
        return {}
    return {name: trial.slowness for name, trial in tried(device, dtype).items() if not trial.fault}


def tried(device: torch.device, dtype: torch.dtype) -> dict[str, Trial]:
    """The trials of kernels on a device, by the name of the algorithm."""
    global _tried
    if _tried is None:
        _tried, fault = _read()
        if fault:
            warnings.warn(
                f"{cache_file()} holds trials of kernels that cannot be used ({fault}); they count as none: delete the "
                "file, or try again by lambda_seq.functional.calibrate(device)",
                stacklevel=2,
            )
    return _tried.get(_name(device, dtype), {}) if _tried else {}


def try_out(algorithm: Algorithm, device: torch.device, dtype: torch.dtype, speed: rates.Rates) -> Trial | None:
    """Run a kernel against the definition, and time it; None where it applies to nothing that it could be tried by."""
    shapes = [shape for shape in RIGHT if algorithm.supports(_sizes(shape), device, dtype) is None]
    if not shapes:
        return None
    try:
        for shape in shapes:
            fault = _wrong(algorithm, shape, device, dtype)
            if fault:
                return Trial(fault)
        return Trial("", _slowness(algorithm, device, dtype, speed))
    except Exception as error:  # whatever a compiler or a driver may raise
        return Trial(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")


def cache_file() -> Path:
    """Where trials are kept: beside the rates, file `kernels.json`."""
    return rates.cache_file().with_name("kernels.json")


def _sizes(shape: Shape) -> Any:
    query, value, embedding, _ = _tensors(shape, torch.device("meta"), torch.float32)
    return sized(query, value, embedding, origin((shape.RY, shape.RX), False))[1]


def _tensors(s: Shape, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query, value, embedding and gradient of the output."""
    generator = None if device.type == "meta" else torch.Generator(device).manual_seed(0)

    def randn(*size: int) -> Tensor:
        return torch.randn(*size, device=device, dtype=dtype, generator=generator)

    query, value = randn(s.B, s.H, s.Y, s.X, s.K), randn(s.B, s.U, s.Y, s.X, s.V)
    return query, value, randn(s.U, s.K, s.RY, s.RX), randn(s.B, s.H, s.Y, s.X, s.V)


def _wrong(algorithm: Algorithm, shape: Shape, device: torch.device, dtype: torch.dtype) -> str:
    """How a kernel differs from the definition, in words; "" where it does not."""
    query, value, whole, grad = _tensors(shape, device, dtype)
    exact = _by_definition(query.double(), value.double(), whole.double(), grad.double())
    plain = _by_definition(query, value, whole, grad)
    embedding, sizes = sized(query, value, whole, origin((shape.RY, shape.RX), False))
    with torch.no_grad():
        found = [algorithm.forward(query, value, embedding, sizes)]
        found += algorithm.backward(grad, query, value, embedding, sizes)
    # Offsets that no pair of positions has are clipped off the embedding, and have no gradient
    reach = (sizes.RY, sizes.RX)
    first = [before - after for before, after in zip(origin((shape.RY, shape.RX), False), sizes.origin, strict=True)]
    exact[3], plain[3] = (
        gradient[..., first[0] : first[0] + reach[0], first[1] : first[1] + reach[1]]
        for gradient in (exact[3], plain[3])
    )
    for name, ours, usual, right in zip(
        ("output", "gradient of query", "gradient of value", "gradient of embedding"), found, plain, exact, strict=True
    ):
        largest = right.abs().max()
        error, allowed = (((x - right).abs().max() / largest).item() for x in (ours, usual))
        allowed = max(EXACT, 2 * allowed if dtype.itemsize < 4 else 0)
        if not error <= allowed:  # NaN, too
            return f"its {name} differs from the definition's by {error:.2g}, where {allowed:.2g} is right"
    return ""


def _by_definition(query: Tensor, value: Tensor, embedding: Tensor, grad: Tensor) -> list[Tensor]:
    """Output and gradients."""
    query, value, embedding = (tensor.detach().requires_grad_() for tensor in (query, value, embedding))
    with torch.enable_grad():
        output = reference.position(query, value, embedding, None, False)
        return [output.detach(), *torch.autograd.grad(output, (query, value, embedding), grad)]


def _slowness(
    algorithm: Algorithm, device: torch.device, dtype: torch.dtype, speed: rates.Rates
) -> tuple[float, float]:
    query, value, embedding, grad = _tensors(FAST, device, dtype)
    embedding, sizes = sized(query, value, embedding, origin((FAST.RY, FAST.RX), False))
    forward = algorithm.count(sizes, False)[0]
    backward = algorithm.count(sizes, True)[0] - forward
    with torch.no_grad():
        seconds = (
            rates.seconds(lambda: algorithm.forward(query, value, embedding, sizes), device),
            rates.seconds(lambda: algorithm.backward(grad, query, value, embedding, sizes), device),
        )
    return seconds[0] / forward.seconds(speed), seconds[1] / backward.seconds(speed)


def _name(device: torch.device, dtype: torch.dtype) -> str:
    return f"{rates.name_of(device, dtype)}, torch {torch.__version__}, lambda-seq {__version__}"


def _keep(device: torch.device, dtype: torch.dtype, found: dict[str, Trial]) -> None:
    """Use trials from here on, and write them for later processes."""
    global _tried
    _tried = {**_read()[0], _name(device, dtype): found}
    file = cache_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    # Written beside and renamed, so that a kill leaves the old file or the new one
    beside = file.with_suffix(f".{os.getpid()}")
    entries = {place: {name: asdict(trial) for name, trial in trials.items()} for place, trials in _tried.items()}
    beside.write_text(json.dumps(entries, indent=1))
    beside.replace(file)


def _read() -> tuple[dict[str, dict[str, Trial]], str]:
    """Trials by device and algorithm, and what is wrong with the file, in words; "" where nothing is."""
    try:
        entries = json.loads(cache_file().read_text())
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError) as error:  # unreadable, no text, no JSON
        return {}, str(error) or type(error).__name__
    try:
        return {
            str(place): {str(name): _trial(entry) for name, entry in trials.items()}
            for place, trials in entries.items()
        }, ""
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return {}, str(error) or type(error).__name__


def _trial(entry: dict[str, Any]) -> Trial:
    forward, backward = map(float, entry["slowness"])
    if not (0 < forward < math.inf and 0 < backward < math.inf and isinstance(entry["fault"], str)):
        raise ValueError(f"{entry}: expected a fault in words and two numbers above 0")
    return Trial(entry["fault"], (forward, backward))

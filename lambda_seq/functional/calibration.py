"""`calibrate`: how fast this machine is, and which kernels are right on it; measured once and cached.

Most algorithms are calls of torch, right wherever torch is, and as fast as its operations. Kernels that are compiled
for a device are not `trusted`: each is run against the definition there, and timed, before "auto" takes it.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lambda_seq import __version__
from lambda_seq.functional import rates
from lambda_seq.functional.algorithm import REGISTRIES, Algorithm, Case, Registry, Shape
from lambda_seq.functional.problem import Sizes


@dataclass(frozen=True)
class Trial:
    """What came of trying a kernel on a device.

    Attributes:
        fault: why it is not to be used; "" where it computes what it should.
        slowness: measured over predicted time, forward and backward; how the plan corrects what it predicts.
    """

    fault: str
    slowness: tuple[float, float] = (1.0, 1.0)


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
        for registry in REGISTRIES.values():
            for name, algorithm in registry.items():
                trial = None if algorithm.trusted else try_out(algorithm, registry, device, dtype, measured)
                if trial is not None:
                    found[name] = trial
                    if trial.fault:
                        place = rates.name_of(device, dtype)
                        warnings.warn(f"algorithm={name!r} is not used on {place}: {trial.fault}", stacklevel=2)
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


def try_out(
    algorithm: Algorithm, registry: Registry[Any], device: torch.device, dtype: torch.dtype, speed: rates.Rates
) -> Trial | None:
    """Run a kernel against the definition, and time it; None where it applies to nothing that it could be tried by."""
    shapes = [
        shape
        for shape in registry.right
        if shape.content <= algorithm.fuses and algorithm.supports(sizes_of(registry, shape), device, dtype) is None
    ]
    if not shapes:
        return None
    try:
        for shape in shapes:
            fault = wrong(algorithm, registry.case(shape, device, dtype), dtype)
            if fault:
                return Trial(fault)
        return Trial("", _slowness(algorithm, registry.case(registry.fast, device, dtype), speed))
    except Exception as error:  # whatever a compiler or a driver may raise
        return Trial(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")


def cache_file() -> Path:
    """Where trials are kept: beside the rates, file `kernels.json`."""
    return rates.cache_file().with_name("kernels.json")


def sizes_of(registry: Registry[Any], shape: Shape) -> Sizes:
    """Sizes of the problem of a shape, which is not made for it."""
    return registry.case(shape, torch.device("meta"), torch.float32).sizes


def wrong(algorithm: Algorithm, case: Case, dtype: torch.dtype) -> str:
    """How an algorithm differs from the definition, in words; "" where it does not."""
    for name, error, allowed in errors(algorithm, case, dtype):
        if not error <= allowed:  # NaN, too
            return f"its {name} differs from the definition's by {error:.2g}, where {allowed:.2g} is right"
    return ""


def errors(algorithm: Algorithm, case: Case, dtype: torch.dtype) -> Iterator[tuple[str, float, float]]:
    """Of each output and gradient its name, the greatest error relative to what is right, and the one allowed."""
    exact = _by_definition(case, torch.float64)
    plain = _by_definition(case, dtype)
    found = [*_forward(algorithm, case), *_backward(algorithm, case)]
    for name, ours, usual, right in zip(case.names, found, plain, exact, strict=True):
        largest = right.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
        error, allowed = (((x - right).abs().max() / largest).item() for x in (ours, usual))
        yield name, error, max(EXACT, 2 * allowed if dtype.itemsize < 4 else 0)


def _forward(algorithm: Algorithm, case: Case) -> tuple[Tensor, ...]:
    with torch.no_grad():
        outputs = algorithm.forward(*case.tensors, case.option, *case.added)
    return (outputs,) if isinstance(outputs, Tensor) else outputs


def _backward(algorithm: Algorithm, case: Case) -> tuple[Tensor, ...]:
    with torch.no_grad():
        gradients: tuple[Tensor, ...] = algorithm.backward(*case.grads, *case.tensors, case.option, *case.added)
    return gradients


def _by_definition(case: Case, dtype: torch.dtype) -> list[Tensor]:
    """Outputs and gradients."""
    tensors = [tensor.detach().to(dtype).requires_grad_() for tensor in (*case.tensors, *case.added)]
    with torch.enable_grad():
        outputs = case.definition(*tensors)
        pairs = zip(outputs, case.grads, strict=True)
        learning, grads = zip(*((one, grad.to(one.dtype)) for one, grad in pairs if one.requires_grad), strict=True)
        gradients = torch.autograd.grad(learning, tensors, grads, materialize_grads=True)
    return [*(output.detach() for output in outputs), *gradients]


def _slowness(algorithm: Algorithm, case: Case, speed: rates.Rates) -> tuple[float, float]:
    device = case.tensors[0].device
    forward = algorithm.count(case.sizes, False)[0]
    backward = algorithm.count(case.sizes, True)[0] - forward
    seconds = (
        rates.seconds(lambda: _forward(algorithm, case), device),
        rates.seconds(lambda: _backward(algorithm, case), device),
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

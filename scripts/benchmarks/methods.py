"""What a method is, in which cases it is measured, and how it is checked before.

A layer method has a twin, another way to compute the same function in float64, with which it must agree at a small
size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measuring import Job, Step, WrongResultError

# Largest relative error, ‖found − right‖ / ‖right‖, of an output or gradient against float64.
TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 3e-2}
CHECKED = {1: 260, 2: 26}  # positions per dimension at which results are checked, longer than the default scopes


@dataclass(frozen=True)
class Case:
    """Sizes of one comparison.

    Args:
        size: positions, (N,) or (H, W).
        batch: sequences or images.
        dim: channels in and out.
        heads: of queries.
        dim_key: query and key depth of lambda layers; attention has dim / heads.
        scope: positions per dimension that a local method sees.
        dtype: "float32", "bfloat16" or "float64".
        device: "cpu" or "cuda".
    """

    size: tuple[int, ...]
    batch: int = 1
    dim: int = 256
    heads: int = 4
    dim_key: int = 16
    scope: int = 127
    dtype: str = "float32"
    device: str = "cpu"

    @property
    def positions(self) -> int:
        """Positions of one sequence or image."""
        return math.prod(self.size)

    @property
    def numbers(self) -> int:
        """Numbers of an input."""
        return self.batch * self.positions * self.dim

    def __str__(self) -> str:
        size = " × ".join(f"{length:,}" for length in self.size)
        return f"{size}{f', batch {self.batch}' if self.batch > 1 else ''}"


@dataclass(frozen=True)
class Method:
    """Something to measure.

    Args:
        label: what tables call it.
        prepare: makes layer and inputs and returns one step.
        verify: raises WrongResultError unless the method computes what it should.
        growth: time grows with this power of the number of positions.
        memory_growth: and so does memory.
        limit: of the machine, no method.
    """

    label: str
    prepare: Callable[[Case], Step]
    verify: Callable[[Case], object]
    growth: int = 1
    memory_growth: int = 1
    limit: bool = False

    def job(self, case: Case) -> Job:
        """The method in a case; its results are checked at a small size first."""
        return Job(partial(self.prepare, case), partial(self.verify, case))


Build = Callable[[Case], nn.Module]  # makes the layer
Twin = Callable[[Any, Case], nn.Module]  # of a layer, the same function in float64
Variants = Callable[[Any, Case], Sequence[nn.Module]]  # of a layer, the ways in which it computes in a case


def as_it_is(layer: nn.Module, case: Case) -> list[nn.Module]:
    """The layer, which computes in one way only."""
    return [layer]


def layer_method(
    label: str, build: Build, twin: Twin, variants: Variants = as_it_is, growth: int = 1, memory_growth: int = 1
) -> Method:
    """A method from a layer, its twin and the ways in which it may compute at the size of a case."""
    verify = partial(verify_layer, build, twin, variants)
    return Method(label, partial(prepare_layer, build), verify, growth, memory_growth)


def new_layer(build: Build, case: Case) -> nn.Module:
    """The layer in the dtype and on the device of the case, always with the same weights."""
    torch.manual_seed(2102)
    return build(case).to(case.device, getattr(torch, case.dtype))


def new_inputs(case: Case) -> tuple[Tensor, Tensor]:
    """Inputs that want a gradient, and a gradient for the output: (B, N, dim) or (B, dim, H, W)."""
    shape = (case.batch, *case.size, case.dim) if len(case.size) == 1 else (case.batch, case.dim, *case.size)
    options = {"dtype": getattr(torch, case.dtype), "device": case.device}
    return torch.randn(*shape, **options).requires_grad_(), torch.randn(*shape, **options)


def prepare_layer(build: Build, case: Case) -> Step:
    """One training step of the layer, without an optimiser: gradients of the input and of all weights."""
    layer = new_layer(build, case)
    x, grad = new_inputs(case)

    def step() -> None:
        x.grad = None
        layer.zero_grad(set_to_none=True)
        layer(x).backward(grad)

    return step


def verify_layer(
    build: Build,
    twin: Twin,
    variants: Variants,
    case: Case,
    *,
    most: int | None = None,
    tolerance: float | None = None,
    least: float = 1e-30,
) -> None:
    """Compare output and gradients with the twin's, at a small size of the same configuration.

    Args:
        build, twin, variants: of the method.
        case: its sizes.
        most: positions per dimension; None for CHECKED.
        tolerance: largest relative error; None for that of TOLERANCES.
        least: norm below which errors are relative to this, for gradients that are zero but for rounding.
    """
    most = CHECKED[len(case.size)] if most is None else most
    allowed = TOLERANCES[case.dtype] if tolerance is None else tolerance
    small = replace(case, size=tuple(min(length, most) for length in case.size), batch=min(case.batch, 2))
    layer = new_layer(build, small)
    x, grad = new_inputs(small)
    expected = _results(twin(layer, small), x, grad)
    for candidate in variants(layer, case):
        found = _results(candidate, x, grad)
        for name in sorted(found.keys() & expected.keys()):
            difference = torch.linalg.vector_norm(found[name] - expected[name])
            error = float(difference / torch.linalg.vector_norm(expected[name]).clamp_min(least))
            if not error <= allowed:  # NaN is wrong too
                raise WrongResultError(f"{name} is off by {error:.1e} relative to float64, {allowed:.0e} is allowed")


def _results(layer: nn.Module, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
    """Output, gradient of the input and of each weight, by name, in float64."""
    weights = dict(layer.named_parameters())
    dtype = next(iter(weights.values())).dtype
    x, grad = x.detach().to(dtype).requires_grad_(), grad.to(dtype)
    output = layer(x)
    gradients = torch.autograd.grad(output, (x, *weights.values()), grad)
    named = dict(zip(("gradient of x", *(f"gradient of {name}" for name in weights)), gradients, strict=True))
    return {name: tensor.detach().double() for name, tensor in {"output": output, **named}.items()}

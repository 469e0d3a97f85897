"""Networks of the paper's tables, and training steps of these."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from benchmarks.measuring import Step, WrongResultError
from torch import nn

from lambda_seq.models import LambdaResNet, create_model


def build(name: str, options: dict[str, Any], size: int) -> LambdaResNet:
    """The network of this name; global tables of positions cover pictures of this size at least."""
    model = create_model(name, **options)
    assert isinstance(model, LambdaResNet)
    if model.image_size is not None and size > min(model.image_size):
        model = build(name, {**options, "image_size": size}, 0)
    return model


@dataclass(frozen=True)
class TrainingOf(ABC):
    """Makes a training step of a network, forward, backward and SGD with momentum; called in a process of its own."""

    name: str
    options: dict[str, Any]
    size: int
    batch: int
    precision: str
    device: str
    materialised: bool = False

    @abstractmethod
    def __call__(self) -> Step:
        """The step, with everything that it needs but activations and gradients."""

    @property
    def half(self) -> torch.autocast:
        """The context of the forward pass."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16-mixed")


def step_of(model: nn.Module, loss_function: Callable[[], torch.Tensor], name: str) -> Step:
    """A step of SGD with momentum, which is there before the first.

    Raises:
        WrongResultError: by the step, if the loss is not finite.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    for weight in model.parameters():
        optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)

    def step() -> None:
        loss = loss_function()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if not loss.isfinite():
            raise WrongResultError(f"the loss of {name} is {loss.item()}")

    return step

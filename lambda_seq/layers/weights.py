"""Weights that are not simply there: spread over processes, quantised, or allocated without values."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial, wraps
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Step = TypeVar("Step", bound=Callable[..., Any])


def place(module: nn.Module) -> Tensor:
    """An empty tensor of the dtype and on the device in which a module computes, be its matrices quantised or not."""
    for tensor in chain(module.parameters(), module.buffers()):
        if tensor.is_floating_point():
            return torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return torch.empty(0)


def gathers(step: Step) -> Step:
    """Decorator of a method (x, state) -> (output, state): `fully_shard` gathers weights for it, as for `forward`.

    FSDP2 knows `forward` only, and `register_fsdp_forward_method` for others, which casts what it is given. States are
    running sums in a precision of their own, so that x and the output alone go through it.
    """

    @wraps(step)
    def run(self: nn.Module, x: Tensor, state: Any, *options: Any) -> Any:
        fsdp = sys.modules.get("torch.distributed.fsdp")  # not imported: then nothing is wrapped
        if fsdp is None or not isinstance(self, getattr(fsdp, "FSDPModule", ())) or "_gathered" in self.__dict__:
            try:
                return step(self, x, state, *options)
            except RuntimeError as error:
                if "DTensor" not in str(error):
                    raise
                raise ValueError(
                    f"the weights of this {type(self).__name__} are spread over processes by a module around it, which "
                    f"does not gather them for {step.__name__}: wrap this one by fully_shard too, or call unshard() on "
                    "the one around it"
                ) from error
        if "_whole" not in self.__dict__:
            self.__dict__["_whole"] = lambda x, call: call(x)
            fsdp.register_fsdp_forward_method(self, "_whole")
        after = []

        def call(x: Tensor) -> Any:
            self.__dict__["_gathered"] = True  # methods that this one calls find the weights there
            try:
                output, state_after = step(self, x, state, *options)
            finally:
                del self.__dict__["_gathered"]
            after.append(state_after)
            return output

        return self.__dict__["_whole"](x, call), after[0]

    return run  # type: ignore[return-value]


@torch.no_grad()
def fill(parameter: Tensor, values: Tensor) -> None:
    """Copy values into a parameter; of one that is spread over processes each takes its part of the first's values."""
    spread = sys.modules.get("torch.distributed.tensor")
    if spread is not None and isinstance(parameter, spread.DTensor):
        values = values.to(parameter.device, parameter.dtype)
        values = spread.distribute_tensor(values, parameter.device_mesh, parameter.placements)
    parameter.copy_(values)


def draw(parameter: Tensor, *stds: float, rows: Sequence[int] | None = None) -> None:
    """Draw a parameter from N(0, std²), with a standard deviation for each of its parts of so many rows."""
    values = torch.empty(parameter.shape, dtype=parameter.dtype, device=parameter.device)
    for part, std in zip(values.split(list(rows or values.shape[:1])), stds, strict=True):
        nn.init.normal_(part, std=std)
    fill(parameter, values)


def reset_by(module: nn.Module, reset: Callable[[nn.Module], None], *, now: bool = True) -> None:
    """Let `module.reset_parameters()` do what its owner wants of it, and do it now.

    Training loops that allocate networks without values (`to_empty`) call the method of each module, parents first. A
    class of its own in the place of, say, `torch.nn.Linear` would not be found by tools that quantise or fuse.

    Args:
        module: any.
        reset: called with it; pickles go with the module, so it is a function of a file, or a partial of one.
        now: whether to call it.
    """
    module.__dict__["reset_parameters"] = partial(reset, module)
    if now:
        reset(module)


def draw_linear(linear: nn.Module, stds: Sequence[float], rows: Sequence[int] | None = None) -> None:
    """Draw the weights of a linear map or an embedding as `draw` does; the bias, if any, is zero."""
    weight, bias = linear.weight, getattr(linear, "bias", None)
    assert isinstance(weight, Tensor)
    draw(weight, *stds, rows=rows)
    if bias is not None:
        nn.init.zeros_(bias)


def draw_bias(norm: nn.Module, std: float) -> None:
    """Set a norm's parameters and statistics as torch does, but draw its bias from N(0, std²)."""
    kind: Any = type(norm)  # whose own method is behind this one's, see `reset_by`
    kind.reset_parameters(norm)
    assert isinstance(norm.bias, Tensor)
    draw(norm.bias, std)

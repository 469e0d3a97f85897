"""Each algorithm as one operator: autograd, autocast, `torch.compile` and `torch.export` see a single node.

The backward pass is an operator of its own that recomputes what it needs, so that only the inputs are saved. Operators
know neither forward mode nor `torch.func`, so an `autograd.Function` takes their place, except where a program is
recorded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual
from torch.nn import Parameter

from lambda_seq.functional.transforms import Once, forward_mode, refuse_second_derivatives


def compute_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype to compute in: float32 for half precision on a CPU, which has no fast half precision products."""
    if device.type == "cpu" and dtype in (torch.bfloat16, torch.float16):
        return torch.float32
    return dtype


def cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in this dtype; a call of torch less than `to` where it is in it already."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def channels_first(tensor: Tensor) -> Tensor:
    """(B, Y, X, C, D) -> (B, C, Y, X, D), a view: how results and gradients lie in memory."""
    return tensor.permute(0, 3, 1, 2, 4)


def channels_last(tensor: Tensor) -> Tensor:
    """(B, C, Y, X, D) -> (B, Y, X, C, D), contiguous; without a copy for what the layers make."""
    return tensor.permute(0, 2, 3, 1, 4).contiguous()


def multiply_into(target: Tensor, left: Tensor, right: Tensor) -> None:
    """target = left @ right for matrices or batches of them, target of any shape; without a copy where it can be."""
    if target.is_contiguous() and target.dtype == left.dtype:
        torch.matmul(left, right, out=target.view(*left.shape[:-1], right.shape[-1]))
    else:
        target.copy_((left @ right).view(target.shape))


class Operator:
    """A function of some tensors and one option, with a backward pass of its own, in two forms.

    `operator`, with `backward_operator`, is what recorded programs hold: `lambda_seq::name`, a single node. `function`
    is for all else: it knows forward mode and `torch.func`, and calls `forward` directly, not through torch's
    dispatcher. `entry` says which of them to call. Where the option has sizes in it, programs of `torch.export` hold a
    third form, `lambda_seq::name_exported`: there, sizes need not be known, and `torch.jit.trace` takes none such.

    Args:
        name: of the operator; its backward pass is `lambda_seq::name_backward`.
        forward: (*tensors, option) -> outputs; `plainly`, or turns off autocast and autograd itself.
        backward: (*gradients of the outputs, *tensors, option) -> gradients of the tensors; likewise.
        schema: of forward, "(Tensor x, str option) -> Tensor".
        gradients: of backward.
        fakes: of forward and backward: outputs as they would be, without their numbers.
        tensors: how many inputs are tensors; they are all that is saved for backward.
        tangent: (function, tensors, tangents, option) -> tangents of the outputs; `function` is differentiable itself.
        mapped: from a function to its rule of `torch.vmap`; one for forward and one for backward.
        constant: outputs that have no gradient, by index.
        exported: schema of forward where sizes are not known; None if there are none in it.
    """

    def __init__(
        self,
        name: str,
        forward: Callable[..., Any],
        backward: Callable[..., Any],
        schema: str,
        gradients: str,
        *,
        fakes: tuple[Callable[..., Any], Callable[..., Any]],
        tensors: int,
        tangent: Callable[..., Any],
        mapped: tuple[Callable[..., Any], Callable[..., Any]],
        constant: Sequence[int] = (),
        exported: str | None = None,
    ) -> None:
        self.operator = torch.library.custom_op(
            f"lambda_seq::{name}", _operator_body(forward), schema=schema, mutates_args=()
        )
        self.backward_operator = torch.library.custom_op(
            f"lambda_seq::{name}_backward", _operator_body(backward), schema=gradients, mutates_args=()
        )
        self.operator.register_fake(fakes[0])
        self.backward_operator.register_fake(fakes[1])
        self.tensors, self.tangent, self.mapped, self.constant = tensors, tangent, mapped, constant
        self.names, self.exported = [name], self.operator
        self._register_gradient(self.operator)
        if exported is not None:
            self.names.append(f"{name}_exported")
            self.exported = torch.library.custom_op(
                f"lambda_seq::{name}_exported", _operator_body(forward), schema=exported, mutates_args=()
            )
            self.exported.register_fake(fakes[0])
            self._register_gradient(self.exported)
        self.backward_operator.register_autograd(refuse_second_derivatives)
        self.function = self._function(forward, backward)
        self._around_operator = self._function(self.operator, self.backward_operator)

    def entry(self, *tensors: Tensor) -> Callable[..., Any]:
        """What to call with these tensors and the option.

        Transforms of `torch.func` inside a compiled program run the function, uncompiled.
        """
        if transformed():
            return self._uncompiled
        if torch.compiler.is_exporting():
            return self.exported
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self.operator
        return (self._around_operator if _watched(tensors) else self.function).apply

    @torch.compiler.disable(reason="torch.func differentiates it in Python")
    def _uncompiled(self, *inputs: Any) -> Any:
        watched = _watched(inputs[: self.tensors])
        return (self._around_operator if watched else self.function).apply(*inputs)

    def _register_gradient(self, operator: Any) -> None:
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            ctx.save_for_backward(*inputs[: self.tensors])
            ctx.option = inputs[self.tensors]

        def gradient(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
            return *self.backward_operator(*grads, *ctx.saved_tensors, ctx.option), None

        operator.register_autograd(gradient, setup_context=setup_context)

    def _function(self, compute: Callable[..., Any], gradient: Callable[..., Any]) -> type[torch.autograd.Function]:
        """A function for all of autograd that runs this."""
        map_forward, map_backward = self.mapped

        class Backward(Once):
            """Gradients of the tensors from those of the outputs."""

            @staticmethod
            def forward(*inputs: Any) -> Any:
                recorded = torch.compiler.is_compiling() or _watched(inputs[:-1])
                return (self.backward_operator if recorded else gradient)(*inputs)

            vmap = staticmethod(map_backward(lambda *inputs: Backward.apply(*inputs)))

        class Forward(torch.autograd.Function):
            """The outputs."""

            @staticmethod
            def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
                ctx.save_for_backward(*inputs[: self.tensors])
                ctx.save_for_forward(*inputs[: self.tensors])
                ctx.mark_non_differentiable(*(output[index] for index in self.constant))
                ctx.option = inputs[self.tensors]

            @staticmethod
            def backward(ctx: Any, *grads: Tensor) -> Any:
                return *Backward.apply(*grads, *ctx.saved_tensors, ctx.option), None

            @staticmethod
            def jvp(ctx: Any, *tangents: Any) -> Any:
                with forward_mode(ctx.saved_tensors) as inputs:
                    return self.tangent(Forward.apply, inputs, tangents[: self.tensors], ctx.option)

            forward = staticmethod(compute)
            vmap = staticmethod(map_forward(lambda *inputs: Forward.apply(*inputs)))

        for step in (Forward.forward, Backward.forward):  # else torch derives it at every call
            step.__signature__ = inspect.signature(step)  # type: ignore[attr-defined]
        return Forward


def _watched(tensors: Sequence[Tensor]) -> bool:
    """Whether a dispatch mode, a subclass of tensors or the meta device has to see one operator."""
    # Private to torch, which has no public way to ask
    if torch._C._len_torch_dispatch_stack():
        return True
    return any(type(x) not in (Tensor, Parameter) or x.is_meta for x in tensors)


@torch.compiler.assume_constant_result
def transformed() -> bool:
    """Whether a transform of `torch.func` is at work; programs are compiled for one stack of them."""
    # Private to torch, which has no public way to ask
    return torch._C._are_functorch_transforms_active()


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Autocast off: the algorithms say themselves what is computed in which precision."""
    if device.type == "meta":  # has none
        return nullcontext()
    if not (torch.compiler.is_compiling() or torch.is_autocast_enabled(device.type)):
        return nullcontext()  # a program that is recorded may run under another
    return torch.autocast(device.type, enabled=False)


@contextmanager
def without_tf32(device: torch.device) -> Iterator[None]:
    """Convolutions of float32 in float32: on a GPU torch lets cuDNN round to 10 bits unless it is told not to."""
    if device.type != "cuda":
        yield
        return
    now = torch.backends.cudnn
    with now.flags(enabled=now.enabled, benchmark=now.benchmark, deterministic=now.deterministic, allow_tf32=False):
        yield


# As operators run: what has its own backward pass needs no record of its steps, nor the time to find out. Private to
# torch: no_grad still takes that time.
below_autograd = torch._C._AutoDispatchBelowAutograd


def plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of tensors and options, run without autocast and autograd."""

    def run(*arguments: Any) -> Any:
        with without_autocast(arguments[0].device), below_autograd():
            return function(*arguments)

    return run


def _operator_body(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as an operator's: not run where it would lose tangents."""

    def run(*arguments: Any) -> Any:
        tensors = (argument for argument in arguments if isinstance(argument, Tensor))
        # Private to torch, as is all that tells: where forward mode is off, as inside a jvp, no tangent is lost
        if torch._C._is_fwd_grad_enabled() and any(unpack_dual(x).tangent is not None for x in tensors):
            raise RuntimeError(
                "a compiled or exported lambda layer has no forward mode: call what was compiled itself, or compile "
                "the function that calls torch.func.jvp"
            )
        return function(*arguments)

    return run

"""Batch norms whose statistics are those of all processes of a distributed training, on any device, masks included."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, distributed, nn

from lambda_seq.layers.norm import BatchNorm, MaskedBatchNorm, adopt_batch_norms, normalise


class SyncedMaskedBatchNorm(MaskedBatchNorm):
    """`MaskedBatchNorm` that counts the real positions of all processes, or of those of `process_group`."""

    process_group: distributed.ProcessGroup | None = None

    def forward(self, x: Float[Tensor, "B *N C"], mask: Bool[Tensor, "B *N"] | None = None) -> Float[Tensor, "B *N C"]:
        """Normalise x; processes may have other B, other N and another number of real positions."""
        if not self.training and self.track_running_stats:
            return super().forward(x, mask)
        return normalise(self, x, mask, partial(total, group=self.process_group))


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` over the images of all processes; unlike `torch.nn.SyncBatchNorm` on CPUs as well."""

    takes_masks = True

    def forward(
        self, input: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B H W"] | None = None
    ) -> Float[Tensor, "B C H W"]:
        """Normalise images, of any number on each process, by their real pixels."""
        if not self.training and self.track_running_stats:
            return super().forward(input)
        return normalise(self, input.movedim(1, -1), mask, total).movedim(-1, 1)


SYNCED: dict[type[nn.Module], type[nn.Module]] = {
    MaskedBatchNorm: SyncedMaskedBatchNorm,
    nn.BatchNorm2d: SyncedBatchNorm2d,
}


def synchronise(module: nn.Module) -> nn.Module:
    """Let all batch norms in a module share their statistics; they keep weights, buffers and names.

    Returns:
        The module.

    Raises:
        TypeError: a batch norm of a kind that cannot.
    """
    for name, norm in module.named_modules():
        # The class alone is exchanged, as `fully_shard` does: no reference, hook or memory format is lost.
        if type(norm) in SYNCED:
            norm.__class__ = SYNCED[type(norm)]
        elif isinstance(norm, BatchNorm) and type(norm) not in SYNCED.values():
            raise TypeError(
                f"{name} is a {type(norm).__name__}: expected {', '.join(kind.__name__ for kind in SYNCED)}"
            )
    return module


def separate(module: nn.Module) -> nn.Module:
    """Undo `synchronise`: each process counts its own positions again. Returns the module."""
    kinds = {synced: own for own, synced in SYNCED.items()}
    for norm in module.modules():
        if type(norm) in kinds:
            norm.__class__ = kinds[type(norm)]
    return module


class NormOwner(nn.Module):
    """A module whose norms take masks, and still do once torch has exchanged them.

    `nn.SyncBatchNorm.convert_sync_batchnorm(model)` puts a `torch.nn.SyncBatchNorm`, which knows no masks and has its
    channels second, in the place of each batch norm. Here that becomes a `SyncedMaskedBatchNorm` of the same weights.

    Attributes:
        default_norms: names of the norms that nobody chose, of which `adopt_batch_norms` may take other ones.
    """

    default_norms: tuple[str, ...] = ()

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Add a child, as `torch.nn.Module.add_module` does."""
        if isinstance(module, nn.SyncBatchNorm) and isinstance(getattr(self, name, None), MaskedBatchNorm):
            module.__class__ = SyncedMaskedBatchNorm  # type: ignore[assignment]
        super().add_module(name, module)

    # Private to torch, and where its own batch norms upgrade old states: a hook would have to be registered with each
    # module, and to go with its copies.
    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *options: Any) -> None:
        if self.default_norms:
            adopt_batch_norms(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *options)


def total(own: Tensor, group: distributed.ProcessGroup | None = None) -> Tensor:
    """The sum of a tensor over the processes of a group, None for all, which all have to ask for.

    One process alone has it already.
    """
    if not distributed.is_available() or not distributed.is_initialized():
        return own
    found: Tensor = _Total.apply(own, group)
    return found


class _Total(torch.autograd.Function):
    """The sum over processes. What it does to each loss counts, so that gradients are summed over processes, too."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, own: Tensor, group: distributed.ProcessGroup | None
    ) -> Tensor:
        ctx.group = group  # type: ignore[attr-defined]
        found = own.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(found, group=group)
        return found

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        group = ctx.group  # type: ignore[attr-defined]
        return _Total.forward(ctx, gradients[0], group), None

"""Normalisation over the channels of channels-last tensors, counting real positions only."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lambda_seq.layers.sequence_context import UNSHARDED, SequenceContext

Total = Callable[[Tensor], Tensor] | None
NORMS = ("batch", "layer", "rms", "none")
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm  # the class that they share is private


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of (B, *N, C) tensors whose statistics count real positions only.

    y = (x − mean) / sqrt(var + eps) · weight + bias, mean and var of each channel over all b, n with mask[b, n] True.
    Parameters, buffers and state dict are those of `torch.nn.BatchNorm1d`; without a mask it computes the same, except
    that a batch of a single position, of which torch raises an error in training, is its own mean: the output is the
    bias, and the running variance, of which one value says nothing, stays.
    """

    sequence: SequenceContext = UNSHARDED

    def forward(self, x: Float[Tensor, "B *N C"], mask: Bool[Tensor, "B *N"] | None = None) -> Float[Tensor, "B *N C"]:
        """Normalise x; masked positions are normalised with the statistics of the real ones."""
        training = self.training or not self.track_running_stats
        if training and (mask is not None or self.sequence.size > 1 or single(x, -1)):
            return normalise(self, x, mask, self.sequence.sum if self.sequence.size > 1 else None)
        if training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        normalised = F.batch_norm(
            x.reshape(-1, x.shape[-1]),  # (B·N, C)
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training,
            _momentum(self),
            self.eps,
        )
        return normalised.view(x.shape)


def single(x: Tensor, axis: int) -> bool:
    """Whether there is one value, or none, for each channel, of which torch computes no statistics."""
    return x.numel() <= x.shape[axis]


def normalise_pictures(
    norm: nn.Module, x: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B H W"] | None = None
) -> Float[Tensor, "B C H W"]:
    """norm(x), where a batch norm in training counts real pixels only.

    A `torch.nn.BatchNorm2d` in training takes a single pixel too, as `MaskedBatchNorm` does.
    """
    if type(norm) is nn.BatchNorm2d and (norm.training or not norm.track_running_stats):
        if mask is not None or single(x, 1):
            return normalise(norm, x.movedim(1, -1), mask).movedim(-1, 1)
    elif mask is not None and getattr(norm, "takes_masks", False):
        return norm(x, mask)
    normalised: Tensor = norm(x)
    return normalised


def normalise(
    norm: BatchNorm,
    x: Float[Tensor, "B *N C"],
    mask: Bool[Tensor, "B *N"] | None,
    total: Total = None,
) -> Float[Tensor, "B *N C"]:
    """What a batch norm makes of x in training, by the statistics of its real positions, which the running ones follow.

    Args:
        norm: weight, bias, running statistics, eps and momentum.
        x: channels last.
        mask: True at real positions; None if all are.
        total: sum over the parts of a batch, of which x is one; differentiable. None if x is all of it.
    """
    if total is None and mask is not None and not torch.compiler.is_compiling():  # which fuses the definition itself
        y, count, mean, variance = _Masked.apply(x, mask, norm.weight, norm.bias, norm.eps)
    else:
        y, count, mean, variance = _normalised(x, mask, norm.weight, norm.bias, norm.eps, total)
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        # A batch without a real position says nothing about the data, one of a single position nothing about the
        # variance; torch's running variance is unbiased.
        unbiased = variance.detach() * count / (count - 1).clamp_min(1)
        for running, found, least in ((norm.running_mean, mean.detach(), 1), (norm.running_var, unbiased, 2)):
            momentum = (count >= least).to(running.dtype) * _momentum(norm)
            running.lerp_(found.to(running.dtype), momentum)
    return y


def _normalised(
    x: Tensor, mask: Tensor | None, weight: Tensor | None, bias: Tensor | None, eps: float, total: Total = None
) -> tuple[Float[Tensor, "B *N C"], Float[Tensor, ""], Float[Tensor, " C"], Float[Tensor, " C"]]:
    """x normalised, number of real positions of all parts, and mean and variance over them."""
    count, mean, variance = _statistics(x, mask, total)
    shift = torch.zeros_like(mean) if bias is None else bias
    return torch.addcmul(shift, x - mean, _scale(variance, weight, eps)).to(x.dtype), count, mean, variance


def _scale(variance: Tensor, weight: Tensor | None, eps: float) -> Float[Tensor, " C"]:
    inverse = (variance + eps).rsqrt()
    return inverse if weight is None else inverse * weight


def _statistics(
    x: Tensor, mask: Tensor | None, total: Total
) -> tuple[Float[Tensor, ""], Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Number of real positions of all parts, and mean and variance over them, put together from those of each part."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    axes = tuple(range(x.ndim - 1))
    if mask is not None:
        real = mask.unsqueeze(-1)
        own = mask.sum().to(wide.dtype)
        mean = torch.where(real, wide, 0).sum(axes) / own.clamp_min(1)
        variance = torch.where(real, wide - mean, 0).square().sum(axes) / own.clamp_min(1)
    else:  # nothing as large as x is kept for the backward pass
        own = wide.new_full((), x[..., 0].numel())  # filled on the device, which is not waited for
        empty = wide.sum(axes)  # a part may have no positions, and has its part in the backward pass
        variance, mean = torch.var_mean(wide, axes, correction=0) if x.numel() else (empty, empty)
    if total is None:
        return own, mean, variance
    sums = total(torch.cat([mean * own, own[None]]))  # (C + 1,)
    count = sums[-1].detach()
    whole = sums[:-1] / count.clamp_min(1)
    return count, whole, total((variance + (mean - whole).square()) * own) / count.clamp_min(1)


class _Masked(torch.autograd.Function):
    """`_normalised` with a mask, in half the passes over x that automatic differentiation takes, keeping x alone.

    With g the gradient of y, s the scale, x' = x − mean, n real positions, and sums over all positions:
    dx = s · g − mask · s / n · (Σ g + x' · Σ g x' / (var + eps)).
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, mask: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return _normalised(x, mask, weight, bias, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.eps = inputs
        ctx.save_for_backward(*tensors, *output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, mask, weight, bias, count, mean, variance = ctx.saved_tensors
        g = gradients[0]
        if torch.is_grad_enabled():  # another gradient is taken of this one
            wanted = [place for place, needed in enumerate(ctx.needs_input_grad) if needed]
            y = _normalised(x, mask, weight, bias, ctx.eps)[0]
            found = torch.autograd.grad(y, [ctx.saved_tensors[place] for place in wanted], g, create_graph=True)
            by_place = dict(zip(wanted, found, strict=True))
            return tuple(by_place.get(place) for place in range(5))
        axes = tuple(range(x.ndim - 1))
        deviation, centred = (variance + ctx.eps).sqrt(), x - mean
        total, along = g.sum(axes, dtype=mean.dtype), (g * centred).sum(axes) / deviation
        scale = _scale(variance, weight, ctx.eps)
        share = -scale / count.clamp_min(1)
        common = centred.mul_(share * along / deviation).add_(share * total).masked_fill_(~mask.unsqueeze(-1), 0)
        dx = common.addcmul_(g, scale).to(x.dtype)
        return (
            dx,
            None,
            None if weight is None else along.to(weight.dtype),
            None if bias is None else total.to(bias.dtype),
            None,
        )


def _momentum(norm: BatchNorm) -> float:
    if norm.momentum is not None:
        return norm.momentum
    return 1.0 / float(norm.num_batches_tracked) if norm.num_batches_tracked is not None else 0.0


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` over the channels; takes and ignores a mask, as each position stands alone."""

    def forward(self, x: Float[Tensor, "B *N C"], mask: Bool[Tensor, "B *N"] | None = None) -> Float[Tensor, "B *N C"]:
        """Normalise each position over its channels."""
        return super().forward(x)


class RMSNorm(nn.RMSNorm):
    """`torch.nn.RMSNorm` over the channels; takes and ignores a mask, as each position stands alone."""

    def forward(self, x: Float[Tensor, "B *N C"], mask: Bool[Tensor, "B *N"] | None = None) -> Float[Tensor, "B *N C"]:
        """Normalise each position over its channels, in the precision of the weights."""
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class NoNorm(nn.Identity):
    """The input as it is; takes and ignores a mask."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return x."""
        return x


def default_norm(norm: str | None, causal: bool) -> str:
    """The norm that is meant by None: "batch", but "rms" where batch statistics would average over the future."""
    if norm is None:
        return "rms" if causal else "batch"
    return norm


def warn_of_batch(norm: str | None, causal: bool) -> None:
    """Warn of batch norms in what is to be causal."""
    if causal and norm == "batch":
        warnings.warn(
            "norm='batch' (or block_norm) with causal=True: in training, batch statistics average over all positions, "
            "so that outputs depend on later ones; they are causal in evaluation mode only. Use 'rms' or 'layer'",
            stacklevel=3,
        )


def adopt_batch_norms(module: nn.Module, weights: Collection[str], prefix: str = "", *, quiet: bool = False) -> None:
    """Put batch norms in place of those norms that causal layers have by default where weights are of batch norms.

    "batch" was once the default of causal layers too. Loading a state dict does this by itself.

    Args:
        module: with causal layers in it, or one itself.
        weights: names of a state dict.
        prefix: of the module's own among them.
        quiet: without the warning that they are.
    """
    adopted = False
    for path, owner in module.named_modules():
        for name in getattr(owner, "default_norms", ()):
            norm = getattr(owner, name)
            place = ".".join(filter(None, (path, name, "running_mean")))
            if isinstance(norm, RMSNorm) and f"{prefix}{place}" in weights:
                like = norm.weight
                batch = MaskedBatchNorm(like.shape[0], device=like.device, dtype=like.dtype)
                setattr(owner, name, batch.train(norm.training))
                adopted = True
    if adopted and not quiet:
        warnings.warn(
            "the weights are of causal layers with batch norms, once their default, which are kept: in training, batch "
            "statistics average over later positions. Give norm='batch' to say so, or train "
            "anew with the default, 'rms'",
            stacklevel=3,
        )


def make_norm(norm: str, dim: int) -> nn.Module:
    """A norm over `dim` channels of a channels-last tensor, called as `norm(x, mask)`.

    Args:
        norm: "batch", "layer", "rms" or "none".
        dim: number of channels.

    Raises:
        ValueError: `norm` is none of these.
    """
    if norm == "batch":
        return MaskedBatchNorm(dim)
    if norm == "layer":
        return LayerNorm(dim)
    if norm == "rms":
        return RMSNorm(dim)
    if norm == "none":
        return NoNorm()
    raise ValueError(f"norm={norm!r}: expected one of {', '.join(map(repr, NORMS))}")

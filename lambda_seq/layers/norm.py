"""Normalisation over the channels of channels-last tensors, counting real positions only."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lambda_seq.layers.whole import WHOLE, Whole

NORMS = ("batch", "layer", "rms", "none")


class MaskedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation of (B, *N, C) tensors whose statistics count real positions only.

    y = (x − mean) / sqrt(var + eps) · weight + bias, mean and var of each channel over all b, n with mask[b, n] True.
    Parameters, buffers and state dict are those of `torch.nn.BatchNorm1d`; without a mask it computes the same.
    """

    shards: Whole = WHOLE

    def forward(self, x: Float[Tensor, "B *N C"], mask: Bool[Tensor, "B *N"] | None = None) -> Float[Tensor, "B *N C"]:
        """Normalise x; masked positions are normalised with the statistics of the real ones."""
        training = self.training or not self.track_running_stats
        if training and (mask is not None or self.shards.split):
            return normalise(self, x, mask, self.shards.sum)
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

    def _check_input_dim(self, input: Tensor) -> None:
        """Any rank: channels are last."""


def normalise(
    norm: nn.modules.batchnorm._BatchNorm,
    x: Float[Tensor, "B *N C"],
    mask: Bool[Tensor, "B *N"] | None,
    total: Callable[[Tensor], Tensor] = lambda own: own,
) -> Float[Tensor, "B *N C"]:
    """What a batch norm makes of x in training, by the statistics of its real positions, which the running ones follow.

    Args:
        norm: weight, bias, running statistics, eps and momentum.
        x: channels last.
        mask: True at real positions; None if all are.
        total: sum over the parts of a batch, of which x is one; differentiable.
    """
    count, mean, variance = _statistics(x, mask, total)
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        # A batch without a real position says nothing about the data; torch's running variance is unbiased.
        momentum = (count > 0).to(mean.dtype) * _momentum(norm)
        unbiased = variance.detach() * count / (count - 1).clamp_min(1)
        norm.running_mean.lerp_(mean.detach().to(norm.running_mean.dtype), momentum.to(norm.running_mean.dtype))
        norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), momentum.to(norm.running_var.dtype))
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias
    return (x * scale + shift).to(x.dtype)


def _statistics(
    x: Tensor, mask: Tensor | None, total: Callable[[Tensor], Tensor]
) -> tuple[Float[Tensor, ""], Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Number of real positions of all parts, and mean and variance over them, put together from those of each part."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    axes = tuple(range(x.ndim - 1))
    if mask is not None:
        real = mask.unsqueeze(-1)
        wide = torch.where(real, wide, 0)
        own = mask.sum().to(wide.dtype)
        mean = wide.sum(axes) / own.clamp_min(1)
        variance = torch.where(real, wide - mean, 0).square().sum(axes) / own.clamp_min(1)
    else:  # nothing as large as x is kept for the backward pass
        own = torch.tensor(x[..., 0].numel(), dtype=wide.dtype, device=x.device)
        empty = wide.sum(axes)  # a part may have no positions, and has its part in the backward pass
        variance, mean = torch.var_mean(wide, axes, correction=0) if x.numel() else (empty, empty)
    sums = total(torch.cat([mean * own, own[None]]))  # (C + 1,)
    count = sums[-1].detach()
    whole = sums[:-1] / count.clamp_min(1)
    return count, whole, total((variance + (mean - whole).square()) * own) / count.clamp_min(1)


def _momentum(norm: nn.modules.batchnorm._BatchNorm) -> float:
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

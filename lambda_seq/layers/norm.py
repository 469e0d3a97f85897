"""Normalisation over the channels of channels-last tensors, counting real positions only."""

from __future__ import annotations

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
            return self._counted(x, mask)
        if training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        normalised = F.batch_norm(
            x.reshape(-1, x.shape[-1]),  # (B·N, C)
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training,
            self._momentum(),
            self.eps,
        )
        return normalised.view(x.shape)

    def _counted(self, x: Tensor, mask: Tensor | None) -> Tensor:
        count, mean, variance = self._statistics(x, mask)
        divisor = count.clamp_min(1)
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            # A batch without a real position says nothing about the data; torch's running variance is unbiased.
            momentum = torch.where(count > 0, self._momentum(), 0.0)
            unbiased = variance.detach() * divisor / (divisor - 1).clamp_min(1)
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), momentum.to(self.running_mean.dtype))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum.to(self.running_var.dtype))
        scale = (variance + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        shift = -mean * scale
        if self.bias is not None:
            shift = shift + self.bias
        return (x * scale + shift).to(x.dtype)

    def _statistics(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Number of real positions, mean and variance (C,) over them, those of other chunks included."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        axes = tuple(range(x.ndim - 1))
        if mask is None:  # the chunks' own, put together: nothing as large as x is kept for the backward pass
            own = x.new_tensor(x[..., 0].numel(), dtype=torch.int64)
            count = self.shards.sum(own)
            variance, mean = torch.var_mean(wide, axes, correction=0)
            whole = self.shards.sum(mean * own) / count
            return count, whole, self.shards.sum((variance + (mean - whole).square()) * own) / count
        real = mask.unsqueeze(-1)
        wide = torch.where(real, wide, 0)
        count = self.shards.sum(mask.sum())
        mean = self.shards.sum(wide.sum(axes)) / count.clamp_min(1)
        squares = torch.where(real, wide - mean, 0).square().sum(axes)
        return count, mean, self.shards.sum(squares) / count.clamp_min(1)

    def _momentum(self) -> float:
        if self.momentum is not None:
            return self.momentum
        return 1.0 / float(self.num_batches_tracked) if self.num_batches_tracked is not None else 0.0

    def _check_input_dim(self, input: Tensor) -> None:
        """Any rank: channels are last."""


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

"""The parts of a residual network: stems, mixers, squeeze-and-excitation, the bottleneck block."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lambda_seq.layers import LambdaLayer2d
from lambda_seq.layers.norm import BatchNorm, normalise_pictures
from lambda_seq.layers.weights import draw, reset_by
from lambda_seq.models.drop import StochasticDepth
from lambda_seq.models.vision.masking import Mask, average, mean, strided, through

EXPANSION = 4  # output channels of a block, per channel of its bottleneck
STEMS = ("imagenet", "resnet_d", "small")


class Normalised(nn.Sequential):
    """Layers in a row, of which batch norms take a single pixel in training too: `layers.norm.normalise_pictures`."""

    def forward(
        self, x: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B H W"] | None = None
    ) -> Float[Tensor, "B D h w"]:
        """Apply the layers; with a mask, True at real pixels, these give what they give without the others."""
        return self.masked(x, mask)[0]

    def masked(self, x: Float[Tensor, "B C H W"], mask: Mask) -> tuple[Float[Tensor, "B D h w"], Mask]:
        """The output, and the mask of that."""
        for layer in self:
            if isinstance(layer, Normalised):
                x, mask = layer.masked(x, mask)
            elif isinstance(layer, BatchNorm):
                x = normalise_pictures(layer, x, mask)
            else:
                x, mask = through(layer, x, mask)
        return x, mask


def conv_norm_relu(channels: int, out: int, kernel: int, stride: int = 1) -> Normalised:
    """Convolution that keeps the size (divided by the stride, rounded up), batch norm, ReLU."""
    return Normalised(
        nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    )


def make_stem(stem: str, channels: int, width: int) -> tuple[Normalised, int]:
    """The layers before the first stage, (B, channels, H, W) -> (B, width, H/stride, W/stride), and their stride.

    "imagenet" is 7×7 stride 2 and max-pool; "resnet_d" three 3×3 convolutions and a strided one in the max-pool's
    place; "small", for pictures of 8×8 to 64×64, one 3×3 convolution without a stride.
    """
    if stem == "imagenet":
        return Normalised(conv_norm_relu(channels, width, 7, 2), nn.MaxPool2d(3, 2, padding=1)), 4
    if stem == "resnet_d":
        half = max(width // 2, 1)
        layers = [
            conv_norm_relu(channels, half, 3, 2),
            conv_norm_relu(half, half, 3),
            conv_norm_relu(half, width, 3),
            conv_norm_relu(width, width, 3, 2),
        ]
        return Normalised(*layers), 4
    if stem == "small":
        return Normalised(conv_norm_relu(channels, width, 3)), 1
    raise ValueError(f"stem={stem!r}: expected one of {', '.join(map(repr, STEMS))}")


class Convolution(nn.Conv2d):
    """Mixer "C": the 3×3 convolution of a residual network, with the block's stride."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__(width, width, 3, stride, padding=1, bias=False)


class Pooled(nn.Module):
    """Mixers that keep the size: a layer at the input's resolution; a stride is a 3×3 average pool behind it."""

    def __init__(self, layer: nn.Module, stride: int) -> None:
        super().__init__()
        self.layer = layer
        # An average over real pixels only: the border's zeros are not counted.
        self.pool = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False) if stride > 1 else nn.Identity()

    def forward(
        self, x: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B H W"] | None = None
    ) -> Float[Tensor, "B C h w"]:
        """Mix over positions, then pool; with a mask over real ones.

        Raises:
            ValueError: a mask, and a layer that takes none.
        """
        if mask is None:
            return self.pool(self.layer(x))
        if not isinstance(self.layer, LambdaLayer2d):
            raise ValueError(
                f"mask: {type(self.layer).__name__} takes none; use lambda layers or convolutions ('L', 'K' or 'C' in "
                "placement), or pictures of one size"
            )
        return average(self.pool, self.layer(x, mask), mask)

    def resize(self, size: tuple[int, int]) -> None:
        """Make global tables of relative positions cover maps of this size; layers without one stay as they are."""
        resize = getattr(self.layer, "resize", None)
        if callable(resize):
            resize(size)


class Lambda(Pooled):
    """Mixers "L" and "K": a lambda layer, and the average pool of a stride (Bello 2021)."""

    def __init__(self, layer: LambdaLayer2d, stride: int) -> None:
        super().__init__(layer, stride)


class SqueezeExcitation(nn.Module):
    """x · σ(W₂ relu(W₁ mean(x))): channels weighed by their mean over the picture (J. Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        hidden = max(round(channels * ratio), 1)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(
        self, x: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B H W"] | None = None
    ) -> Float[Tensor, "B C H W"]:
        """Scale each channel of each picture by a number between 0 and 1."""
        weight = self.excite(torch.relu(self.squeeze(mean(x, mask))))  # (B, C)
        return x * weight.sigmoid()[:, :, None, None]


class Bottleneck(nn.Module):
    """relu(shortcut(x) + norm₃(W₃ relu(norm₂(mix(relu(norm₁(W₁ x))))))), the mixing done at a fourth of the channels.

    Args:
        channels: channels of x.
        width: channels of the bottleneck; the output has 4 · width.
        mix: makes the mixer from width and stride, (B, width, H, W) -> (B, width, H/stride, W/stride).
        stride: 1 or 2, taken by the mixer (ResNet v1.5) and by the shortcut.
        se: squeeze-and-excitation ratio, 0 for none.
        stochastic_depth: probability of leaving the branch out, for a sample in training.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        mix: Callable[[int, int], nn.Module],
        *,
        stride: int = 1,
        se: float = 0.0,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        out = EXPANSION * width
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.mix = mix(width, stride)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(out)
        self.se = SqueezeExcitation(out, se) if se else nn.Identity()
        self.drop = StochasticDepth(stochastic_depth)
        self.stride, self.activation = stride, torch.relu
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels != out:
            self.shortcut = Normalised(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(
        self, x: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B H W"] | None = None
    ) -> Float[Tensor, "B D h w"]:
        """(B, channels, H, W) -> (B, 4 · width, H/stride, W/stride); with a mask, True at real pixels of x."""
        after = strided(mask, self.stride)
        branch = self.activation(normalise_pictures(self.norm1, self.conv1(x), mask))  # (B, width, H, W)
        mixed = self.mix(branch, mask) if isinstance(self.mix, Pooled) else through(self.mix, branch, mask)[0]
        branch = self.activation(normalise_pictures(self.norm2, mixed, after))  # (B, width, h, w)
        branch = normalise_pictures(self.norm3, self.conv3(branch), after)  # (B, 4 · width, h, w)
        branch = self.drop(self.se(branch, after) if isinstance(self.se, SqueezeExcitation) else branch)
        shortcut = self.shortcut(x, mask) if isinstance(self.shortcut, Normalised) else x
        return self.activation(branch + shortcut)


class Stage(nn.Sequential):
    """Blocks in a row, of which the first has the stride."""

    @property
    def blocks(self) -> list[Bottleneck]:
        """Its blocks."""
        return cast("list[Bottleneck]", list(self))

    @property
    def stride(self) -> int:
        """Pixels of the input per pixel of the output."""
        return math.prod([block.stride for block in self.blocks])  # a list: programs are recorded through it

    def forward(
        self, x: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B H W"] | None = None
    ) -> Float[Tensor, "B D h w"]:
        """Apply the blocks; with a mask, True at real pixels of x."""
        for block in self.blocks:
            x = block(x, mask)
            mask = strided(mask, block.stride)
        return x


def reset_residual(network: nn.Module, zero_init_last: bool) -> None:
    """Draw convolutions as He et al. (2015) do; with `zero_init_last` each block begins as its shortcut."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            reset_by(module, _draw_convolution)
        elif isinstance(module, Bottleneck) and zero_init_last:
            reset_by(module.norm3, _close)


def _draw_convolution(module: nn.Module) -> None:
    weight = cast(nn.Conv2d, module).weight
    fan_out = math.prod(weight.shape) // weight.shape[1]
    draw(weight, math.sqrt(2) / math.sqrt(fan_out))


def _close(norm: nn.Module) -> None:
    """A batch norm without an output, which begins as no other."""
    cast(nn.BatchNorm2d, norm).reset_running_stats()
    nn.init.zeros_(cast(nn.BatchNorm2d, norm).weight)
    nn.init.zeros_(cast(nn.BatchNorm2d, norm).bias)

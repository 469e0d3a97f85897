"""What a residual block mixes positions with, by letter: the layers of the paper's comparison as drop-ins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Unpack

from torch import nn

from lambda_seq.layers import LambdaLayer2d, RelativePositionTable
from lambda_seq.layers.attention import AxialAttention, LinearAttention, LocalAttention, RelativeAttention
from lambda_seq.layers.options import ImageLayerOptions, ImageOptions
from lambda_seq.layers.positions.registry import needs_size
from lambda_seq.models.vision.bottleneck import Convolution, Lambda, Pooled


@dataclass(frozen=True)
class MixerOptions:
    """What the mixers of a network are made with; `LambdaResNet` explains them.

    Attributes:
        lambdas: of the lambda layers, all but max_size.
        attention_heads: heads of the attention layers.
        attention_scope: window of local attention, and scope of the lambda convolution.
        share_positions: one position table for the lambda layers of a stage.
        tables: those that are shared, by stage and scope.
    """

    lambdas: ImageOptions
    attention_heads: int = 8
    attention_scope: tuple[int, int] = (7, 7)
    share_positions: bool = False
    tables: dict[tuple[int, object], RelativePositionTable] = field(default_factory=dict)


class Place(NamedTuple):
    """Where a mixer stands: its stage, and the largest map that comes in, if an image_size is given."""

    stage: int
    size: tuple[int, int] | None


class Mixer(NamedTuple):
    """A kind of layer: what it is called, and how it is made from width, stride, options and place."""

    title: str
    make: Callable[[int, int, MixerOptions, Place], nn.Module]
    sized: bool = False  # has tables that need the largest map, whatever the scope of lambdas


def make_mixer(letter: str, options: MixerOptions, place: Place) -> Callable[[int, int], nn.Module]:
    """What makes the mixer of this letter from width and stride, as `Bottleneck` asks for."""
    return lambda width, stride: MIXERS[letter].make(width, stride, options, place)


def check_sizes(letters: Sequence[str], options: MixerOptions, size: tuple[int, int] | None) -> None:
    """Raise ValueError if global tables of relative positions lack the largest picture.

    Args:
        letters: of the blocks of each stage.
        options: of the mixers.
        size: image_size, if given.
    """
    if size is not None:
        return
    found = sorted(set("".join(letters)))
    if "L" in found and needs_size(options.lambdas["position"], options.lambdas["scope"]):
        raise ValueError(
            "scope=None is global and its tables need the largest picture: give image_size=(H, W), or a local scope"
        )
    for letter in found:
        if MIXERS[letter].sized:
            raise ValueError(
                f"image_size=None with {letter!r} ({MIXERS[letter].title}) in the placement: its tables of relative "
                "positions need the largest picture; give image_size=(H, W)"
            )


def _convolution(width: int, stride: int, options: MixerOptions, place: Place) -> nn.Module:
    return Convolution(width, stride)


def _lambda(width: int, stride: int, options: MixerOptions, place: Place, **own: Unpack[ImageOptions]) -> nn.Module:
    lambdas: ImageLayerOptions = {**options.lambdas, **own}
    lambdas["max_size"] = place.size if lambdas["scope"] is None else None
    key = (place.stage, lambdas["scope"])
    if options.share_positions and key in options.tables:
        lambdas["position"] = options.tables[key]
    layer = LambdaLayer2d(width, **lambdas)
    if options.share_positions and isinstance(layer.position, RelativePositionTable):
        # The first has the largest map of its stage, as the stride is behind it
        options.tables.setdefault(key, layer.position)
    return Lambda(layer, stride)


def _lambda_convolution(width: int, stride: int, options: MixerOptions, place: Place) -> nn.Module:
    return _lambda(width, stride, options, place, scope=options.attention_scope, algorithm="convolution")


def _linear(width: int, stride: int, options: MixerOptions, place: Place) -> nn.Module:
    return Pooled(LinearAttention(width, options.attention_heads), stride)


def _global(width: int, stride: int, options: MixerOptions, place: Place) -> nn.Module:
    assert place.size is not None  # check_sizes
    return Pooled(RelativeAttention(width, heads=options.attention_heads, max_size=place.size), stride)


def _axial(width: int, stride: int, options: MixerOptions, place: Place) -> nn.Module:
    assert place.size is not None  # check_sizes
    return Pooled(AxialAttention(width, heads=options.attention_heads, max_size=place.size), stride)


def _local(width: int, stride: int, options: MixerOptions, place: Place) -> nn.Module:
    return Pooled(LocalAttention(width, heads=options.attention_heads, scope=options.attention_scope), stride)


MIXERS = {
    "C": Mixer("convolution", _convolution),
    "L": Mixer("lambda layer", _lambda),
    "K": Mixer("lambda convolution", _lambda_convolution),
    "E": Mixer("linear attention", _linear),
    "G": Mixer("global self-attention", _global, sized=True),
    "A": Mixer("axial self-attention", _axial, sized=True),
    "S": Mixer("local self-attention", _local),
}

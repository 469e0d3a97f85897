"""The LambdaResNets of timm, with our lambda layer; `lambda_seq.interop.timm` loads their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Unpack

from torch import nn

from lambda_seq.layers import LambdaLayer2d, checks
from lambda_seq.layers.biased import BiasedLambdaLayer2d
from lambda_seq.layers.options import HeadOptions, complete, part, with_options
from lambda_seq.models.drop import depth_rates
from lambda_seq.models.heads import Inputs, make_objective
from lambda_seq.models.model import Model
from lambda_seq.models.registry import register_model
from lambda_seq.models.vision.bottleneck import (
    EXPANSION,
    Bottleneck,
    Convolution,
    Lambda,
    Normalised,
    Stage,
    reset_residual,
)
from lambda_seq.models.vision.options import TieredOptions
from lambda_seq.models.vision.pyramid import Pyramidal
from lambda_seq.models.vision.resnet import parse_placement, picture_size

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}


@register_model("lambda_resnet26t", blocks=(2, 2, 2, 2), placement=("C", "C", "CL", "L"))
@register_model(
    "lambda_resnet26rpt_256", blocks=(2, 2, 2, 2), placement=("C", "C", "CL", "L"), scope=None, image_size=256
)
@register_model("lambda_resnet50ts", blocks=(3, 4, 6, 3), placement=("C", "CCCL", "CLCLCL", "CLC"), activation="silu")
@with_options
class TieredLambdaResNet(Pyramidal, Model):
    """LambdaResNet as timm defines and trains it: a tiered stem, and lambdas in some blocks of the last stages.

        stem (three 3×3 convolutions, max-pool) -> stages of blocks -> mean -> linear

    Beside `LambdaResNet`: the stem's convolutions have 3/8, 1/2 and 1 of the width, a block's stride is a 2×2 average
    pool behind its lambda, and position lambdas of local scope have a bias. Pictures of any height and width; at sizes
    that a stride does not divide, where timm's networks fail, maps are rounded up. R. Wightman, timm, byoanet.py.

    Args:
        blocks: number of blocks of each stage.
        placement: "C" convolution or "L" lambda: one letter for all, a letter per stage, or a sequence with an entry
            per stage, each a letter or a letter per block.
        activation: "relu" or "silu".
        features_only: a backbone as of `LambdaResNet`, whose masks, channels, strides and feature_info it has, too.
        out_indices: as of `LambdaResNet`.
        **options: of `models.vision.options.TieredOptions`.
    """

    takes: ClassVar[Mapping[str, str]] = {"image": "a network for images, such as lambda_resnet50"}

    def __init__(
        self,
        *,
        blocks: Sequence[int] = (2, 2, 2, 2),
        placement: str | Sequence[str] = ("C", "C", "CL", "L"),
        activation: str = "relu",
        features_only: bool = False,
        out_indices: Sequence[int] | None = None,
        **options: Unpack[TieredOptions],
    ) -> None:
        super().__init__()
        options = complete(TieredOptions, options, self)
        checks.flags(features_only=features_only)
        width, image_size, scope = options["width"], options["image_size"], options["scope"]
        if width < 8 or width % 8:
            raise ValueError(f"width={width}: expected a multiple of 8, as the stem begins with 3/8 of it")
        checks.one_of("activation", activation, tuple(ACTIVATIONS))
        letters = parse_placement(placement, blocks)
        size = None if image_size is None else picture_size(image_size)
        if scope is None and size is None and any("L" in stage for stage in letters):
            raise ValueError(
                "scope=None is global and its tables need the largest picture: give image_size=(H, W), or a local scope"
            )
        self.in_channels, self.input_kind = options["in_channels"], "image"
        self.objective = make_objective(options["head"], options["head_options"])
        activate = ACTIVATIONS[activation]
        self.stem = _stem(self.in_channels, width, activate)
        rates = iter(depth_rates(options["stochastic_depth"], sum(blocks)))
        channels = width
        stages = []
        for index, stage in enumerate(letters):
            layers = []
            for block, letter in enumerate(stage):
                mix: Callable[[int, int], nn.Module] = Convolution
                if letter == "L":
                    max_size = None if size is None or scope is not None else _entering(size, index, block)
                    mix = partial(_pooled_lambda, scope=scope, max_size=max_size, **part(HeadOptions, options))
                step = 2 if index > 0 and block == 0 else 1
                layers.append(
                    TieredBottleneck(
                        channels, width * 2**index, mix, activate, stride=step, stochastic_depth=next(rates)
                    )
                )
                channels = EXPANSION * width * 2**index
            stages.append(Stage(*layers))
        self.stages = nn.Sequential(*stages)
        self.features_only = features_only
        self.begin_pyramid(out_indices, [EXPANSION * width * 2**index for index in range(len(blocks))], 4)
        inputs = Inputs(channels, self.input_kind, self.in_channels)
        self.num_classes = self.objective.outputs(inputs, options["num_classes"], default=1000)
        if not features_only:
            self.dropout = nn.Dropout(options["dropout"])
            self.head = self.objective.layer(inputs, self.num_classes)
        reset_residual(self, options["zero_init_last"])

    def resize(self, image_size: int | Sequence[int]) -> None:
        """Make global position tables cover pictures of this size, their offsets rescaled (`layers.resize_table`).

        Networks of local scope take any size as they are. The tables are new parameters: construct the optimizer
        afterwards. A model that `create_model` made is saved with its new size.

        Args:
            image_size: largest picture, an int or (H, W).

        Raises:
            ValueError: no such size.
        """
        size = picture_size(image_size)
        for index, stage in enumerate(self.stages.children()):
            for block, module in enumerate(stage.children()):
                if isinstance(module.mix, Lambda):
                    module.mix.resize(_entering(size, index, block))
        if self.options is not None:
            self.options = {**self.options, "image_size": list(size)}


class TieredBottleneck(Bottleneck):
    """`Bottleneck` with another activation than ReLU."""

    def __init__(
        self,
        channels: int,
        width: int,
        mix: Callable[[int, int], nn.Module],
        activate: Callable[[], nn.Module],
        *,
        stride: int,
        stochastic_depth: float,
    ) -> None:
        super().__init__(channels, width, mix, stride=stride, stochastic_depth=stochastic_depth)
        self.activation = activate()


def _stem(channels: int, width: int, activate: Callable[[], nn.Module]) -> Normalised:
    """(B, channels, H, W) -> (B, width, H/4, W/4)."""
    layers: list[nn.Module] = []
    for out, stride in ((3 * width // 8, 2), (width // 2, 1), (width, 1)):
        convolution = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        layers.append(Normalised(convolution, nn.BatchNorm2d(out), activate()))
        channels = out
    return Normalised(*layers, nn.MaxPool2d(3, 2, padding=1))


def _pooled_lambda(width: int, stride: int, *, scope: int | None, **options: Any) -> Lambda:
    """Mixer "L": a lambda layer at the input's resolution; a stride is a 2×2 average pool behind it."""
    layer = LambdaLayer2d if scope is None else BiasedLambdaLayer2d
    mixer = Lambda(layer(width, scope=scope, **options), 1)
    if stride > 1:
        mixer.pool = nn.AvgPool2d(stride, ceil_mode=True)
    return mixer


def _entering(size: tuple[int, int], stage: int, block: int) -> tuple[int, int]:
    """The map that comes into a block, which its lambda sees; every stride in front of it rounds up."""
    stride = 4 * 2 ** (stage - (block == 0 and stage > 0))
    return -(-size[0] // stride), -(-size[1] // stride)

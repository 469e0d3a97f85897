"""The LambdaResNets of timm, with our lambda layer; `lambda_seq.interop.timm` loads their weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from lambda_seq.layers import LambdaLayer2d
from lambda_seq.models import checks
from lambda_seq.models.biased import BiasedLambdaLayer2d
from lambda_seq.models.bottleneck import EXPANSION, Bottleneck, Convolution, Lambda, reset_residual
from lambda_seq.models.drop import depth_rates
from lambda_seq.models.registry import Model, register_model
from lambda_seq.models.resnet import parse_placement

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}


@register_model("lambda_resnet26t", blocks=(2, 2, 2, 2), placement=("C", "C", "CL", "L"))
@register_model(
    "lambda_resnet26rpt_256", blocks=(2, 2, 2, 2), placement=("C", "C", "CL", "L"), scope=None, image_size=256
)
@register_model("lambda_resnet50ts", blocks=(3, 4, 6, 3), placement=("C", "CCCL", "CLCLCL", "CLC"), activation="silu")
class TieredLambdaResNet(Model):
    """LambdaResNet as timm defines and trains it: a tiered stem, and lambdas in some blocks of the last stages.

        stem (three 3×3 convolutions, max-pool) -> stages of blocks -> mean -> linear

    Beside `LambdaResNet`: the stem's convolutions have 3/8, 1/2 and 1 of the width, a block's stride is a 2×2 average
    pool behind its lambda, and position lambdas of local scope have a bias. Pictures of any height and width; at sizes
    that a stride does not divide, where timm's networks fail, maps are rounded up. R. Wightman, timm, byoanet.py.

    Args:
        num_classes: length of the output.
        in_channels: channels of the pictures.
        blocks: number of blocks of each stage.
        placement: "C" convolution or "L" lambda: one letter for all, a letter per stage, or a sequence with an entry
            per stage, each a letter or a letter per block.
        width: bottleneck channels of the first stage, doubled by each further stage; outputs are four times that.
        activation: "relu" or "silu".
        heads: queries that share one lambda.
        dim_key: query and key depth.
        scope: rows and columns of context of the position lambdas, odd; None for global.
        image_size: largest picture (an int or (H, W)) that global position tables cover; needed with scope=None.
        zero_init_last: start with γ = 0 in the last batch norm of each block, so that it is the identity.
        dropout: of the pooled features, before the classifier.
        stochastic_depth: probability of leaving out the last block's branch, falling linearly to 0 at the first.

    Raises:
        ValueError: an option that does not fit, naming it, its value and what would.
    """

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        blocks: Sequence[int] = (2, 2, 2, 2),
        placement: str | Sequence[str] = ("C", "C", "CL", "L"),
        width: int = 64,
        activation: str = "relu",
        heads: int = 4,
        dim_key: int = 16,
        scope: int | None = 9,
        image_size: int | Sequence[int] | None = None,
        zero_init_last: bool = True,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        checks.at_least_one(num_classes=num_classes, in_channels=in_channels)
        checks.integers(width=width)
        if width < 8 or width % 8:
            raise ValueError(f"width={width}: expected a multiple of 8, as the stem begins with 3/8 of it")
        checks.one_of("activation", activation, tuple(ACTIVATIONS))
        checks.probability(dropout=dropout, stochastic_depth=stochastic_depth)
        letters = parse_placement(placement, blocks)
        size = _size(image_size)
        if scope is None and size is None and any("L" in stage for stage in letters):
            raise ValueError(
                "scope=None is global and its tables need the largest picture: give image_size=(H, W), or a local scope"
            )
        self.num_classes, self.in_channels, self.input_kind = num_classes, in_channels, "image"
        activate = ACTIVATIONS[activation]
        self.stem = _stem(in_channels, width, activate)
        rates = iter(depth_rates(stochastic_depth, sum(blocks)))
        channels = width
        stages = []
        for index, stage in enumerate(letters):
            layers = []
            for block, letter in enumerate(stage):
                mix: Callable[[int, int], nn.Module] = Convolution
                if letter == "L":
                    max_size = None if size is None else _entering(size, index, block)
                    mix = partial(_pooled_lambda, heads=heads, dim_key=dim_key, scope=scope, max_size=max_size)
                step = 2 if index > 0 and block == 0 else 1
                layers.append(
                    TieredBottleneck(
                        channels, width * 2**index, mix, activate, stride=step, stochastic_depth=next(rates)
                    )
                )
                channels = EXPANSION * width * 2**index
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, num_classes)
        reset_residual(self, zero_init_last)

    def features(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Output of the last stage, a 32nd of the size."""
        checks.pictures("x", x, self.in_channels)
        return self.stages(self.stem(x))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B classes"]:
        """Logits of a batch of pictures.

        Raises:
            TypeError: x is not floating point.
            ValueError: x is not (B, in_channels, H, W), or larger than global position tables.
        """
        pooled = self.features(x).mean((2, 3))  # (B, D)
        return self.head(self.dropout(pooled))  # (B, classes)

    def resize(self, image_size: int | Sequence[int]) -> None:
        """Make global position tables cover pictures of this size, their offsets rescaled (`layers.resize_table`).

        Networks of local scope take any size as they are. The tables are new parameters: construct the optimizer
        afterwards. A model that `create_model` made is saved with its new size.

        Args:
            image_size: largest picture, an int or (H, W).

        Raises:
            ValueError: no such size.
        """
        size = _size(image_size)
        if size is None:
            raise ValueError("image_size=None: expected an int or a pair (rows, columns) of at least 1")
        for index, stage in enumerate(self.stages):
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

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """(B, channels, H, W) -> (B, 4 · width, H/stride, W/stride)."""
        branch = self.activation(self.norm1(self.conv1(x)))  # (B, width, H, W)
        branch = self.activation(self.norm2(self.mix(branch)))  # (B, width, h, w)
        branch = self.drop(self.norm3(self.conv3(branch)))  # (B, 4 · width, h, w)
        return self.activation(branch + self.shortcut(x))


def _stem(channels: int, width: int, activate: Callable[[], nn.Module]) -> nn.Sequential:
    """(B, channels, H, W) -> (B, width, H/4, W/4)."""
    layers: list[nn.Module] = []
    for out, stride in ((3 * width // 8, 2), (width // 2, 1), (width, 1)):
        convolution = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        layers.append(nn.Sequential(convolution, nn.BatchNorm2d(out), activate()))
        channels = out
    return nn.Sequential(*layers, nn.MaxPool2d(3, 2, padding=1))


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


def _size(image_size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if image_size is None:
        return None
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"image_size={image_size}: expected an int or a pair (rows, columns) of at least 1")
    return size[0], size[1]

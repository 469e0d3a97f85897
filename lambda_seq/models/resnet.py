"""LambdaResNet: residual networks whose bottlenecks mix by convolution or by lambda layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

from lambda_seq.layers import LambdaLayer2d
from lambda_seq.models import checks
from lambda_seq.models.bottleneck import EXPANSION, Bottleneck, Convolution, Lambda, make_stem
from lambda_seq.models.drop import depth_rates
from lambda_seq.models.registry import Model

MIXERS = {"C": "convolution", "L": "lambda layer"}


class LambdaResNet(Model):
    """Residual network of bottleneck blocks, each mixing by a 3×3 convolution or by a lambda layer.

        stem -> stages of blocks, the first block of each but the first stage with stride 2 -> mean -> linear

    Pictures of any height and width. I. Bello, "LambdaNetworks", ICLR 2021; K. He et al., CVPR 2016.

    Args:
        num_classes: length of the output.
        in_channels: channels of the pictures.
        blocks: number of blocks of each stage; any number of stages.
        placement: "C" convolution or "L" lambda: one letter for all, a letter per stage ("CCLL"), or a sequence with
            an entry per stage, each a letter or a letter per block (["C", "C", "CCLCCL", "L"]).
        width: bottleneck channels of the first stage, doubled by each further stage; outputs are four times that.
        stem: "imagenet" (7×7 stride 2, max-pool), "resnet_d" (four 3×3 convolutions, stride 4) or "small" (3×3,
            no stride).
        se: squeeze-and-excitation ratio; a number for all stages or one per stage; 0 for none.
        heads: queries that share one lambda.
        dim_key: query and key depth.
        dim_intra: intra-depth, the number of lambdas summed.
        scope: rows and columns of context of the position lambdas, odd, an int or a pair; None for global.
        image_size: largest picture (an int or (H, W)) that global position tables cover; needed with scope=None.
        content: with the content lambda.
        position: with the position lambda.
        key_norm: keys over the context positions: "softmax", "l2" or "none".
        query_norm: queries over their depth: "none" or "softmax".
        lambda_norm: of queries and values: "batch", "layer", "rms" or "none".
        position_init: of the position table: "scaled" or "paper".
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
        blocks: Sequence[int] = (3, 4, 6, 3),
        placement: str | Sequence[str] = "L",
        width: int = 64,
        stem: str = "imagenet",
        se: float | Sequence[float] = 0.0,
        heads: int = 4,
        dim_key: int = 16,
        dim_intra: int = 1,
        scope: int | Sequence[int] | None = 23,
        image_size: int | Sequence[int] | None = None,
        content: bool = True,
        position: bool = True,
        key_norm: str = "softmax",
        query_norm: str = "none",
        lambda_norm: str = "batch",
        position_init: str = "scaled",
        zero_init_last: bool = True,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        checks.at_least_one(num_classes=num_classes, in_channels=in_channels, width=width)
        checks.probability(dropout=dropout, stochastic_depth=stochastic_depth)
        letters = parse_placement(placement, blocks)
        ratios = _per_stage("se", se, len(blocks))
        size = None if image_size is None else _pair("image_size", image_size)
        if scope is None and position and size is None and any("L" in stage for stage in letters):
            raise ValueError(
                "scope=None is global and its tables need the largest picture: give image_size=(H, W), or a local scope"
            )
        self.num_classes, self.in_channels, self.input_kind = num_classes, in_channels, "image"
        lambda_layer = partial(
            LambdaLayer2d,
            heads=heads,
            dim_key=dim_key,
            dim_intra=dim_intra,
            scope=None if scope is None else _pair("scope", scope),
            content=content,
            position=position,
            key_norm=key_norm,
            query_norm=query_norm,
            norm=lambda_norm,
            init=position_init,
        )
        self.stem, stride = make_stem(stem, in_channels, width)
        self.stages = nn.ModuleList()
        rates = iter(depth_rates(stochastic_depth, sum(blocks)))
        channels = width
        for index, stage in enumerate(letters):
            layers = []
            for block, letter in enumerate(stage):
                step = 2 if index > 0 and block == 0 else 1
                mix: Callable[[int, int], nn.Module] = Convolution
                if letter == "L":
                    # A lambda sees its block's input; every stride in front of it rounds up.
                    max_size = None if size is None else (-(-size[0] // stride), -(-size[1] // stride))
                    mix = partial(_make_lambda, partial(lambda_layer, max_size=max_size))
                layers.append(
                    Bottleneck(
                        channels,
                        width * 2**index,
                        mix,
                        stride=step,
                        se=ratios[index],
                        stochastic_depth=next(rates),
                    )
                )
                channels, stride = EXPANSION * width * 2**index, stride * step
            self.stages.append(nn.Sequential(*layers))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, num_classes)
        self._reset_parameters(zero_init_last)

    def _reset_parameters(self, zero_init_last: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck) and zero_init_last:
                nn.init.zeros_(module.norm3.weight)

    def features(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Output of the last stage."""
        checks.floating("x", x)
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"x has shape {tuple(x.shape)}: expected pictures (B, C, H, W) with C = in_channels={self.in_channels}"
            )
        x = self.stem(x)  # (B, width, H/4, W/4), or H, W
        for stage in self.stages:
            x = stage(x)  # (B, 4 · width · 2^stage, h, w)
        return x

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B classes"]:
        """Logits of a batch of pictures.

        Raises:
            TypeError: x is not floating point.
            ValueError: x is not (B, in_channels, H, W), or larger than global position tables.
        """
        pooled = self.features(x).mean((2, 3))  # (B, D)
        return self.head(self.dropout(pooled))  # (B, classes)


def parse_placement(placement: str | Sequence[str], blocks: Sequence[int]) -> list[str]:
    """The letter of each block of each stage: ("CL", (2, 3)) -> ["CC", "LLL"].

    Raises:
        ValueError: another letter than C and L, or a count of letters that fits neither stages nor blocks.
    """
    if not blocks or min(blocks) < 1:
        raise ValueError(f"blocks={tuple(blocks)}: expected at least one stage, and one block in each")
    entries = list(placement) * (len(blocks) if len(placement) == 1 else 1)
    if len(entries) != len(blocks):
        raise ValueError(
            f"placement={placement!r} has {len(entries)} entries: expected 1, or one for each of the {len(blocks)} "
            f"stages of blocks={tuple(blocks)}"
        )
    letters = []
    for stage, (entry, count) in enumerate(zip(entries, blocks, strict=True)):
        if not entry or set(entry) - set(MIXERS):
            raise ValueError(
                f"placement={placement!r}, stage {stage}: {entry!r}: expected letters out of "
                + ", ".join(f"{letter!r} ({mixer})" for letter, mixer in MIXERS.items())
            )
        if len(entry) not in (1, count):
            raise ValueError(
                f"placement={placement!r}, stage {stage}: {entry!r} has {len(entry)} letters: expected 1, or one for "
                f"each of its {count} blocks"
            )
        letters.append(entry * (count if len(entry) == 1 else 1))
    return letters


def _make_lambda(make_layer: Callable[[int], LambdaLayer2d], width: int, stride: int) -> Lambda:
    return Lambda(make_layer(width), stride)


def _per_stage(name: str, value: float | Sequence[float], stages: int) -> list[float]:
    values = [value] * stages if isinstance(value, (int, float)) else list(value)
    if len(values) != stages or not all(0 <= number <= 1 for number in values):
        raise ValueError(f"{name}={value}: expected a ratio from 0 to 1, or one for each of the {stages} stages")
    return values


def _pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2:
        raise ValueError(f"{name}={value}: expected an int or a pair (rows, columns)")
    return pair[0], pair[1]

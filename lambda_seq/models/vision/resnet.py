"""LambdaResNet: residual networks whose bottlenecks mix by convolution, lambda layer or attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Unpack

from torch import nn

from lambda_seq.layers import RelativePositionTable, checks
from lambda_seq.layers.options import ImageOptions, complete, part, with_options
from lambda_seq.models.drop import depth_rates
from lambda_seq.models.heads import Inputs, make_objective
from lambda_seq.models.model import Model
from lambda_seq.models.sequence.mixers import MIXERS, MixerOptions, Place, check_sizes, make_mixer
from lambda_seq.models.vision.bottleneck import EXPANSION, Bottleneck, Pooled, Stage, make_stem, reset_residual
from lambda_seq.models.vision.options import ResNetOptions
from lambda_seq.models.vision.pyramid import Pyramidal


@with_options
class LambdaResNet(Pyramidal, Model):
    """Residual network of bottleneck blocks, each mixing by a 3×3 convolution, a lambda layer or an attention layer.

        stem -> stages of blocks, the first block of each but the first stage with stride 2 -> mean -> linear

    Pictures of any height and width; where tables of positions are global, up to image_size, and `resize` changes it.
    `pyramid` and `features_only` give the stages' outputs to dense prediction. All take a mask (B, H, W), True at real
    pixels, so that pictures of several sizes can be padded to one batch.

    I. Bello, "LambdaNetworks", ICLR 2021; K. He et al., CVPR 2016.

    Args:
        blocks: number of blocks of each stage; any number of stages.
        placement: what blocks mix with: one letter for all, a letter per stage ("CCLL"), or a sequence with an entry
            per stage, each a letter or a letter per block (["C", "C", "CCLCCL", "L"]). "C" 3×3 convolution, "L" lambda
            layer, "K" lambda convolution (a lambda layer of scope attention_scope, computed as a convolution),
            "E" linear attention, and with relative positions "G" global, "A" axial, "S" local self-attention.
        stem: "imagenet" (7×7 stride 2, max-pool), "resnet_d" (four 3×3 convolutions, stride 4) or "small" (3×3,
            no stride).
        se: squeeze-and-excitation ratio; a number for all stages or one per stage; 0 for none.
        share_positions: one position table for all lambda layers of a stage.
        attention_heads: heads of "E", "G", "A" and "S".
        attention_scope: rows and columns that "S" and "K" see, odd, an int or a pair.
        features_only: no classifier; the output is `pyramid(x)`, a list of feature maps.
        out_indices: stages of the pyramid, rising; 0 is c2, −1 the last; None for all.
        **options: of `models.vision.options.ResNetOptions`.

    Attributes:
        channels: of the pyramid's maps, a list.
        strides: pixels of the picture per pixel of each of them.
        feature_info: both, as timm's backbones say them: `feature_info.channels()`, `feature_info.reduction()`.
        image_size: largest picture that global position tables cover, (H, W); None where not given.
    """

    takes: ClassVar[Mapping[str, str]] = {"image": "a network for images, such as lambda_resnet50"}

    def __init__(
        self,
        *,
        blocks: Sequence[int] = (3, 4, 6, 3),
        placement: str | Sequence[str] = "L",
        stem: str = "imagenet",
        se: float | Sequence[float] = 0.0,
        share_positions: bool = False,
        attention_heads: int = 8,
        attention_scope: int | Sequence[int] = 7,
        features_only: bool = False,
        out_indices: Sequence[int] | None = None,
        **options: Unpack[ResNetOptions],
    ) -> None:
        super().__init__()
        options = complete(ResNetOptions, options, self)
        checks.flags(share_positions=share_positions, features_only=features_only)
        width, image_size = options["width"], options["image_size"]
        letters = parse_placement(placement, blocks, "".join(MIXERS))
        ratios = _per_stage("se", se, len(blocks))
        self.in_channels, self.input_kind = options["in_channels"], "image"
        self.objective = make_objective(options["head"], options["head_options"])
        self.image_size = None if image_size is None else picture_size(image_size)
        self.features_only = features_only
        lambdas = part(ImageOptions, options)
        if lambdas["scope"] is not None:
            lambdas["scope"] = pair("scope", lambdas["scope"])
        mixers = MixerOptions(
            lambdas,
            attention_heads=attention_heads,
            attention_scope=pair("attention_scope", attention_scope),
            share_positions=share_positions,
        )
        check_sizes(letters, mixers, self.image_size)
        self.stem, self.stem_stride = make_stem(stem, self.in_channels, width)
        self.stages: nn.ModuleList = nn.ModuleList()
        rates = iter(depth_rates(options["stochastic_depth"], sum(blocks)))
        self.depths = tuple(blocks)
        sizes = None if self.image_size is None else _map_sizes(self.image_size, self.stem_stride, blocks)
        channels = width
        for index, stage in enumerate(letters):
            layers = []
            for block, letter in enumerate(stage):
                place = Place(index, None if sizes is None else next(sizes))
                layers.append(
                    Bottleneck(
                        channels,
                        width * 2**index,
                        make_mixer(letter, mixers, place),
                        stride=_stride(index, block),
                        se=ratios[index],
                        stochastic_depth=next(rates),
                    )
                )
                channels = EXPANSION * width * 2**index
            self.stages.append(Stage(*layers))
        widths = [EXPANSION * width * 2**index for index in range(len(blocks))]
        self.begin_pyramid(out_indices, widths, self.stem_stride)
        inputs = Inputs(channels, self.input_kind, self.in_channels)
        self.num_classes = self.objective.outputs(inputs, options["num_classes"], default=1000)
        if not features_only:
            self.dropout = nn.Dropout(options["dropout"])
            self.head = self.objective.layer(inputs, self.num_classes)
        reset_residual(self, options["zero_init_last"])

    def resize(self, image_size: int | Sequence[int]) -> None:
        """Make global tables of relative positions cover pictures of this size, their offsets rescaled.

        Networks of local scope take any size as they are. `layers.resize_table` says how; weights of another size are
        loaded with `layers.resize_positions`. The tables are new parameters: construct the optimizer afterwards. A
        model that `create_model` made is saved with its new size.

        Args:
            image_size: largest picture, an int or (H, W).

        Raises:
            ValueError: no such size.
        """
        size = picture_size(image_size)
        done: set[nn.Module] = set()
        sizes = _map_sizes(size, self.stem_stride, self.depths)
        blocks = (module for module in self.modules() if isinstance(module, Bottleneck))
        for block, entering in zip(blocks, sizes, strict=True):
            tables = {module for module in block.mix.modules() if isinstance(module, RelativePositionTable)}
            # A table that a stage shares has the size of the first map
            if isinstance(block.mix, Pooled) and not tables & done:
                block.mix.resize(entering)
            done |= tables
        self.image_size = size
        if self.options is not None:
            self.options = {**self.options, "image_size": list(size)}


def parse_placement(placement: str | Sequence[str], blocks: Sequence[int], accepted: str = "CL") -> list[str]:
    """The letter of each block of each stage: ("CL", (2, 3)) -> ["CC", "LLL"].

    Raises:
        ValueError: another letter than those accepted, or a count of letters that fits neither stages nor blocks.
    """
    if not isinstance(blocks, Sequence) or isinstance(blocks, str):
        raise TypeError(f"blocks={blocks!r}: expected the number of blocks of each stage, such as (3, 4, 6, 3)")
    checks.integers(**{f"blocks[{stage}]": count for stage, count in enumerate(blocks)})
    if not isinstance(placement, Sequence):
        raise TypeError(f"placement={placement!r}: expected letters, such as 'CCLL'")
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
        if not isinstance(entry, str) or not entry or set(entry) - set(accepted):
            raise ValueError(
                f"placement={placement!r}, stage {stage}: {entry!r}: expected letters out of "
                + ", ".join(f"{letter!r} ({MIXERS[letter].title})" for letter in accepted)
            )
        if len(entry) not in (1, count):
            raise ValueError(
                f"placement={placement!r}, stage {stage}: {entry!r} has {len(entry)} letters: expected 1, or one for "
                f"each of its {count} blocks"
            )
        letters.append(entry * (count if len(entry) == 1 else 1))
    return letters


def _stride(stage: int, block: int) -> int:
    return 2 if stage > 0 and block == 0 else 1


def _map_sizes(size: tuple[int, int], stem_stride: int, blocks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The largest map that comes into each block; every stride in front of it rounds up."""
    stride = stem_stride
    for stage, count in enumerate(blocks):
        for block in range(count):
            yield -(-size[0] // stride), -(-size[1] // stride)
            stride *= _stride(stage, block)


def picture_size(image_size: int | Sequence[int]) -> tuple[int, int]:
    """(H, W) of an int or a pair; raises ValueError for one below 1."""
    size = pair("image_size", image_size)
    if min(size) < 1:
        raise ValueError(f"image_size={image_size}: expected at least one pixel")
    return size


def _per_stage(name: str, value: float | Sequence[float], stages: int) -> list[float]:
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value] * stages
    for ratio in values:
        checks.numbers(**{name: ratio})
    if len(values) != stages or not all(0 <= number <= 1 for number in values):
        raise ValueError(f"{name}={value}: expected a ratio from 0 to 1, or one for each of the {stages} stages")
    return values


def pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """(rows, columns) of an int or a pair."""
    rows, columns = checks.per_dimension(name, value, 2)
    return rows, columns

"""Feature maps of residual networks: what dense prediction takes, for pictures of one size or padded in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from jaxtyping import Bool, Float
from torch import Tensor, nn

from lambda_seq.layers import checks
from lambda_seq.models.vision.bottleneck import Normalised, Stage
from lambda_seq.models.vision.masking import blank, mean, strided


class FeatureInfo:
    """What the maps of a pyramid are, asked as of timm's backbones.

    Args:
        channels: of each map.
        reductions: pixels of the picture per pixel of each map.
        stages: of the network that the maps come from.
    """

    def __init__(self, channels: Sequence[int], reductions: Sequence[int], stages: Sequence[int]) -> None:
        self.out_indices = tuple(stages)
        maps = zip(channels, reductions, stages, strict=True)
        self.info = [
            {"num_chs": width, "reduction": stride, "module": f"stages.{stage}", "index": stage}
            for width, stride, stage in maps
        ]

    def channels(self, idx: int | Sequence[int] | None = None) -> Any:
        """Channels of all maps, as a list; of some of them, or as a number of one."""
        return self._of("num_chs", idx)

    def reduction(self, idx: int | Sequence[int] | None = None) -> Any:
        """Pixels of the picture per pixel of all maps, as a list; of some of them, or as a number of one."""
        return self._of("reduction", idx)

    def module_name(self, idx: int | Sequence[int] | None = None) -> Any:
        """Names of the modules that make the maps."""
        return self._of("module", idx)

    def get_dicts(self, keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Of each map "num_chs", "reduction", "module" and "index", or the keys that are asked for."""
        return [{key: one[key] for key in keys or one} for one in self.info]

    def __getitem__(self, place: int) -> dict[str, Any]:
        return self.info[place]

    def __len__(self) -> int:
        return len(self.info)

    def _of(self, key: str, idx: int | Sequence[int] | None) -> Any:
        if isinstance(idx, int):
            return self.info[idx][key]
        return [self.info[place][key] for place in (range(len(self)) if idx is None else idx)]


class Pyramidal:
    """The steps of a residual network with a stem and stages, over all pixels or over those of a mask.

    A network is `(Pyramidal, Model)` and calls `begin_pyramid` when its stages are made.
    """

    in_channels: int
    features_only: bool
    stem: Normalised
    stages: nn.Module
    dropout: nn.Module
    head: nn.Module

    def begin_pyramid(self, out_indices: Sequence[int] | None, channels: Sequence[int], stem_stride: int) -> None:
        """Choose the stages of the pyramid: `channels` are those of all stages.

        Raises:
            TypeError, ValueError: no such stages.
        """
        self.out_indices = _indices(out_indices, len(channels))
        self.channels = [channels[index] for index in self.out_indices]
        self.strides = [stem_stride * 2**index for index in self.out_indices]
        self.feature_info = FeatureInfo(self.channels, self.strides, self.out_indices)

    def features(
        self, x: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B H W"] | None = None
    ) -> Float[Tensor, "B D h w"]:
        """Output of the last stage; zero at padding, of which a mask is False."""
        return self._stages(x, mask, [_last(self)])[0][0]

    def pyramid(
        self, x: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B H W"] | None = None
    ) -> list[Float[Tensor, "B D h w"]]:
        """Outputs of the stages `out_indices`, from fine to coarse: c2 … c5 of a network of four stages.

        Map i has channels[i] channels, and a pixel for strides[i] × strides[i] of the picture, rounded up.

        Args:
            x: pictures, those of other sizes padded below and to their right.
            mask: True at real pixels. Maps are zero at padding, and elsewhere what a picture alone gives: neither its
                batch nor its padding matters.
        """
        return self._stages(x, mask, self.out_indices)[0]

    def forward(
        self, x: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B H W"] | None = None
    ) -> Float[Tensor, "B classes"] | list[Float[Tensor, "B D h w"]]:
        """Logits of a batch of pictures; with features_only the feature maps of `pyramid`.

        Raises:
            TypeError: x is not floating point, or mask not bool.
            ValueError: x is not (B, in_channels, H, W), or larger than global position tables; a mask of another size,
                or for a network with attention layers.
        """
        if self.features_only:
            return self.pyramid(x, mask)
        (features,), real = self._stages(x, mask, [_last(self)])
        return self.head(self.dropout(mean(features, real)))  # (B, classes)

    def _stages(
        self, x: Tensor, mask: Tensor | None, wanted: Sequence[int]
    ) -> tuple[list[Tensor], Bool[Tensor, "B h w"] | None]:
        """Maps of these stages, and the mask of the last."""
        checks.pictures("x", x, self.in_channels)
        checks.masked(mask, [x.shape[0], *x.shape[2:]])
        if mask is None:
            x = self.stem(x)  # (B, width, H/4, W/4), or H, W
        else:
            x, mask = self.stem.masked(x, mask)
        outputs = []
        for index, stage in enumerate(_stages(self)):
            if index > wanted[-1]:
                break
            x = stage(x) if mask is None else stage(x, mask)  # (B, 4 · width · 2^stage, h, w)
            mask = strided(mask, stage.stride)
            if index in wanted:
                outputs.append(blank(x, mask))
        return outputs, mask


def _stages(network: Pyramidal) -> list[Stage]:
    return cast("list[Stage]", list(network.stages.children()))


def _last(network: Pyramidal) -> int:
    return len(_stages(network)) - 1


def _indices(out_indices: Sequence[int] | None, stages: int) -> list[int]:
    if out_indices is None:
        return list(range(stages))
    checks.integers(**{f"out_indices[{place}]": index for place, index in enumerate(out_indices)})
    indices = [index + stages if index < 0 else index for index in out_indices]
    if not indices or indices != sorted(set(indices)) or not 0 <= indices[0] <= indices[-1] < stages:
        raise ValueError(
            f"out_indices={tuple(out_indices)}: expected stages in rising order, 0 to {stages - 1} (or from −{stages} "
            "to −1, counted from the last)"
        )
    return indices

"""Mask R-CNN on a network of the registry: torchvision's heads, and masks of what is real in a padded batch.

K. He et al., "Mask R-CNN", ICCV 2017; T.-Y. Lin et al., "Feature Pyramid Networks", CVPR 2017. Pictures of a batch are
padded to one size. Here no layer sees the padding, so that a picture has the same boxes alone and in any batch:

- the mask of real pixels goes with the pictures, as their last channel, into backbone and pyramid;
- the proposals come from real positions only, and only these are trained;
- where objects are cut out of the maps, their scale is that of the backbone, not guessed from the pictures' sizes, and
  what lies behind a map's border is zero, whether by padding or not.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator, RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.poolers import initLevelMapper
from torchvision.transforms import v2

from lambda_seq.models.vision.masking import blank, strided
from lambda_seq.tasks.detection.changes import fitted

NEVER = -1e4  # objectness of what is not real: its probability is zero in any precision
ASPECTS = (0.5, 1.0, 2.0)  # height to width of anchors
BOX, MASK = 7, 14  # cells of what is cut out of the maps, for boxes and for masks


class Sizes(NamedTuple):
    """How wide the detector is, and what it looks for.

    Attributes:
        channels: of the pyramid's maps.
        head_width: of the two layers that say what a box holds.
        anchor_scale: side of the anchors of each map, in its pixels.
        detections: boxes per picture, at most.
        threshold: least score of a box.
        samples: proposals of a picture that the heads learn from.
        head_norm: whether the heads have group norms, and four convolutions in front of the two layers.
        mask_width: channels of the convolutions that outline an object; None: as many as of the pyramid's maps.
    """

    channels: int = 256
    head_width: int = 1024
    anchor_scale: float = 8.0
    detections: int = 100
    threshold: float = 0.05
    samples: int = 512
    head_norm: bool = False
    mask_width: int | None = None


def make_detector(
    body: nn.Module,
    classes: int,
    masks: bool,
    *,
    size: int,
    max_size: int,
    mean: list[float],
    std: list[float],
    sizes: Sizes,
) -> FasterRCNN:
    """The detector on a body.

    Args:
        body: a backbone with `feature_info`, (B, C, H, W) and mask (B, H, W) -> maps from fine to coarse.
        classes: number of them, without the ground.
        masks: whether objects are outlined.
        size, max_size: of the shorter side of pictures, and at most of the longer one.
        mean, std: of the channels of pixels from 0 to 1.
        sizes: of the heads.
    """
    backbone = Backbone(body, sizes.channels)
    strides = [*body.feature_info.reduction()]  # type: ignore[union-attr, operator]
    names = [str(place) for place in range(len(strides))]
    anchors = AnchorGenerator(
        tuple((round(sizes.anchor_scale * stride),) for stride in [*strides, 2 * strides[-1]]),
        (ASPECTS,) * (len(strides) + 1),
    )
    options: dict[str, Any] = {
        "min_size": size,
        "max_size": max_size,
        "image_mean": mean,
        "image_std": std,
        "rpn_anchor_generator": anchors,
        "rpn_head": MaskedHead(sizes.channels, len(ASPECTS)),
        "rpn_score_thresh": torch.finfo(torch.float32).tiny,  # none of what is not real
        "box_roi_pool": _aligned(names, BOX, strides),
        "box_head": _box_head(sizes),
        "box_predictor": FastRCNNPredictor(sizes.head_width, classes + 1),
        "box_detections_per_img": sizes.detections,
        "box_score_thresh": sizes.threshold,
        "box_batch_size_per_image": sizes.samples,
        "size_divisible": 2 * strides[-1],  # the coarsest map of all, so that each stride is exact
    }
    kind = FasterRCNN
    if masks:
        kind, width = MaskRCNN, sizes.mask_width or sizes.channels
        norm = grouped if sizes.head_norm else None
        options |= {
            "mask_roi_pool": _aligned(names, MASK, strides),
            "mask_head": MaskRCNNHeads(sizes.channels, (width,) * 4, 1, norm_layer=norm),
            "mask_predictor": MaskRCNNPredictor(width, width, classes + 1),
        }
    detector = kind(backbone, **options)
    # The classes alone are exchanged: torchvision makes both parts itself, and takes none
    detector.rpn.__class__ = MaskedProposals
    detector.transform.__class__ = MaskedBatch
    return detector


def _box_head(sizes: Sizes) -> nn.Module:
    width = sizes.channels
    if not sizes.head_norm:
        return TwoMLPHead(width * BOX**2, sizes.head_width)
    return FastRCNNConvFCHead((width, BOX, BOX), [width] * 4, [sizes.head_width] * 2, norm_layer=grouped)


def grouped(channels: int) -> nn.GroupNorm:
    """Norms of an object's channels, in 16 groups or as many as divide them: none of other objects or pictures."""
    return nn.GroupNorm(math.gcd(channels, 16), channels)


def _aligned(names: list[str], cells: int, strides: list[int]) -> MultiScaleRoIAlign:
    pool = BorderedAlign(names, cells, 2)
    pool.scales = [1 / stride for stride in strides]
    # T.-Y. Lin et al., equation 1: objects of at least 14 cells of a map (224 pixels at stride 16) are cut from it
    usual = strides[-2] if len(strides) > 1 else strides[-1]
    finest, coarsest, middle = (stride.bit_length() - 1 for stride in (strides[0], strides[-1], usual))
    pool.map_levels = initLevelMapper(finest, coarsest, canonical_scale=14 * usual, canonical_level=middle)
    return pool


class Backbone(nn.Module):
    """A body with a feature pyramid; pictures come with their mask as the last channel.

    Args:
        body: as of `make_detector`.
        channels: of the pyramid.
    """

    def __init__(self, body: nn.Module, channels: int) -> None:
        super().__init__()
        self.body = body
        self.out_channels = channels
        self.pyramid = MaskedPyramid(
            body.feature_info.channels(),  # type: ignore[union-attr, operator]
            channels,
            extra_blocks=LastLevelMaxPool(),
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Maps by name, zero where nothing is real, of pictures (B, C + 1, H, W)."""
        pictures, mask = x[:, :-1], x[:, -1] > 0.5
        maps = OrderedDict((str(place), found) for place, found in enumerate(self.body(pictures, mask)))
        return self.pyramid(maps, masks_of(mask, maps))


class MaskedPyramid(FeaturePyramidNetwork):
    """A feature pyramid whose 3 × 3 convolutions see zeros behind a picture, as they do at a map's border."""

    masks: list[Tensor]  # of the maps of the forward pass that runs

    def forward(self, x: dict[str, Tensor], masks: list[Tensor]) -> dict[str, Tensor]:
        """Maps of one width."""
        self.masks = masks
        return super().forward(x)

    def get_result_from_layer_blocks(self, x: Tensor, idx: int) -> Tensor:
        """The convolution of a map."""
        return blank(super().get_result_from_layer_blocks(blank(x, self.masks[idx]), idx), self.masks[idx])


class MaskedHead(RPNHead):
    """Says of each position how likely objects are there: not at all where nothing is real."""

    masks: list[Tensor]  # of the maps of the forward pass that runs

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness and boxes of each map."""
        found, boxes = super().forward(x)
        return [blank(one, mask, NEVER) for one, mask in zip(found, self.masks, strict=True)], boxes


class MaskedProposals(RegionProposalNetwork):
    """Proposes boxes at real positions, and learns from these alone."""

    def forward(self, images: Any, features: dict[str, Tensor], targets: Any = None) -> Any:
        """Boxes of each picture, and the losses."""
        self.head.masks = masks_of(images.tensors[:, -1] > 0.5, features)
        return super().forward(images, features, targets)

    def assign_targets_to_anchors(self, anchors: list[Tensor], targets: Any) -> tuple[list[Tensor], list[Tensor]]:
        """What each anchor has to say; nothing where nothing is real."""
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        real = torch.cat([mask.flatten(1).repeat_interleave(len(ASPECTS), 1) for mask in self.head.masks], 1)  # (B, A)
        return [label.masked_fill(~there, -1.0) for label, there in zip(labels, real, strict=True)], boxes


class MaskedBatch(GeneralizedRCNNTransform):
    """Brings pictures to their size, but in training, whose data have it, and into one batch with its mask."""

    def resize(self, image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
        """A picture whose shorter side has `min_size` pixels, smoothed where it shrinks."""
        if self.training:
            return image, target
        height, width = image.shape[-2:]
        size = fitted(height, width, self.min_size[-1], self.max_size)
        resized = v2.functional.resize(image, size, antialias=True)
        if target is not None:
            target = {**target, "boxes": resize_boxes(target["boxes"], (height, width), size)}
        return resized, target

    def batch_images(self, images: list[Tensor], size_divisible: int = 32) -> Tensor:
        """(B, C + 1, H, W), the last channel one at real pixels."""
        real = [torch.cat([image, torch.ones_like(image[:1])]) for image in images]
        return super().batch_images(real, size_divisible)


class BorderedAlign(MultiScaleRoIAlign):
    """Cuts objects out of maps that have zeros behind their border, as those of padded pictures do."""

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """(n, channels, cells, cells) of all boxes."""
        return super().forward({name: F.pad(one, (0, 1, 0, 1)) for name, one in x.items()}, boxes, image_shapes)


def masks_of(mask: Tensor, maps: dict[str, Tensor]) -> list[Tensor]:
    """The mask of each map, whose stride divides the size of the pictures."""
    found = [strided(mask, mask.shape[1] // one.shape[2]) for one in maps.values()]
    return [one for one in found if one is not None]

"""Mask R-CNN on the networks of the paper's tables: its size and work from shapes alone, and a training step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from benchmarks.measuring import NotInstalledError, Step, WrongResultError
from torch import Tensor, nn

from lambda_seq.models import Model
from paper.building import TrainingOf, build, step_of

CLASSES = 80  # of COCO
PROPOSALS, DETECTIONS = 1000, 100  # of a picture, once trained: boxes that the heads look at, and that get masks
OBJECTS = 8  # in a picture that is trained
WIDTHS: dict[str, Any] = {"channels": 256, "head_width": 1024}  # torchvision's usual


def make_detector(body: Model, size: int) -> Any:
    """Mask R-CNN with torchvision's usual heads.

    Args:
        body: a network with features only.
        size: rows and columns of pictures.

    Raises:
        NotInstalledError: torchvision or pycocotools is missing.
    """
    from lambda_seq.tasks.detection.requirements import require  # with all of training, which other rows do without

    try:
        require()
    except ModuleNotFoundError as error:
        raise NotInstalledError(str(error)) from error
    from lambda_seq.tasks.detection.detector import Sizes, make_detector

    half = [0.5] * 3  # mean and deviation of pixels
    return make_detector(body, CLASSES, True, size=size, max_size=size, mean=half, std=half, sizes=Sizes(**WIDTHS))


class Products(nn.Module):
    """Everything of a detector that FLOPS are counted of, once: what chooses among boxes cannot run on shapes alone.

    Args:
        detector: as of `make_detector`.
    """

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor) -> None:
        """Of a picture (1, 3, H, W), all real."""
        backbone, heads = self.detector.backbone, self.detector.roi_heads
        maps = {str(place): one for place, one in enumerate(backbone.body(x))}
        features = backbone.pyramid(maps, [None] * len(maps))
        self.detector.rpn.head.masks = [None] * len(features)
        self.detector.rpn.head([*features.values()])
        boxes, masks = (
            x.new_empty(count, backbone.out_channels, *pool.output_size)
            for count, pool in ((PROPOSALS, heads.box_roi_pool), (DETECTIONS, heads.mask_roi_pool))
        )
        heads.box_predictor(heads.box_head(boxes))
        heads.mask_predictor(heads.mask_head(masks))


@dataclass(frozen=True)
class Scenes:
    """Pictures of noise with boxes, each the mask of its object; equal for equal sizes.

    Attributes:
        size: rows and columns.
        count: of pictures.
        device: where they are.
    """

    size: int
    count: int
    device: str

    def __call__(self) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        """Pictures (3, H, W) from 0 to 1, and what is in them."""
        random = torch.Generator().manual_seed(0)
        pictures, targets = [], []
        for _ in range(self.count):
            sides = self.size * (0.1 + 0.4 * torch.rand(OBJECTS, 2, generator=random))
            low = (self.size - sides) * torch.rand(OBJECTS, 2, generator=random)
            boxes = torch.cat([low, low + sides], 1)
            places = torch.arange(self.size) + 0.5
            columns, rows = ((places > boxes[:, None, i]) & (places < boxes[:, None, i + 2]) for i in (0, 1))
            target = {
                "boxes": boxes,
                "labels": torch.randint(1, CLASSES + 1, (OBJECTS,), generator=random),
                "masks": (rows[:, :, None] & columns[:, None]).to(torch.uint8),
            }
            targets.append({name: part.to(self.device) for name, part in target.items()})
            pictures.append(torch.rand(3, self.size, self.size, generator=random).to(self.device))
        return pictures, targets


class DetectorTraining(TrainingOf):
    """A training step of Mask R-CNN on a network."""

    def __call__(self) -> Step:
        """The step, on generated pictures."""
        torch.manual_seed(0)
        with torch.device(self.device):
            detector = make_detector(build(self.name, self.options, self.size), self.size).train()
        pictures, targets = Scenes(self.size, self.batch, self.device)()

        def loss() -> Tensor:
            with self.half:
                parts = detector(pictures, targets)
            if len(parts) != 5:
                raise WrongResultError(f"{self.name}: losses are {', '.join(parts)}; expected five, with loss_mask")
            return torch.stack([part.float() for part in parts.values()]).sum()

        return step_of(detector, loss, self.name)

"""COCO's figures of boxes and masks, and predictions as COCO writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from lambda_seq.tasks.detection.records import encoded
from lambda_seq.tasks.detection.turns import in_turn

FIGURES = {  # COCO's twelve, by the names that torchmetrics has for them
    "ap": "map",
    "ap50": "map_50",
    "ap75": "map_75",
    "ap_small": "map_small",
    "ap_medium": "map_medium",
    "ap_large": "map_large",
    "ar1": "mar_1",
    "ar10": "mar_10",
    "ar100": "mar_100",
    "ar_small": "mar_small",
    "ar_medium": "mar_medium",
    "ar_large": "mar_large",
}
STATES = (
    *("detection_box", "detection_mask", "detection_scores", "detection_labels"),
    *("groundtruth_box", "groundtruth_mask", "groundtruth_labels", "groundtruth_crowds", "groundtruth_area"),
)
KINDS = {"box": "bbox", "mask": "segm"}
Found = dict[str, Tensor]  # "boxes" (n, 4) as x, y, x, y, "scores", "labels" from 1 (n,), "masks" (n, H, W) of bool


class AveragePrecision(MeanAveragePrecision):
    """COCO's average precision and recall of boxes and, perhaps, masks.

    Args:
        masks: whether masks count, too.
    """

    warn_on_many_detections = False

    def __init__(self, masks: bool) -> None:
        kinds: Any = ("bbox", "segm") if masks else ("bbox",)
        super().__init__(
            iou_type=kinds,
            # COCO's own in float64: torchmetrics has them in float32, of which some recalls fall short
            iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
            rec_thresholds=np.linspace(0.0, 1.0, 101).tolist(),
            class_metrics=True,
            backend="pycocotools",
            sync_on_compute=False,
        )

    def update(self, preds: Sequence[Found], target: Sequence[Found]) -> None:
        """Count pictures: what was found, and what is there, with "iscrowd" and "area" (n,)."""
        super().update([_of_cpu(one) for one in preds], [_of_cpu(one) for one in target])

    def figures(self) -> tuple[dict[str, float], dict[int, dict[str, float]]]:
        """Figures such as "box_ap" of all pictures of all processes, and "box_ap" of each class by its label.

        What is not defined, as of sizes that do not occur, is left out; an AP of no objects at all is NaN.
        """
        for state in STATES:  # kept on the CPU, where not every backend of processes gathers tensors
            setattr(self, state, in_turn(getattr(self, state)))
        found = self.compute()
        overall: dict[str, float] = {}
        classes: dict[int, dict[str, float]] = {}
        several = len(self.iou_type) > 1
        for kind, name in KINDS.items():
            if name not in self.iou_type:
                continue
            prefix = f"{name}_" if several else ""
            for figure, theirs in FIGURES.items():
                value = float(found[prefix + theirs])
                if value >= 0 or figure == "ap":
                    overall[f"{kind}_{figure}"] = value if value >= 0 else float("nan")
            values = zip(
                found["classes"].reshape(-1).tolist(),
                found[f"{prefix}map_per_class"].reshape(-1).tolist(),
                strict=False,
            )
            for label, value in values:
                if value >= 0:
                    classes.setdefault(int(label), {})[f"{kind}_ap"] = value
        return overall, classes


def _of_cpu(found: Found) -> Found:
    return {name: part.detach().cpu() for name, part in found.items()}


def answers(found: Found) -> Found:
    """What a detector says, on the CPU, in float32 at least, its masks (n, H, W) of bool."""
    kept = {name: found[name].detach().cpu() for name in ("boxes", "scores", "labels")}
    kept = {
        name: part.float() if part.dtype in (torch.float16, torch.bfloat16) else part for name, part in kept.items()
    }
    if "masks" in found:
        kept["masks"] = (found["masks"][:, 0] > 0.5).cpu()
    return kept


def as_coco(found: Found, image: int | str, categories: Sequence[int]) -> list[dict[str, Any]]:
    """A picture's boxes as COCO's results: "image_id", "category_id", "bbox", "score" and perhaps "segmentation".

    Args:
        found: as of `answers`.
        image: the picture's id.
        categories: number of each class in the files.
    """
    low, high = found["boxes"].split(2, 1)
    boxes = torch.cat([low, high - low], 1).tolist()
    rows = [
        {"image_id": image, "category_id": categories[label - 1], "bbox": box, "score": score}
        for box, label, score in zip(boxes, found["labels"].tolist(), found["scores"].tolist(), strict=True)
    ]
    if "masks" in found:
        for row, mask in zip(rows, found["masks"].numpy(), strict=True):
            row["segmentation"] = encoded(mask)
    return rows

"""Detection: a network of the registry as the backbone of torchvision's Faster or Mask R-CNN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor, nn
from torchmetrics import Metric

from lambda_seq.layers.norm import BatchNorm
from lambda_seq.models import accepted_options
from lambda_seq.models.registry import class_of
from lambda_seq.tasks.detection.requirements import require
from lambda_seq.tasks.detection.results import BoxTable, DetectionFiles
from lambda_seq.tasks.facts import Facts
from lambda_seq.tasks.metrics import Mean, mean_loss, own_rows
from lambda_seq.tasks.networks import described, network_for
from lambda_seq.tasks.training import Batch, Training
from lambda_seq.tasks.transfer import load_weights

LOSSES = {  # torchvision's, by ours
    "objectness": "loss_objectness",
    "proposals": "loss_rpn_box_reg",
    "classes": "loss_classifier",
    "boxes": "loss_box_reg",
    "masks": "loss_mask",
}


class Detection(Training):
    """Boxes of objects and, of data with masks, their outlines: Mask R-CNN with a feature pyramid on any network.

    A picture's boxes do not depend on its batch: padding is masked everywhere, see `tasks.detection.detector`. Crowds
    are not trained. Logged are the losses, and of validation and test COCO's twelve figures, such as val/box_ap,
    val/box_ap50, val/mask_ap_small; OUTPUT_DIR gets them by class as well, with the boxes as COCO's JSON and a sheet of
    pictures. The best checkpoint is that of the greatest val/box_ap.

    Args:
        network: name of a residual network, whose maps of features are the pyramid.
        options: arguments of the network, in place of what follows from the data.
        init_from: weights of the network to start from: a checkpoint of a training, or a folder that `save_pretrained`
            wrote, such as of ImageNet.
        freeze_norms: keep the statistics of the network's batch norms as they are and use these, as is usual for
            weights to start from and few pictures in a batch.
        channels: of the feature pyramid.
        head_width: of the layers that say what a box holds.
        anchor_scale: side of anchors, in pixels of the map that they are on; smaller for smaller objects.
        detections: boxes per picture, at most.
        threshold: least score of a box.
        samples: proposals of a picture that the heads learn from.
        head_norm: group norms in the heads, and four convolutions in front of the layers that say what a box holds, as
            suits training from scratch (K. He, R. Girshick, P. Dollár, "Rethinking ImageNet Pre-training", ICCV 2019).
        mask_width: channels of the convolutions that outline an object; default: as many as `channels`.
        facts: what a data module says of its data; default: those of the trainer's.
        training: as for `Training`.

    Raises:
        ModuleNotFoundError: torchvision or pycocotools is missing.
        ValueError: a number out of range.
    """

    monitor = ("val/box_ap", "max")
    exports = False
    evaluates_best = True

    def __init__(
        self,
        network: str = "lambda_resnet50",
        options: dict[str, Any] | None = None,
        init_from: str | None = None,
        freeze_norms: bool = False,
        channels: int = 256,
        head_width: int = 1024,
        anchor_scale: float = 8.0,
        detections: int = 100,
        threshold: float = 0.05,
        samples: int = 512,
        head_norm: bool = False,
        mask_width: int | None = None,
        facts: Facts | dict[str, Any] | None = None,
        **training: Any,
    ) -> None:
        super().__init__(network, options, **training)
        require()
        for name, number in (
            ("channels", channels),
            ("head_width", head_width),
            ("detections", detections),
            ("samples", samples),
            ("mask_width", mask_width),
        ):
            if number is not None and number < 1:
                raise ValueError(f"{name}={number}: expected at least 1")
        if anchor_scale <= 0 or not 0 <= threshold < 1:
            raise ValueError(
                f"anchor_scale={anchor_scale}, threshold={threshold}: expected one above 0, and one from 0 to below 1"
            )
        if "features_only" not in accepted_options(network):
            raise ValueError(
                f"network={network!r} is a {class_of(network)}, which has no maps of features: choose a residual "
                "network, such as lambda_resnet50"
            )
        self.init_from, self.freeze_norms = init_from, freeze_norms
        self.sizes = (channels, head_width, anchor_scale, detections, threshold, samples, head_norm, mask_width)
        self.begin(facts)

    def build(self, facts: Facts | Mapping[str, Any] | None) -> None:
        """The detector, and what counts."""
        if facts and "masks" not in Facts.of(facts).options:
            raise ValueError("facts: the data have no boxes to find; choose DetectionData")
        super().build(facts)
        from lambda_seq.tasks.detection.evaluation import AveragePrecision

        self.masks: bool = self.facts.options["masks"]
        self.losses: Mapping[str, Mean] = nn.ModuleDict(  # type: ignore[assignment]
            {name: mean_loss() for name in LOSSES if self.masks or name != "masks"}
        )
        self.counted = {stage: AveragePrecision(self.masks) for stage in ("val", "test")}

    def make_network(self) -> Any:
        """The detector, on a network of this task's name and options."""
        from lambda_seq.tasks.detection.detector import Sizes, make_detector

        given = {**(self.options or {}), "features_only": True}
        body = network_for(self.named, given, self.facts)
        found, pixels = self.facts.options, self.facts.pixels
        assert pixels is not None  # as of all pictures
        return make_detector(
            body,
            found["num_classes"],
            found["masks"],
            size=found["size"],
            max_size=found["max_size"],
            mean=[value / 255 for value in pixels.mean],
            std=[value / 255 for value in pixels.std],
            sizes=Sizes(*self.sizes),
        )

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of their numbers."""
        return self.facts.labels or []

    @property
    def categories(self) -> list[int]:
        """Number of each class in the data's files."""
        found: list[int] = self.facts.options["categories"]
        return found

    def on_fit_start(self) -> None:
        """Load the weights to start from, at the beginning of a training that resumes no other."""
        if self.init_from is not None and self.trainer.ckpt_path is None:
            load_weights(self.network.backbone.body, self.init_from, self.facts, described(self.hparams))  # type: ignore[union-attr, arg-type]

    def on_train_start(self) -> None:
        """As of all tasks; norms that are frozen stay, of which Lightning would warn before."""
        super().on_train_start()
        self.train(self.training)

    def train(self, mode: bool = True) -> Detection:
        """As of all modules; norms that are frozen stay as they are."""
        super().train(mode)
        if mode and self.freeze_norms and hasattr(self, "network"):
            for module in self.network.backbone.body.modules():  # type: ignore[union-attr]
                if isinstance(module, BatchNorm):
                    module.eval()
        return self

    def configure_callbacks(self) -> list[Callback]:
        """As of all tasks, and what writes the boxes."""
        needed = super().configure_callbacks()
        if not any(isinstance(one, DetectionFiles) for one in self.trainer.callbacks):  # type: ignore[attr-defined]
            needed.append(DetectionFiles())
        return needed

    def forward(self, batch: Batch) -> list[dict[str, Tensor]]:
        """What is found in each picture: "boxes" (n, 4), "labels" from 1, "scores" (n,) and perhaps "masks"."""
        return self.network(self._pictures(batch))

    def _pictures(self, batch: Batch) -> list[Tensor]:
        """Pixels from 0 to 1, in the precision of the weights."""
        like = next(self.network.parameters())
        return [picture.to(like.dtype) / 255 for picture in batch["x"]]

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The sum of the losses of a batch."""
        found = self.network(self._pictures(batch), batch["target"])
        parts = {name: found[theirs].float() for name, theirs in LOSSES.items() if theirs in found}
        loss = torch.stack(list(parts.values())).sum()
        count = len(batch["x"])
        for name, part in parts.items():
            self.losses[name].update(part.detach(), count)
        self.train_loss.update(loss.detach(), count)
        self.weigh(loss, count)
        return loss

    @property
    def training_metrics(self) -> Mapping[str, Metric]:
        """The losses."""
        return {"train/loss_epoch": self.train_loss} | {f"train/loss_{name}": one for name, one in self.losses.items()}

    def validation_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        """What is found in the pictures of a batch that no other process has."""
        return self.evaluate("val", batch, batch_index)

    def test_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        """As `validation_step`."""
        return self.evaluate("test", batch, batch_index)

    def evaluate(self, stage: str, batch: Batch, batch_index: int) -> dict[str, Any]:
        """Count the pictures of a batch; "found" in them."""
        from lambda_seq.tasks.detection.evaluation import answers

        count = own_rows(self, batch_index, len(batch["x"]))
        found = [answers(one) for one in self(batch)][:count]
        self.counted[stage].update(found, batch["target"][:count])
        return {"found": found}

    def on_validation_epoch_end(self) -> None:
        """Figures of all pictures."""
        self._log_figures("val")

    def on_test_epoch_end(self) -> None:
        """As `on_validation_epoch_end`."""
        self._log_figures("test")

    def _log_figures(self, stage: str) -> None:
        overall, by_class = self.counted[stage].figures()
        self.counted[stage].reset()
        self.overall = overall
        self.by_class = {self.classes[label - 1]: found for label, found in by_class.items()}
        for name, value in overall.items():  # of all processes already, whose mean is each of them
            self.log(f"{stage}/{name}", value, prog_bar=name.endswith("_ap"), batch_size=1, sync_dist=True)

    def predict_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        """Ids of pictures, and what is "found" in them."""
        from lambda_seq.tasks.detection.evaluation import answers

        return {"id": batch["id"], "found": [answers(one) for one in self(batch)]}

    def prediction_table(self) -> BoxTable:
        """A row for each box."""
        return BoxTable(self.classes)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another detector or of other classes.

        Raises:
            ValueError: the checkpoint does not fit.
        """
        super().on_load_checkpoint(checkpoint)
        labels = Facts.from_dict(checkpoint["hyper_parameters"]["facts"]).labels or []
        if labels != self.classes:
            raise ValueError(
                f"ckpt_path: the checkpoint knows other classes than the data.\n  checkpoint: {', '.join(labels)}\n"
                f"  data: {', '.join(self.classes)}\nGive the data it was trained with as --data.path, and photos to "
                "look at as --data.predict_path."
            )

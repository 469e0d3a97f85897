"""What validation, test and predict leave behind: figures by class, boxes as COCO's JSON, and a sheet of pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lambda_seq.tasks.callbacks.predictions import PredictionFile
from lambda_seq.tasks.checkpointing.storage import replacing
from lambda_seq.tasks.detection.sheet import Seen, draw
from lambda_seq.tasks.detection.turns import in_turn

SHOWN = 12  # pictures on a sheet


class BoxTable:
    """A row for each box of a prediction: id of the picture, class, score, place in pixels.

    Args:
        classes: names.
    """

    def __init__(self, classes: list[str]) -> None:
        self.classes = classes
        self.columns = {"id": "string", "prediction": "string"} | dict.fromkeys(
            ("score", "x", "y", "width", "height"), "float32"
        )

    def rows(self, prediction: dict[str, Any]) -> list[list[Any]]:
        """The rows of a batch: "id", and what is "found"."""
        rows = []
        for name, found in zip(prediction["id"], prediction["found"], strict=True):
            boxes = found["boxes"].tolist()
            for label, score, (x, y, right, low) in zip(
                found["labels"].tolist(), found["scores"].tolist(), boxes, strict=True
            ):
                rows.append([str(name), self.classes[label - 1], score, x, y, right - x, low - y])
        return rows

    def rest(self) -> list[list[Any]]:
        """Nothing."""
        return []


class DetectionFiles(Callback):
    """Writes what a detector finds, of the pictures of all processes.

    Of validation and test OUTPUT_DIR/SPLIT_detections.json, COCO's results, SPLIT_figures.json, with the average
    precision of each class, and SPLIT_detections.png, found boxes and masks beside the true ones. Of predict the same
    JSON and sheet, named after the file of predictions.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.rows: list[list[dict[str, Any]]] = []  # of each picture
        self.seen: list[Seen] = []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self._begin()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self._begin()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self._begin()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """Keep what was found."""
        self._add(pl_module, batch, outputs["found"])

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """Keep what was found."""
        self._add(pl_module, batch, outputs["found"])

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """Keep what was found."""
        self._add(pl_module, batch, outputs["found"], known=False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        self._write_evaluated(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        self._write_evaluated(trainer, pl_module, "test")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write beside the file of predictions."""
        writer = next((one for one in trainer.callbacks if isinstance(one, PredictionFile)), None)  # type: ignore[attr-defined]
        self._gather()
        if trainer.is_global_zero and writer is not None and writer.path is not None:
            self._write(Path(writer.path).with_suffix(""), pl_module)

    def _add(self, module: Any, batch: Any, found: list[Any], known: bool = True) -> None:
        from lambda_seq.tasks.detection.evaluation import as_coco

        for name, picture, target, one in zip(batch["id"], batch["x"], batch["target"], found, strict=False):
            self.rows.append(as_coco(one, name, module.categories))
            if len(self.seen) < SHOWN:
                truth = {key: part.cpu() for key, part in target.items()} if known else None
                self.seen.append(Seen(str(name), picture.cpu().movedim(0, -1).numpy(), one, truth))

    def _gather(self) -> None:
        """Put together what all processes have found."""
        self.rows, self.seen = in_turn(self.rows), in_turn(self.seen)[:SHOWN]

    def _write_evaluated(self, trainer: Trainer, module: Any, stage: str) -> None:
        if trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._gather()
        if not trainer.is_global_zero:
            return
        stem = Path(trainer.default_root_dir) / stage
        stem.parent.mkdir(parents=True, exist_ok=True)
        figures = {f"{stage}/{name}": value for name, value in module.overall.items()}
        _write_json(stem.with_name(f"{stage}_figures.json"), {"figures": figures, "classes": module.by_class})
        self._write(stem.with_name(f"{stage}_detections"), module)

    def _write(self, stem: Path, module: Any) -> None:
        _write_json(stem.with_name(f"{stem.name}.json"), [row for rows in self.rows for row in rows])
        if self.seen:
            draw(self.seen, module.classes, stem.with_name(f"{stem.name}.png"))


def _write_json(file: Path, content: Any) -> None:
    with replacing(file) as partial:
        partial.write_text(json.dumps(content) + "\n", encoding="utf-8")

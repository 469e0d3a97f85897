"""What follows the training of a fit: its test, the saved network, a baseline, the final table, advice and a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.distributed.fsdp import FSDPModule

from lambda_seq.tasks.baselines.command import beside, show
from lambda_seq.tasks.callbacks.configuration import CONFIG
from lambda_seq.tasks.callbacks.curves import Curves
from lambda_seq.tasks.checkpointing.storage import BEST, LAST
from lambda_seq.tasks.data import Data
from lambda_seq.tasks.export import export
from lambda_seq.tasks.report import advice
from lambda_seq.tasks.report.findings import Findings
from lambda_seq.tasks.report.page import PAGE, Run, write_page
from lambda_seq.tasks.training import Training, whole

SUMMARY = "summary.json"


class AfterFit:
    """Ends a fit whose training is done.

    Without validation, or without checkpoints, the last weights take the place of the best ones.

    Args:
        trainer: that has trained.
        task: with its weights.
        data: that it was trained with.
        made: options of the command, with the callbacks that were made of them.
        keeps: whether checkpoints are kept.
    """

    def __init__(self, trainer: Trainer, task: LightningModule, data: Data, made: Any, *, keeps: bool) -> None:
        self.trainer, self.task, self.data, self.made = trainer, task, data, made
        self.output, self.kept = Path(made.output_dir), made.best
        self.best = Path(self.kept.dirpath) / BEST if self.kept.best_model_path else None
        self.last = Path(made.last.dirpath) / LAST if keeps else None

    def __call__(self) -> None:
        """Test the best checkpoint, save its network by itself, and say what the run has left where.

        All processes have to call it; the first one writes.
        """
        if self.trainer.fast_dev_run or not self.trainer.global_step:  # type: ignore[attr-defined]
            return
        trained = dict(self.trainer.callback_metrics)
        self.points = self._callback(Curves).points  # before a test, which brings back those of the best checkpoint
        evaluated = self._evaluated()
        if not self.trainer.is_global_zero:
            return
        tested = {name: figure for name, figure in evaluated.items() if name.startswith("test/")}
        final: dict[str, Any] = evaluated or self._validated(trained)
        left = self._left(self._export(tested))
        self._write(final | left)
        words = ""
        if self.made.baseline:
            found, words = beside(self.trainer, self.output, tested, self.kept)
            left |= {"baseline": found.pop("baseline")} if found else {}
            final = final | found
        advised = self._advice(final)
        if self.made.report:
            findings = self._callback(Findings)
            shown = (findings, self._split, self.points, final, left, advised)
            run = Run(self.task, self.data, self.made, self.trainer, *shown)
            page = write_page(run, self.output / PAGE)
            left |= {} if page is None else {"page": str(page)}
        self._write(final | left)
        show(final | left)
        if words:
            print(words)
        if advised:
            print("What stands out:", *advised, sep="\n- ")

    @property
    def _split(self) -> dict[str, Any] | None:
        """What was counted by class in the test, or without one in the validation after the training."""
        found: dict[str, Any] | None = self.made.reports.newest
        return found

    def _evaluated(self) -> dict[str, float]:
        """Figures of the test; without one, of tasks that tell classes apart, once more of validation."""
        if not self.made.test_after_fit:
            return {}
        # Weights that are spread over processes come from a file; others without validation are there
        source = self.best or (self.last if isinstance(self.task, FSDPModule) else None)
        options: dict[str, Any] = {"datamodule": self.data, "ckpt_path": source, "weights_only": True}
        figures: dict[str, float] = {}
        if self.trainer.limit_test_batches != 0 and self.data.tested:
            for found in self.trainer.test(self.task, **options):
                figures |= found
        elif self._last_look and self.trainer.limit_val_batches != 0 and self.best:
            loggers, self.trainer.loggers = self.trainer.loggers, []  # which have these figures already
            for found in self.trainer.validate(self.task, **options, verbose=False):
                figures |= found
            self.trainer.loggers = loggers
        return figures

    @property
    def _last_look(self) -> bool:
        """Whether the task has more to say of a validation after the training than in it."""
        return bool(getattr(self.task, "labels", None)) or getattr(self.task, "evaluates_best", False)

    def _validated(self, trained: Mapping[str, Any]) -> dict[str, float]:
        """Figures of validation as the best checkpoint was kept; without one those that training ended with."""
        if self.best and (scores := self.points.get(self.kept.monitor)):
            score = float(self.kept.best_model_score)
            best = min(scores, key=lambda point: abs(point[1] - score))[0]
            validated = {name: found for name, found in self.points.items() if name.startswith("val/")}
            return {name: value for name, found in validated.items() for step, value in found if step == best}
        return {name: float(value) for name, value in trained.items() if not name.endswith(("_step", "_per_second"))}

    def _left(self, model: Path | None) -> dict[str, str]:
        """Files and folders of the run that are there, by what they are."""
        files = {
            "best checkpoint": self.best,
            "last checkpoint": self.last,
            "model": model,
            "configuration": self.output / CONFIG,
            "curves": Path(self.made.curves.path),
        }
        if self._split is not None:
            stem = Path(self.made.reports.folder) / self._split["split"]
            files |= {"report": Path(f"{stem}_report.csv"), "confusion matrix": Path(f"{stem}_confusion_matrix.png")}
        return {name: str(file) for name, file in files.items() if file and file.exists()}

    def _export(self, tested: dict[str, float]) -> Path | None:
        """The folder of the best network, or without validation of the last; none of a task that makes no model."""
        if not self.made.export or not isinstance(self.task, Training) or not self.task.exports:
            return None
        metrics, source = tested, self.best or self.last
        if isinstance(self.task, FSDPModule) and source:  # its weights are spread, those of the file are not
            whole(self.task, source)
        elif self.best and not tested:  # a test has loaded its weights already
            self.task.load_state_dict(torch.load(self.best, map_location="cpu", weights_only=True)["state_dict"])
        if self.best and not tested:
            metrics = {self.kept.monitor: float(self.kept.best_model_score)}
        source_name = getattr(self.data, "path", "")
        return export(self.task, self.output / "model", source=source_name, metrics=metrics)

    def _advice(self, final: Mapping[str, float]) -> list[str]:
        """What stands out, in words."""
        compared = getattr(self.task, "compared", None)
        return [
            *advice.of_training(self.points),
            *advice.of_fitting(self.points, compared),
            *(advice.of_classes(self._split) if self._split else []),
            *advice.of_baselines(final, compared, self.made.recipe),
        ]

    def _callback(self, kind: type[Any]) -> Any:
        return next(one for one in self.trainer.callbacks if isinstance(one, kind))  # type: ignore[attr-defined]

    def _write(self, summary: Mapping[str, Any]) -> None:
        (self.output / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")

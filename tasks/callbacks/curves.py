"""A picture of how training went."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lambda_seq.tasks.checkpointing.storage import replacing
from lambda_seq.tasks.weighing import steps_with

SCORES = {
    "accuracy": "Accuracy",
    "entity_f1": "F1 of entities",
    "bits_per_byte": "Bits per byte",
}  # metric: title of its panel
OTHERWISE = {"f1": "F1", "rmse": "Root mean squared error"}  # of data that have none of these
WIDTH, HEIGHT = 4.0, 3.8  # of a panel with its margins, in inches
LEFT, RIGHT, BOTTOM, TOP = 0.7, 0.15, 0.55, 0.35  # margins; to fit them to the labels takes as long as drawing
TRAIN, VALIDATION, RATE = "#0072B2", "#D55E00", "#009E73"  # blue, vermilion, green of Okabe & Ito, for all eyes


class Curves(Callback):
    """Draws loss, score and learning rate by step as a PNG when training ends; the score is what the task has.

    What is drawn is kept in the checkpoints, so that a resumed run shows all of it.

    Args:
        path: file to write; default: OUTPUT_DIR/curves.png.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        self.points: dict[str, list[list[float]]] = {}  # name -> [step, value] in order

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note loss and learning rate as often as loggers do."""
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and steps_with(trainer, batch_idx) and trainer.global_step % every == 0:
            self._note("train/loss", trainer.global_step, trainer.callback_metrics["train/loss_step"])
            self._note("lr", trainer.global_step, trainer.optimizers[0].param_groups[0]["lr"])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note all figures of the validation split, of which loss and scores are drawn."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._note_metrics(trainer, tuple(name for name in trainer.callback_metrics if name.startswith("val/")))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note loss and scores of the epoch."""
        self._note_metrics(trainer, ("train/loss_epoch", *(f"train/{score}" for score in {**SCORES, **OTHERWISE})))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw."""
        self._draw(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw what a run that was killed at its very end has not come to, as there was nothing left to train."""
        if self.path is not None and not Path(self.path).exists():
            self._draw(trainer)

    def _draw(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and self.path is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            draw(self.points, Path(self.path))

    def state_dict(self) -> dict[str, Any]:
        """All points."""
        return {"points": self.points}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the points of the run that is resumed."""
        self.points = state_dict["points"]

    def _note_metrics(self, trainer: Trainer, names: tuple[str, ...]) -> None:
        for name in names:
            if name in trainer.callback_metrics:
                self._note(name, trainer.global_step, trainer.callback_metrics[name])

    def _note(self, name: str, step: int, value: Any) -> None:
        self.points.setdefault(name, []).append([step, float(value)])


def scores_in(points: Mapping[str, Any]) -> dict[str, str]:
    """The scores that there are points of, and the titles of their panels."""

    def found(scores: Mapping[str, str]) -> dict[str, str]:
        return {name: title for name, title in scores.items() if {f"train/{name}", f"val/{name}"} & points.keys()}

    return found(SCORES) or found(OTHERWISE)


def draw(points: dict[str, list[list[float]]], path: Path) -> None:
    """A panel over the steps for the loss, for each score that there are points of, and for the learning rate."""
    style: Any = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True}
    scores = scores_in(points)
    with mpl.rc_context(style | {"grid.alpha": 0.3, "axes.titlesize": 11, "axes.titleweight": "bold"}):
        panels = 2 + len(scores)
        figure = Figure(figsize=(WIDTH * panels, HEIGHT), dpi=150)
        FigureCanvasAgg(figure)
        inner, left, right = WIDTH - LEFT - RIGHT, LEFT / WIDTH / panels, 1 - RIGHT / WIDTH / panels
        margins = {"left": left, "right": right, "bottom": BOTTOM / HEIGHT, "top": 1 - TOP / HEIGHT}
        loss, *middle, rate = figure.subplots(1, panels, gridspec_kw=margins | {"wspace": (LEFT + RIGHT) / inner})
        _line(loss, points.get("train/loss"), TRAIN, "", alpha=0.35, linewidth=0.8)
        _line(loss, points.get("train/loss_epoch"), TRAIN, "training", marker="o")
        _line(loss, points.get("val/loss"), VALIDATION, "validation", marker="s", linestyle="--")
        for axes, score in zip(middle, scores, strict=True):
            _line(axes, points.get(f"train/{score}"), TRAIN, "training", marker="o")
            _line(axes, points.get(f"val/{score}"), VALIDATION, "validation", marker="s", linestyle="--")
            axes.set_title(scores[score], loc="left")
        _line(rate, points.get("lr"), RATE, "")
        loss.set_title("Loss", loc="left")
        rate.set_title("Learning rate", loc="left")
        for axes in (loss, *middle, rate):
            axes.set_xlabel("optimizer step")
            axes.set_xlim(left=0)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(frameon=False)
        loss.set_ylim(bottom=0)
        rate.set_ylim(bottom=0)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            figure.savefig(partial, format="png")


def _line(axes: Axes, points: list[list[float]] | None, colour: str, label: str, **style: Any) -> None:
    if points:
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, color=colour, label=label or "_", **({"markersize": 3.5, "linewidth": 1.6} | style))

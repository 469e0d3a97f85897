"""Lightning's trainer: which of its callbacks do here what they are for, and the one that a task has."""

from __future__ import annotations

from enum import Enum
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    LearningRateFinder,
    OnExceptionCheckpoint,
)


class CommandTrainer(Trainer):
    """Lightning's, with commands that only the command line carries out."""

    def baseline(self, ckpt_path: str | None = None, weights_only: bool | None = None) -> None:
        """What a simple baseline reaches on the same data, beside which a network's figures mean something.

        Args:
            ckpt_path: not used; here so that only one word of a command has to be changed.
            weights_only: as `ckpt_path`.

        Raises:
            NotImplementedError: always; `lambda_seq.tasks.baselines` has what the command line calls.
        """
        raise NotImplementedError("a baseline needs no trainer; call lambda_seq.tasks.baselines.registry.fit_baseline")

    def inspect(self, ckpt_path: str | None = None, weights_only: bool | None = None) -> None:
        """What would be read: splits, classes, lengths, some rows, and what is to be looked at before training.

        Args:
            ckpt_path: not used; here so that only one word of a command has to be changed.
            weights_only: as `ckpt_path`.

        Raises:
            NotImplementedError: always; `lambda_seq.tasks.inspection` has what the command line calls.
        """
        raise NotImplementedError("to look at data needs no trainer; call lambda_seq.tasks.inspection.inspecting.run")


REFUSED: dict[type[Callback], str] = {
    BackboneFinetuning: "freezes model.backbone, which no task has; leave it out, and start with --model.init_from",
    BatchSizeFinder: "changes batches whose learning rates are planned; leave it out, and try some --data.batch_size",
    LearningRateFinder: "sets model.lr, which no task has; leave it out, and try some --model.optimizer.lr",
    OnExceptionCheckpoint: "lets a new run go on from whatever it finds; leave it out: last.ckpt is kept anyway, "
    "--last.every_n_train_steps says how often",
}


def given_callbacks(given: Any) -> list[Callback]:
    """The configured callbacks: None, one or a list of them.

    Raises:
        ValueError: one that cannot do here what it is for; says why.
    """
    callbacks = list(given) if isinstance(given, list) else [given] if given else []
    for callback in callbacks:
        for kind, reason in REFUSED.items():
            if isinstance(callback, kind):
                raise ValueError(f"trainer.callbacks: {type(callback).__name__} {reason}")
    return callbacks


def trainer_of(module: LightningModule) -> Trainer | None:
    """The trainer that runs a task; None if the task stands alone."""
    try:
        return module.trainer
    except RuntimeError:  # how Lightning says that there is none
        return None


def use_plain_values(configured: Any) -> None:
    """Put values in place of the Enums that callbacks have as defaults, such as Timer, which YAML cannot write."""
    for callback in configured or []:
        for name, value in (callback.get("init_args") or {}).items():
            if isinstance(value, Enum):
                callback.init_args[name] = value.value

"""A training that has turned NaN ends, says where, and leaves the checkpoints from before."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lambda_seq.tasks.checkpointing.storage import LAST
from lambda_seq.tasks.weighing import steps_with, window

PATIENCE = 20  # steps without a finite loss that a scaler may skip: after 16 its first scale, 65,536, is down to 1


class Place(NamedTuple):
    """A batch of a training: its optimizer step, from 1 on, its epoch, and its number in it, from 0 on."""

    step: int
    epoch: int
    batch: int


class FiniteTraining(Callback):
    """Ends a training whose loss or weights are not finite any more.

    Losses are looked at on the device. The host waits for that when steps are logged, at the end of an epoch, before a
    validation, and before a checkpoint is written, and then looks at the weights, too: a good checkpoint is never
    replaced by a broken one. All processes end together. With 16-mixed precision a loss that overflows costs its step
    alone, which the scaler skips; there, 20 such steps one after another are the end.
    """

    def __init__(self) -> None:
        self._begin(False)

    def _begin(self, kept: bool) -> None:
        self._first: Tensor | None = None  # number of the first batch whose loss was not finite, or -1
        self._places: list[Place] = []  # of batches from number `_before` on
        self._before = 0
        self._latest = Place(0, 0, 0)
        self._kept = kept  # whether there is a checkpoint of this training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to look."""
        self._begin(trainer.ckpt_path is not None)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at a loss, and, when steps are logged, at what was seen."""
        stepped = steps_with(trainer, batch_idx)
        number = self._before + len(self._places)
        self._latest = Place(trainer.global_step + (not stepped), trainer.current_epoch, batch_idx)
        self._places.append(self._latest)
        finite = window(pl_module).mean.isfinite()
        none = torch.full_like(finite, -1, dtype=torch.int64)
        first = none if self._first is None else self._first
        first = torch.where(finite | (first >= 0), first, number)
        self._first = torch.where(finite, none, first) if scaled(trainer) else first
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and stepped and trainer.global_step % every == 0:
            self.check(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look before a validation."""
        self.check(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the end of an epoch."""
        self.check(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn of answers that are not finite, which end no training."""
        if not trainer.sanity_checking:
            self._warn(trainer, "val/loss")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn as after a validation."""
        self._warn(trainer, "test/loss")

    def _warn(self, trainer: Trainer, name: str) -> None:
        loss = trainer.callback_metrics.get(name)
        if loss is not None and not loss.isfinite() and trainer.is_global_zero:
            print(
                f"warning: {name} is {float(loss)} at step {trainer.global_step}: some answers are not finite, or none "
                "was counted; check the data for NaN, or compute with --trainer.precision 32-true",
                file=sys.stderr,
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look no more."""
        self._first = None

    def keep(self, trainer: Trainer, module: LightningModule) -> None:
        """Look before a checkpoint is written; all processes have to.

        Raises:
            FloatingPointError: as `check`.
        """
        self.check(trainer, module)
        self._kept = True

    def check(self, trainer: Trainer, module: LightningModule) -> None:
        """End a training that is not finite any more; all processes have to look.

        Raises:
            FloatingPointError: says since which step, and what to do.
        """
        if self._first is None:
            return
        first = int(self._first)  # the same on all processes, of whose weights each may have a part
        finite = trainer.strategy.reduce_boolean_decision(finite_weights(module))
        since = self._places[first - self._before :] if first >= 0 else []
        skipped = scaled(trainer) and bool(since) and self._latest.step - since[0].step < PATIENCE
        if not finite or (since and not skipped):
            raise FloatingPointError(self._message(trainer, since[0] if since else None))
        self._before += len(self._places) - len(since)
        self._places = since

    def _message(self, trainer: Trainer, since: Place | None) -> str:
        """Where it began; if all losses were finite, it was the latest step that broke the weights."""
        step, epoch, batch = since or self._latest
        begun = "the loss is" if since else "the weights are"
        step_kept = last_step(trainer) if self._kept else None
        on = "begin anew" if step_kept is None else f"go on from step {step_kept} with --ckpt_path last"
        checkpoints = "" if step_kept is None else "The checkpoints are from before. "
        return (
            f"training has turned NaN: {begun} no longer finite at optimizer step {step}, batch {batch} of epoch "
            f"{epoch} (counted from 0): that batch did it, or the step before it. {checkpoints}Check the data "
            "for NaN; lower --model.optimizer.lr, warm up longer with --model.warmup, clip gradients with "
            f"--trainer.gradient_clip_val 1, or compute with --trainer.precision 32-true; then {on}"
        )


def scaled(trainer: Trainer) -> bool:
    """Whether steps with gradients that are not finite are skipped by a scaler, so that they break no weights."""
    return getattr(trainer.precision_plugin, "scaler", None) is not None


@torch.no_grad()
def finite_weights(module: nn.Module) -> bool:
    """Whether this process's part of all weights, and of the statistics of norms, is finite."""
    tensors = [*module.parameters(), *module.buffers()]
    local = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    finite = [tensor.isfinite().all() for tensor in local if tensor.is_floating_point()]
    return not finite or bool(torch.stack(finite).all())


def last_step(trainer: Trainer) -> int | None:
    """The step of the checkpoint that `--ckpt_path last` goes on from, if there is one."""
    for callback in trainer.checkpoint_callbacks:
        file = Path(str(getattr(callback, "dirpath", None))) / LAST
        if file.is_file():
            return int(torch.load(file, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    return None

"""Checkpoints best and last, and steps whose randomness depends on nothing but the seed and the step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from tasks.stopping import StopRequest
from tasks.storage import LAST, check_writable


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoint with the best validation metric, as best.ckpt.

    Args:
        monitor: metric that decides, such as val/accuracy, val/f1 or val/loss, or "epoch" for the last one; default:
            what the model says, as val/accuracy of classification.
        mode: whether a greater ("max") or a smaller ("min") value is better; default: "min" for losses and errors.
        dirpath: folder; default: OUTPUT_DIR/checkpoints.
    """

    def __init__(self, monitor: str | None = None, mode: str | None = None, dirpath: str | None = None) -> None:
        monitor = monitor or "val/accuracy"
        super().__init__(
            dirpath=dirpath,
            filename="best",
            monitor=monitor,
            mode=mode or ("min" if monitor.endswith(("loss", "error")) else "max"),
            save_on_train_epoch_end=False,  # at the end of validation, which a stop in mid-epoch does not reach
            enable_version_counter=False,
        )


class LastCheckpoint(Checkpoint):
    """Saves the newest state as last.ckpt, from which `--ckpt_path last` goes on: each epoch, and in between.

    It is also saved when training ends by --trainer.max_steps, and when a process is asked to stop (SIGTERM; on SLURM
    also the signal before the end of the job's time): then all stop, after the same optimizer step or, if validation is
    running, when that has ended.

    Args:
        every_n_train_steps: optimizer steps between savings within an epoch; 0 for none.
        dirpath: folder, on a disk that all machines of the run share; default: OUTPUT_DIR/checkpoints.
    """

    def __init__(self, every_n_train_steps: int = 500, dirpath: str | None = None) -> None:
        if every_n_train_steps < 0:
            raise ValueError(f"every_n_train_steps={every_n_train_steps}: expected at least 0")
        self.every_n_train_steps, self.dirpath = every_n_train_steps, dirpath
        self._request = StopRequest()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a folder that cannot be written, before any work.

        Raises:
            OSError: it cannot be written; says why.
        """
        if stage == "fit" and self._saves(trainer) and trainer.is_global_zero:
            check_writable(Path(str(self.dirpath)))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen for requests to stop, and see that all processes begin at the same step.

        Raises:
            ValueError: they do not, as machines that share no disk find different checkpoints.
        """
        self._request.listen(trainer)
        first = trainer.strategy.broadcast(trainer.global_step)
        if not trainer.strategy.reduce_boolean_decision(first == trainer.global_step):
            raise ValueError(
                f"--ckpt_path: process {trainer.global_rank} would begin at step {trainer.global_step}, process 0 at "
                f"step {first}; --output_dir must be on a disk that all machines share"
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within the epoch; at its end `on_train_epoch_end` does."""
        progress = trainer.fit_loop.epoch_loop.batch_progress
        if progress.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        due = self.every_n_train_steps and trainer.global_step % self.every_n_train_steps == 0
        stop = self._request.heard(trainer)
        if due or stop or trainer.global_step == trainer.max_steps:
            self._save(trainer)
        if stop:
            self._request.stop(trainer, self._file)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, if the epoch is whole: after a stop in its middle Lightning counts it as done, too."""
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save(trainer)
            if self._request.heard(trainer):
                self._request.stop(trainer, self._file)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Of a finished epoch, store that the next has not begun.

        Lightning stores there that the last batch of the epoch is done, which it takes for the whole of the next epoch
        if training goes on with --trainer.max_steps.
        """
        fit_loop = checkpoint["loops"]["fit_loop"]
        epochs, batches = fit_loop["epoch_progress"], fit_loop["epoch_loop.batch_progress"]
        if batches["is_last_batch"] and epochs["current"]["processed"] == epochs["current"]["ready"]:
            for progress in epochs.values():
                progress["completed"] = progress["processed"]
            batches["current"] = dict.fromkeys(batches["current"], 0)
            batches["is_last_batch"] = False

    @property
    def _file(self) -> str:
        return str(Path(str(self.dirpath)) / LAST)

    def _saves(self, trainer: Trainer) -> bool:
        return self.dirpath is not None and not trainer.fast_dev_run  # type: ignore[attr-defined]

    def _save(self, trainer: Trainer) -> None:
        if self._saves(trainer):
            trainer.save_checkpoint(self._file, weights_only=False)


class SeededSteps(Callback):
    """Seeds torch anew for each training batch from (seed, epoch, batch, rank).

    Dropout and the like so depend on nothing that happened before, and a resumed run draws what the uninterrupted one
    did without storing the states of generators.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed torch on all devices."""
        entropy = [self.seed, trainer.current_epoch, batch_idx, trainer.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1))

    def state_dict(self) -> dict[str, Any]:
        """The seed."""
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the seed of the run that is resumed."""
        self.seed = state_dict["seed"]

"""Checkpoints best and last, and steps whose randomness depends on nothing but the seed and the step."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from lambda_seq.tasks.checkpointing.runs import begin
from lambda_seq.tasks.checkpointing.storage import BEST, LAST, check_writable, damage
from lambda_seq.tasks.data.base import Data
from lambda_seq.tasks.data.reading.notes import note
from lambda_seq.tasks.metrics import direction
from lambda_seq.tasks.strategies.stopping import StopRequest, end_when_asked

NOTES = "last_checkpoint"  # where a checkpoint says what `LastCheckpoint` has to know of it


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
            filename=Path(BEST).stem,
            monitor=monitor,
            mode=mode or ("max" if direction(monitor) > 0 else "min"),
            save_on_train_epoch_end=False,  # at the end of validation, which a stop in mid-epoch does not reach
            enable_version_counter=False,
        )
        self._trains = True  # or what is loaded is tested, or predicts, and no run goes on

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Go by the metric that is for such data, where the one of the task is asked for and it is another."""
        self._trains = stage == "fit"
        judged, data = getattr(pl_module, "judged_by", None), getattr(trainer, "datamodule", None)
        if judged is not None and isinstance(data, Data) and self.monitor == pl_module.monitor[0]:  # type: ignore[index]
            monitor, mode = judged(data.facts)
            if monitor != self.monitor:
                one = f"best.monitor={self.monitor}: is for one class a row"
                note(f"{one}; of such data the best checkpoint is that by {monitor}")
                self.monitor, self.mode = monitor, mode
                self.kth_value = torch.tensor(torch.inf if mode == "min" else -torch.inf)
        super().setup(trainer, pl_module, stage)

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether this is the best so far; what is not a number never is, not even as the first."""
        if current is not None and bool(current.isnan()):
            if trainer.is_global_zero:
                step = trainer.global_step
                print(f"warning: {self.monitor} is not a number at step {step}, which so is not best", file=sys.stderr)
            return False
        return super().check_monitor_top_k(trainer, current)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the scores of the run that is resumed; Lightning forgets the newest.

        It would also forget all of a run whose folder has moved. Here that one is the same if its best checkpoint moved
        along, and otherwise, as for a run that goes on in another folder, the best of from here on is kept.
        """
        state, file = dict(state_dict), Path(str(self.dirpath)) / BEST
        if state["dirpath"] != self.dirpath:
            state["dirpath"] = self.dirpath
            if state["best_model_path"] and self._is_best(state, file):
                state["best_model_path"] = state["kth_best_model_path"] = str(file)
                state["best_k_models"] = dict.fromkeys([str(file)], state["best_model_score"])
            else:
                if state["best_model_path"] and self._trains:
                    _say_best_left(state["best_model_path"], file)
                state |= {"best_model_score": None, "best_model_path": "", "kth_best_model_path": ""}
                state |= {
                    "best_k_models": {},
                    "kth_value": torch.tensor(torch.inf if self.mode == "min" else -torch.inf),
                }
        super().load_state_dict(state)
        self.current_score = state["current_score"]

    def _is_best(self, state: dict[str, Any], file: Path) -> bool:
        """Whether a file is the best checkpoint that a state tells of, in another place."""
        if not file.is_file() or damage(file):
            return False
        saved = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        own = saved.get("callbacks", {}).get(self.state_key, {})
        return all(own.get(name) == state[name] for name in ("best_model_path", "best_model_score"))


@rank_zero_only
def _say_best_left(left: str, file: Path) -> None:
    print(f"resuming: the best checkpoint so far stays at {left}; {file} is the best of from here on", file=sys.stderr)


class LastCheckpoint(Checkpoint):
    """Saves the newest state as last.ckpt, from which `--ckpt_path last` goes on: each epoch, and in between.

    It is also saved when training ends by --trainer.max_steps, and when a process is asked to stop (SIGTERM, Ctrl-C; on
    SLURM also the signal before the end of the job's time): then all stop, after the same optimizer step or, if
    validation is running, after the same batch of it. What is saved before a validation, or in it, says that the
    validation is still to come, and a run that goes on begins with it.

    Args:
        every_n_train_steps: optimizer steps between savings within an epoch; 0 for none.
        dirpath: folder, on a disk that all machines of the run share; default: OUTPUT_DIR/checkpoints.
    """

    def __init__(self, every_n_train_steps: int = 500, dirpath: str | None = None) -> None:
        if every_n_train_steps < 0:
            raise ValueError(f"every_n_train_steps={every_n_train_steps}: expected at least 0")
        self.every_n_train_steps, self.dirpath = every_n_train_steps, dirpath
        self._request = StopRequest()
        self._max_steps = -1  # of the trainer
        self._trained = False  # there was something left to train
        self._stop = False  # as soon as the state is saved
        self._due = False  # to be saved before the validation that follows, and after it
        self._validating = False  # what is saved is the state before a validation
        self._to_ask = 0.0  # batches of a validation that all processes still have, some may have more
        self._row: dict[str, Any] | None = None  # of the loggers, which get it only after the state is saved
        self._resumed: dict[
            str, Any
        ] = {}  # what `on_save_checkpoint` stored in the checkpoint that training goes on from

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a folder that cannot be written, before any work.

        Raises:
            OSError: it cannot be written; says why.
        """
        if stage == "fit" and self._saves(trainer) and trainer.is_global_zero:
            check_writable(Path(str(self.dirpath)))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let a training begin that has made all its steps but not the validation after them."""
        self._trained, self._max_steps = False, trainer.max_steps
        self._prolong(trainer)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End when asked to, as there is nothing to save."""
        end_when_asked(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen for requests to stop, and see that all processes begin at the same step.

        Raises:
            ValueError: they do not, as machines that share no disk find different checkpoints.
        """
        self._request.listen(trainer)
        self._trained, self._stop, self._validating = True, False, False
        self._due = bool(self._resumed.get("validating")) and _validation_follows(trainer)
        if not self._due:
            trainer.fit_loop.epoch_loop.max_steps = self._max_steps
        first = trainer.strategy.broadcast(trainer.global_step)
        if not trainer.strategy.reduce_boolean_decision(first == trainer.global_step):
            raise ValueError(
                f"--ckpt_path: process {trainer.global_rank} would begin at step {trainer.global_step}, process 0 at "
                f"step {first}; --output_dir must be on a disk that all machines share"
            )
        if trainer.is_global_zero and self._saves(trainer):
            folders = {str(self.dirpath), *(str(best.dirpath) for best in trainer.checkpoint_callbacks if best.dirpath)}  # type: ignore[attr-defined]
            begin(map(Path, folders), Path(trainer.ckpt_path) if trainer.ckpt_path else None)
        self._log_row(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within the epoch, unless a validation or the end of the epoch follows, where it is done."""
        loop = trainer.fit_loop.epoch_loop
        # Private to Lightning: whether this batch ended a step depends on the strategy and the loader, too
        if loop._should_accumulate():
            return
        self._stop = self._request.heard(trainer)
        due = self.every_n_train_steps and trainer.global_step % self.every_n_train_steps == 0
        due = due or self._stop or trainer.global_step == trainer.max_steps
        if _validation_follows(trainer):
            self._due = bool(due)
        elif due and not loop.batch_progress.is_last_batch:
            self._save(trainer, _row_of_step(trainer))
            self._stop_if_asked(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what is due before a validation, with the note that this is to come."""
        if trainer.state.fn != TrainerFn.FITTING:
            end_when_asked(trainer)
        elif not trainer.sanity_checking:
            progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
            progress.total.reset_on_restart()  # a validation that is repeated has not begun yet
            trainer.fit_loop.epoch_loop.max_steps = self._max_steps
            batches = torch.tensor(float(sum(trainer.num_val_batches)), device=trainer.strategy.root_device)
            self._to_ask = trainer.strategy.reduce(batches, reduce_op="min").item()
            self._validating = True
            if self._due:
                self._save(trainer)
            self._stop_if_asked(trainer)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Stop if asked to; the validation begins anew when training goes on."""
        if not self._validating or self._to_ask <= 0:
            return
        self._to_ask -= 1
        self._stop = self._request.heard(trainer)
        if self._stop and not self._due:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, WeightAveraging):
                    callback.on_validation_epoch_end(trainer, pl_module)  # its weights are not those that are trained
            self._save(trainer)
        self._stop_if_asked(trainer)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The validation is done, as best.ckpt is saved next."""
        self._validating = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what the validation has found, if the state before it was saved."""
        if self._due and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save(trainer)
        self._due = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, if the epoch is whole: after a stop in its middle Lightning counts it as done, too."""
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._stop = self._request.heard(trainer)
            self._save(trainer, _row_of_epoch(trainer))
            self._stop_if_asked(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop if asked to since the last step; from here on a request ends the process at once."""
        loop = trainer.fit_loop.epoch_loop
        if self._resumed and not self._trained:
            self._log_row(trainer)
            if loop.batch_progress.current.ready:  # what follows is logged as after an epoch that was broken off
                # Private to Lightning: the number by which it logs
                loop._batches_that_stepped += 1
                trainer.fit_loop.epoch_progress.increment_completed()
        self._stop = self._request.heard(trainer)
        self._stop_if_asked(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End when asked to, as there is nothing to save."""
        end_when_asked(trainer)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End when asked to, as there is nothing to save."""
        end_when_asked(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let the state be such that Lightning goes on from it as if nothing had happened.

        Of a finished epoch it stores that the last batch is done, which it takes for the whole of the next epoch if
        training goes on with --trainer.max_steps; here, that the next has not begun. A validation that is to come is
        stored as one that has begun, which Lightning repeats; it would pass by one that has not.
        """
        fit_loop = checkpoint["loops"]["fit_loop"]
        epochs, batches = fit_loop["epoch_progress"], fit_loop["epoch_loop.batch_progress"]
        if batches["is_last_batch"] and epochs["current"]["processed"] == epochs["current"]["ready"]:
            for progress in epochs.values():
                progress["completed"] = progress["processed"]
            batches["current"] = dict.fromkeys(batches["current"], 0)
            batches["is_last_batch"] = False
        if self._validating:
            validation = fit_loop["epoch_loop.val_loop.batch_progress"]
            done = validation["total"]["completed"] - validation["current"]["completed"]
            validation["total"] = {"ready": done + 1, "started": done + 1, "processed": done, "completed": done}
            validation["current"] = dict.fromkeys(validation["current"], 0)
        checkpoint[NOTES] = {"validating": self._validating, "row": self._row, "step": trainer.global_step}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note what the checkpoint says, if training goes on from it."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._resumed = dict(checkpoint.get(NOTES, {}))
            if trainer.strategy.restore_checkpoint_after_setup:  # and so after `on_fit_start`
                self._prolong(trainer)

    @property
    def _file(self) -> str:
        return str(Path(str(self.dirpath)) / LAST)

    def _saves(self, trainer: Trainer) -> bool:
        return self.dirpath is not None and not trainer.fast_dev_run  # type: ignore[attr-defined]

    def _save(self, trainer: Trainer, row: dict[str, Any] | None = None) -> None:
        """Save; `row` is what Lightning is about to log of the state that is saved."""
        if self._saves(trainer):
            self._row = row
            for logger in trainer.loggers:
                logger.save()
            trainer.save_checkpoint(self._file, weights_only=False)
            self._row = None

    def _prolong(self, trainer: Trainer) -> None:
        """Let training go on until the validation begins that is still to come, if it has made all its steps."""
        if self._resumed.get("validating") and 0 <= trainer.max_steps <= self._resumed["step"]:
            trainer.fit_loop.epoch_loop.max_steps = self._resumed["step"] + 1

    def _log_row(self, trainer: Trainer) -> None:
        """Log what a run that was killed may not have come to, though its checkpoint is of after it."""
        if row := self._resumed.pop("row", None):
            for logger in trainer.loggers:
                logger.log_metrics(row["metrics"], row["step"])
                logger.save()

    def _stop_if_asked(self, trainer: Trainer) -> None:
        if self._stop:
            self._request.stop(trainer, self._file)


def _validation_follows(trainer: Trainer) -> bool:
    """Whether Lightning is going to validate after the step that has just been made."""
    # Private to Lightning, and asked rather than written again: intervals in batches, epochs and minutes, early stops
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def _row_of_step(trainer: Trainer) -> dict[str, Any] | None:
    """What Lightning logs of a step after all callbacks have seen it."""
    # Private to Lightning: `trainer.logged_metrics` has what the step before logged, as this one's is still to come
    connector = trainer._logger_connector
    return _row(trainer, trainer.fit_loop.epoch_loop._batches_that_stepped) if connector.should_update_logs else None


def _row_of_epoch(trainer: Trainer) -> dict[str, Any] | None:
    """What Lightning logs of an epoch after all callbacks have seen its end."""
    return _row(trainer, trainer.fit_loop.epoch_loop._batches_that_stepped - 1)


def _row(trainer: Trainer, step: int) -> dict[str, Any] | None:
    metrics = {name: float(value) for name, value in trainer._logger_connector.metrics["log"].items()}
    return {"step": step, "metrics": {**metrics, "epoch": trainer.current_epoch}} if metrics else None


class SeededSteps(Callback):
    """Seeds torch anew for each training batch from (seed, epoch, batch, rank), and sums gradients in a fixed order.

    Dropout and the like so depend on nothing that happened before, and a resumed run draws what the uninterrupted one
    did without storing the states of generators.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let DistributedDataParallel sum up gradients in the same order in all steps.

        It gathers them in other buckets from the second step on, as they came in the first one; the second step of a
        run would so add up in another order than the first one of a run that goes on with it, which shows from three
        processes on. Here the first pass is one without gradients, through the parameters alone.
        """
        model: Any = trainer.strategy.model
        if isinstance(model, DistributedDataParallel):
            weights = [weight for weight in pl_module.parameters() if weight.requires_grad]

            def nothing() -> Tensor:
                return torch.stack([weight.sum() * 0 for weight in weights]).sum()

            pl_module.forward = nothing  # type: ignore[method-assign]
            try:
                model().backward()
            finally:
                del pl_module.forward
            pl_module.zero_grad()

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

"""Going on with a run: what it was trained with, and what becomes of options that are others now."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DistributedSampler

from lambda_seq.tasks.callbacks.averaging import WeightEMA
from lambda_seq.tasks.checkpointing.options import class_name, group_options, same
from lambda_seq.tasks.data.language.streams import StreamLoader
from lambda_seq.tasks.data.loading import EpochSampler
from lambda_seq.tasks.old_names import renamed
from lambda_seq.tasks.optimization import accumulation, accumulations, counted_in_epochs, steps_of_epochs

RECORD = "trained_with"  # where a checkpoint has it
STATES = ("loops", "optimizer_states", "lr_schedulers")  # what Lightning saves of a training beside weights
SEED, EMA = "seed_everything", "ema_decay"
# What says how rows come in batches, and so how many steps an epoch has, and what else the learning rate depends on:
BATCHES = ("data.batch_size", "trainer.devices", "trainer.num_nodes", "trainer.strategy", "sequence_parallel")
COURSE = (
    *("trainer.max_epochs", "trainer.max_steps", "trainer.accumulate_grad_batches", "trainer.limit_train_batches"),
    *("trainer.overfit_batches", "trainer.callbacks", "model.warmup", "model.final_lr", "model.schedule_steps"),
)
# What says which rows are held out of those for training, and of what data they are:
HELD_OUT = ("data.split_seed", "data.validation_fraction", "data.test_fraction", "data.label_column")
SOURCE = ("data.class_path", "data.path", "data.subset")
# What says where results go, how they are shown or how fast they come, but not what they are. Of the optimizer counts
# what it is made with, however that was given.
SILENT = (
    *("ckpt_path", "config", "recipe", "output_dir", "test_after_fit", "export", "baseline", "weights_only"),
    *("overwrite", "report", "return_predictions", "best.dirpath", "last.", "curves.", "reports.", "predictions."),
    *("model.facts", "model.optimizer", "model.init_from"),
    *("trainer.default_root_dir", "trainer.enable_", "trainer.logger", "trainer.profiler", "trainer.num_sanity"),
    *("data.num_workers", "data.predict_path", "data.cache", SEED, EMA),
)
LONGEST = 80  # characters of a value in a message


class Place(NamedTuple):
    """How far a run has come: epochs that are done, batches of the next one, and optimizer steps in all."""

    epochs: int
    batches: int
    steps: int


class Resuming(Callback):
    """Keeps in each checkpoint what a run is trained with; when it goes on, carries out what has changed, or refuses.

    A run that goes on with the same options is left as it was restored, to the last bit. Otherwise:

    - The learning rate follows the course of the new options from the next step on: where epochs say how long it is, at
      the place that the run has come to in epochs, else at its step.
    - Options of the optimizer are the new ones; its moments are kept. Another class has other moments: refused.
    - In the middle of an epoch, other batches begin behind the last row that was trained, if the rows come in the same
      order and those that are done make whole steps. Otherwise rows would be trained twice or never: refused.
    - Other rows that are held out of the training, some of which were trained on, are refused; if it is the data that
      have changed, it is said.
    - The seed stays that of the first run.

    Each is said in a line on stderr.

    Args:
        options: of the command line, as `flattened` makes them.
        checkpoint: from which training goes on; None to begin.
    """

    def __init__(self, options: dict[str, Any], checkpoint: str | Path | None) -> None:
        self.options, self.checkpoint = options, checkpoint
        self._was: dict[str, Any] | None = None  # the checkpoint's record; an older version kept none
        self._place = Place(0, 0, 0)
        self._groups: list[dict[str, Any]] = []  # options of the optimizers' groups, as they were made
        self._order: tuple[int, int] = -1, 0  # an epoch and the fingerprint of its order

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read from the checkpoint what has to be known before Lightning restores it.

        The data go on from their state already here: under FSDP2 Lightning would restore it when they are loaded.

        Raises:
            ValueError: the checkpoint has weights alone.
        """
        if stage != "fit" or self.checkpoint is None:
            return
        saved = torch.load(self.checkpoint, map_location="cpu", weights_only=True, mmap=True)
        if "hyper_parameters" not in saved:  # of something else, which the task refuses
            return
        if any(name not in saved for name in STATES):
            raise ValueError(
                f"ckpt_path: {self.checkpoint} has weights alone, without the states of a training to go on with; "
                "begin a new one, which Classification starts from these weights with --model.init_from"
            )
        self._was, self._place = renamed(saved.get(RECORD)), _place(saved)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if type(data).__qualname__ in saved:
            data.load_state_dict(saved[type(data).__qualname__])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot be restored, and say if nothing is left to do.

        Raises:
            ValueError: fewer epochs or steps than are trained, another optimizer, or its states at other weights.
        """
        self._groups = [group_options(group) for optimizer in trainer.optimizers for group in optimizer.param_groups]
        if self.checkpoint is not None:
            self._check_end(trainer)
            self._check_optimizers(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with the weights that were trained, of a run that no longer keeps their average beside them."""
        averaging = any(isinstance(callback, WeightEMA) for callback in trainer.callbacks)  # type: ignore[attr-defined]
        if trainer.state.fn != TrainerFn.FITTING or "current_model_state" not in checkpoint or averaging:
            return
        pl_module.load_state_dict(checkpoint["current_model_state"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare, now that all is restored; carry out and say so, or refuse.

        Raises:
            ValueError: rows of the epoch would be trained twice or never, or rows that were trained on be held out.
        """
        if self.checkpoint is None:
            return
        self._report_seed(trainer)
        now = self._record(trainer, pl_module)
        if self._was is None:
            _say(
                f"{self.checkpoint} is of an older version, which did not keep its options: those given now hold. In "
                "the middle of an epoch its rows are each trained once if they come in batches as before, and not "
                "sorted by length"
            )
            self._replan(trainer, pl_module)
            return
        self._check_held_out(now)
        self._place_batches(trainer, now)
        course = any(self._was[name] != now[name] for name in ("schedule", "steps_per_epoch"))
        if course or self._was["groups"] != now["groups"]:
            self._replan(trainer, pl_module)
        self._report(now, self._course(trainer, pl_module) if course else "from here on")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep what the run is trained with."""
        if self._groups:
            checkpoint[RECORD] = self._record(trainer, pl_module)

    def _record(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        """What the course of a training depends on, as primitives."""
        loader: Any = trainer.train_dataloader
        sampler, batches = getattr(loader, "sampler", None), trainer.num_training_batches
        replicas = sampler.num_replicas if isinstance(sampler, DistributedSampler) else 1
        order = self._fingerprint(sampler, trainer) if isinstance(sampler, EpochSampler) else None
        return {
            "options": self.options,
            "order": order,
            "divided": getattr(trainer.datamodule, "divided", None),  # type: ignore[attr-defined]
            "rows": None if loader is None or isinstance(loader, StreamLoader) else len(loader.dataset),
            "batch": replicas * (getattr(loader, "batch_size", None) or 1),  # rows, on all devices
            "schedule": tuple(getattr(module, "schedule", None) or ()),
            "steps_per_epoch": (None if batches == float("inf") else int(batches), accumulations(trainer)),
            "optimizers": [class_name(optimizer) for optimizer in trainer.optimizers],
            "groups": self._groups,
            "spread": isinstance(trainer.strategy, ModelParallelStrategy),
        }

    def _fingerprint(self, sampler: EpochSampler, trainer: Trainer) -> int:
        epoch: int = trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        if self._order[0] != epoch:
            self._order = epoch, sampler.fingerprint(epoch)
        return self._order[1]

    def _check_end(self, trainer: Trainer) -> None:
        epochs, batches, steps = self._place
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise ValueError("trainer.fast_dev_run tries a training from its beginning; leave out --ckpt_path")
        limit = -1 if trainer.max_epochs is None else trainer.max_epochs
        trained = f"{epochs} epochs" + (f" and {batches} batches of the next" if batches else "")
        if limit >= 0 and epochs + (batches > 0) > limit:
            raise ValueError(
                f"trainer.max_epochs={limit}: the checkpoint {self.checkpoint} has trained {trained}; give "
                f"--trainer.max_epochs {epochs + (batches > 0)} or more, or begin anew without --ckpt_path"
            )
        if 0 <= trainer.max_steps < steps:
            raise ValueError(
                f"trainer.max_steps={trainer.max_steps}: the checkpoint {self.checkpoint} has trained {steps} steps; "
                f"give --trainer.max_steps {steps} or more, or begin anew without --ckpt_path"
            )
        if epochs == limit or steps == trainer.max_steps:
            option = "max_epochs" if epochs == limit else "max_steps"
            _say(
                f"nothing is left to train, {trained} ({steps} steps) are done; to go on, give a greater "
                f"--trainer.{option}"
            )

    def _check_optimizers(self, trainer: Trainer) -> None:
        if self._was is None:
            return
        if isinstance(trainer.strategy, ModelParallelStrategy) and not self._was["spread"]:
            raise ValueError(
                f"trainer.strategy: the checkpoint {self.checkpoint} has the optimizer's states in the order of its "
                "groups, which Lightning would give to other weights under fsdp2; go on with the strategy that it was "
                "trained with, or begin a new training, without --ckpt_path"
            )
        was, now = self._was["optimizers"], [class_name(optimizer) for optimizer in trainer.optimizers]
        counts = [[group["parameters"] for group in groups] for groups in (self._was["groups"], self._groups)]
        if was == now and counts[0] == counts[1]:
            return
        found = (
            f"{', '.join(was)}, and {', '.join(now)} cannot go on with those: give --model.optimizer {was[0]}"
            if was != now
            else f"groups of {counts[0]} parameters, and those of now have {counts[1]}: train and decay the same ones, "
            "with a --model.position_lr or --model.position_decay if and only if it had one"
        )
        raise ValueError(
            f"model.optimizer: the checkpoint {self.checkpoint} has the states of {found}, or begin a new training, "
            "without --ckpt_path; Classification starts one from these weights with --model.init_from"
        )

    def _check_held_out(self, now: dict[str, Any]) -> None:
        """Refuse to validate or test by rows that were trained on."""
        was: dict[str, Any] = self._was  # type: ignore[assignment]
        differing = self._differing()
        if now["divided"] in (None, was.get("divided", now["divided"])) or any(name in SOURCE for name in differing):
            return
        give = [f"--{name} {_short(was['options'].get(name))}" for name in HELD_OUT if name in differing]
        if give:
            raise ValueError(
                f"ckpt_path: {self.checkpoint} was trained on rows that would be held out now; give {' '.join(give)}, "
                "or begin anew without --ckpt_path"
            )
        _say(
            "the training rows have changed, and so have those that are held out of them: some may have been trained "
            "on, which makes figures of validation and test too good; keep such rows in splits of their own"
        )

    def _place_batches(self, trainer: Trainer, now: dict[str, Any]) -> None:
        """Let the trainer count as trained of the epoch as many of the new batches as hold the rows that are."""
        was: dict[str, Any] = self._was  # type: ignore[assignment]
        current = trainer.fit_loop.epoch_loop.batch_progress.current
        if now["rows"] is None or not current.ready:
            return  # a stream keeps its place itself
        every, as_before = (
            now["steps_per_epoch"][0],
            all(was[name] == now[name] for name in ("batch", "steps_per_epoch")),
        )
        if not self._place.batches:  # the epoch is done, though its validation may not be
            batches = every
        else:
            rows = self._place.batches * was["batch"]
            batches, rest = divmod(rows, now["batch"])
            same = was["order"] == now["order"] and (was["order"] is not None or was["batch"] == now["batch"])
            whole = not rest and batches < every and not batches % accumulation(trainer, self._place.epochs)
            if not same or not (as_before or whole):
                raise ValueError(self._refusal(now, rows, same))
            self._place = self._place._replace(batches=batches)
        change = batches - current.ready
        for name in ("ready", "started", "processed", "completed"):
            setattr(current, name, getattr(current, name) + change)

    def _refusal(self, now: dict[str, Any], rows: int, same: bool) -> str:
        was: dict[str, Any] = self._was  # type: ignore[assignment]
        facts = [
            f"{name} were {was[key]}, now {now[key]}"
            for key, name in (("rows", "training rows"), ("batch", "rows of a batch on all devices"))
            if was[key] != now[key]
        ]
        names = [name for name in self._differing() if name.startswith("data.") or name in (*BATCHES, *COURSE)]
        options = [f"{name} was {_short(was['options'].get(name))}" for name in names]
        reason = (
            f"the {rows} rows of it that are trained make no whole steps of the new batches"
            if same
            else "its rows now come in another order"
        )
        every, accumulated = was["steps_per_epoch"]
        taken = accumulated[max(first for first in accumulated if first <= self._place.epochs)]
        end = self._place.steps + math.ceil(every / taken) - self._place.batches // taken
        return (
            f"ckpt_path: {self.checkpoint} is in the middle of epoch {self._place.epochs + 1}, and {reason}: some "
            f"would be trained twice or never ({'; '.join(options + facts)}). Go on with what it was trained with to "
            f"the end of the epoch at least (--trainer.max_steps {end} stops there), or begin anew without --ckpt_path"
        )

    def _replan(self, trainer: Trainer, module: LightningModule) -> None:
        """Give the optimizer its new options, and the rate that the new course has at this place."""
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        for group, options in zip(groups, self._groups, strict=True):
            group.update({name: value for name, value in options.items() if name != "parameters"})
        for config in trainer.lr_scheduler_configs:
            scheduler = config.scheduler
            if isinstance(scheduler, LambdaLR):
                scheduler.last_epoch = self._step(trainer, module, scheduler)
                scheduler.base_lrs = [group["initial_lr"] for group in scheduler.optimizer.param_groups]
                pairs = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
                # Private to torch, whose `get_last_lr` returns it; `step` would set it, and go on by a step
                scheduler._last_lr = [rate * factor(scheduler.last_epoch) for rate, factor in pairs]
                for group, rate in zip(scheduler.optimizer.param_groups, scheduler._last_lr, strict=True):
                    group["lr"] = rate

    def _step(self, trainer: Trainer, module: LightningModule, scheduler: LambdaLR) -> int:
        """The step of the new course at which the run has come to, its first being 0."""
        if getattr(module, "schedule_steps", None) is not None or not counted_in_epochs(trainer):
            return scheduler.last_epoch
        epochs, batches, _ = self._place
        return steps_of_epochs(trainer, epochs) + batches // accumulation(trainer, epochs)

    def _course(self, trainer: Trainer, module: LightningModule) -> str:
        schedule = getattr(module, "schedule", None)
        if schedule is None:
            return "from here on"
        step = trainer.lr_scheduler_configs[0].scheduler.last_epoch
        if step >= schedule.steps:
            return f"the learning rate has ended {schedule.end}"
        return f"the learning rate goes on at step {step} of {schedule.steps}"

    def _differing(self) -> list[str]:
        was: dict[str, Any] = self._was["options"]  # type: ignore[index]
        names = [name for name in dict.fromkeys((*was, *self.options)) if not name.startswith(SILENT)]
        new = {name for name in names if name not in was and self.options[name] is False}  # and off, as before it
        return [name for name in names if name not in new and not same(was.get(name), self.options.get(name))]

    def _report_seed(self, trainer: Trainer) -> None:
        kept, given = getattr(trainer.datamodule, "seed", None), self.options.get(SEED)  # type: ignore[attr-defined]
        if kept is not None and given is not None and int(given) != kept:
            _say_change(
                SEED, kept, given, f"the run keeps {kept}, on which its order of rows and random numbers depend"
            )

    def _report(self, now: dict[str, Any], course: str) -> None:
        """Say each difference, and what becomes of it."""
        was: dict[str, Any] = self._was  # type: ignore[assignment]
        differing = self._differing()
        for name in differing:
            effect = course if name in (*BATCHES, *COURSE) else "from here on"
            effect = "the best of from here on is kept" if name.startswith("best.") else effect
            _say_change(name, was["options"].get(name), self.options.get(name), effect)
        if was["rows"] != now["rows"]:
            _say_change("number of training rows", was["rows"], now["rows"], course)
        if was["batch"] != now["batch"] and not any(name in BATCHES for name in differing):
            _say_change("rows of a batch on all devices", was["batch"], now["batch"], course)
        for name in dict.fromkeys(name for group in (*was["groups"], *now["groups"]) for name in group):
            both = zip(was["groups"], now["groups"], strict=True)
            pairs = [(old.get(name), new.get(name)) for old, new in both if "name" not in new]  # of others see model.*
            changed = [pair for pair in pairs if pair[0] != pair[1]]
            if changed:
                label = "lr" if name == "initial_lr" else name
                _say_change(f"model.optimizer.{label}", *changed[0], "from here on; the optimizer keeps its moments")
        averages = was["options"].get(EMA), self.options.get(EMA)
        if averages[0] != averages[1]:
            effect = "the average begins with the weights of now" if averages[0] is None else "from here on"
            if averages[1] is None:
                effect = "training goes on with the weights that it trains, and their average is given up"
            _say_change(EMA, *averages, effect)


def _place(saved: dict[str, Any]) -> Place:
    """How far a checkpoint has come. Saved in a validation at an epoch's end, the epoch's training is done."""
    loop = saved["loops"]["fit_loop"]
    epochs, batches = loop["epoch_progress"]["current"], loop["epoch_loop.batch_progress"]
    if batches["is_last_batch"]:
        return Place(epochs["ready"], 0, saved["global_step"])
    return Place(epochs["processed"], batches["current"]["ready"], saved["global_step"])


def _short(value: Any) -> str:
    text = "not given" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _say_change(name: str, was: Any, now: Any, effect: str) -> None:
    _say(f"{name} was {_short(was)}, now {_short(now)}: {effect}")


@rank_zero_only
def _say(message: str) -> None:
    print(f"resuming: {message}", file=sys.stderr)

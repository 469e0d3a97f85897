"""Which parameters decay, and how the learning rate goes."""

from __future__ import annotations

import inspect
import math
import sys
from functools import partial
from typing import Any, NamedTuple

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.cli import OptimizerCallable
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lambda_seq import param_groups
from lambda_seq.layers.decay import POSITIONS


class Positions(NamedTuple):
    """How position embeddings are trained: None as all that does not decay.

    Attributes:
        lr: their learning rate, as a factor of the optimizer's.
        decay: their weight decay.
    """

    lr: float | None = None
    decay: float | None = None

    def check(self) -> None:
        """Raise ValueError for a number that is none of at least 0."""
        for name, number in (("position_lr", self.lr), ("position_decay", self.decay)):
            if number is not None and not 0 <= number < math.inf:
                raise ValueError(f"{name}={number}: expected a number of at least 0, or none for that of the others")

    def __bool__(self) -> bool:
        return self.lr is not None or self.decay is not None


def decay_groups(model: nn.Module, positions: Positions = Positions()) -> list[dict[str, Any]]:  # noqa: B008
    """Parameters in two groups: those that decay, by the optimizer's own weight decay, and all others, with none.

    Biases, norms, position tables and what else a module declares do not decay: `lambda_seq.param_groups`. Position
    embeddings that are trained in a way of their own are a third group; their rate follows by `scale_positions`.
    """
    return param_groups(model, positions={"weight_decay": positions.decay or 0.0} if positions else None)


def scale_positions(optimizer: Optimizer, positions: Positions) -> None:
    """Give position embeddings their learning rate, before a schedule begins.

    Raises:
        ValueError: the optimizer has no learning rate.
    """
    for group in optimizer.param_groups:
        if group.get("name") == POSITIONS and positions.lr is not None:
            if "lr" not in group:
                raise ValueError(
                    f"position_lr={positions.lr}: {type(optimizer).__name__} has no learning rate; leave it out"
                )
            group["lr"] = group["lr"] * positions.lr


class Schedule(NamedTuple):
    """The course of the learning rate: what `warmup_cosine` takes."""

    steps: int
    warmup: int
    final: float

    @property
    def end(self) -> str:
        """What becomes of the rate after its last step, in words."""
        return f"its course of {self.steps} steps and stays at {self.final:g} of the greatest rate"


def plain_factory(optimizer: OptimizerCallable | None) -> OptimizerCallable | None:
    """An optimizer's class with its options, without what the command line puts around it.

    That holds the command line itself, with trainer and data: who copies or pickles a task would take them along.
    """
    if isinstance(optimizer, partial):
        for given in optimizer.args:
            if inspect.isclass(given) and issubclass(given, Optimizer):
                return partial(given, **optimizer.keywords)
    return optimizer


def made_by(factory: OptimizerCallable, groups: list[dict[str, Any]]) -> Optimizer:
    """The optimizer of some groups of parameters.

    Raises:
        ValueError: it refuses its options, or such groups; says what it said.
    """
    try:
        optimizer: Optimizer = factory(groups)
    except (TypeError, ValueError, RuntimeError) as error:
        name = getattr(getattr(factory, "func", factory), "__name__", "it")
        raise ValueError(
            f"model.optimizer: {name} refuses its options or these parameters: {error}; give others, such as "
            "--model.optimizer.lr 0.001, or another optimizer, such as --model.optimizer AdamW"
        ) from error
    return optimizer


def warn_of_early_end(trainer: Trainer, schedule: Schedule) -> None:
    """Say so if the learning rate ends its course before the training does, as far as its length is known."""
    known = [trainer.max_steps] if trainer.max_steps >= 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        trainer.fit_loop.setup_data()
        if counted_in_epochs(trainer):
            known.append(steps_of_epochs(trainer, trainer.max_epochs))
    if known and schedule.steps < min(known) and trainer.is_global_zero:
        print(
            f"warning: schedule_steps={schedule.steps}: training has {min(known)} steps; the learning rate ends "
            f"{schedule.end} for the others",
            file=sys.stderr,
        )


def planned_steps(trainer: Trainer) -> int:
    """Optimizer steps of the whole training: its epochs, or `max_steps` if the number of epochs is not limited.

    A `max_steps` below the epochs stops training early but changes no learning rate, so that a run which is stopped by
    it and resumed is the run that was never stopped.

    Raises:
        ValueError: it has no batches, or no end.
    """
    if trainer.limit_train_batches == 0:
        raise ValueError(
            "trainer.limit_train_batches=0 leaves nothing to train; give at least 1, or run `lambda-seq validate`"
        )
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        trainer.fit_loop.setup_data()
        if counted_in_epochs(trainer):
            return steps_of_epochs(trainer, trainer.max_epochs)
    if trainer.max_steps < 0:
        raise ValueError(
            "the learning rate follows a cosine over the whole training, whose length is not known: limit it with "
            "--trainer.max_epochs or --trainer.max_steps, or give --model.schedule_steps"
        )
    return trainer.max_steps


def counted_in_epochs(trainer: Trainer) -> bool:
    """Whether epochs, of a known number of batches, say how long a training is; its data are set up."""
    return trainer.max_epochs not in (None, -1) and trainer.num_training_batches != float("inf")


def steps_of_epochs(trainer: Trainer, epochs: int) -> int:
    """Optimizer steps of the first epochs. The last step of an epoch takes the batches that are left."""
    batches = trainer.num_training_batches
    return sum(math.ceil(batches / accumulation(trainer, epoch)) for epoch in range(epochs))


def accumulation(trainer: Trainer, epoch: int) -> int:
    """Batches that an optimizer step takes in an epoch."""
    changes = accumulations(trainer)
    return changes[max(first for first in changes if first <= epoch)]


def accumulations(trainer: Trainer) -> dict[int, int]:
    """Batches that an optimizer step takes, by the epoch from which on it does."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, GradientAccumulationScheduler):
            return dict(callback.scheduling)
    return {0: trainer.accumulate_grad_batches}


def warmup_cosine(optimizer: Optimizer, *, steps: int, warmup: int, final: float) -> LambdaLR:
    """Learning rate, as a factor: linearly to 1 over `warmup` steps, then half a cosine to `final` at step `steps`."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min((step - warmup) / max(steps - warmup, 1), 1.0)
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)

"""Each row, token or hidden position counts alike in an optimizer step, whatever batches and processes it came in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from lambda_seq.tasks.metrics import exact, exact_device

TINY = 1e-300  # in place of a count of nothing, whose losses and gradients are zeros


class Window:
    """The batches of one optimizer step, and how many of what the loss is a mean of each process counted in them.

    A step learns from the mean over all that its batches count, n_ip of them in batch i of process p:

        gradient = Σ_i Σ_p n_ip g_ip / Σ_i Σ_p n_ip            g_ip of the mean loss of batch i of process p

    Lightning adds up g_ip / k over k batches and takes the mean over processes. So each loss is multiplied by `weight`,
    (k / m) · n_ip / c, where m is the number of batches that the step should have (fewer than k at the end of an epoch)
    and c a count that all of its batches refer to, the first one that is not 0; what is then missing, as counts differ
    or there are fewer batches than expected, is `rest`, m · c / Σ_i n̄_i, by which the gradients are multiplied before
    they are clipped. n̄_i is the mean of n_ip over processes. With one batch and one process both are 1.
    """

    def __init__(self) -> None:
        self.begin(1, 1)

    def begin(self, accumulated: int, expected: int) -> None:
        """A step begins.

        Args:
            accumulated: batches by whose number the trainer divides each loss.
            expected: batches that this step has, as far as that is known.
        """
        self.accumulated, self.expected, self.batches = accumulated, expected, 0
        self.own: Any = 0.0  # n_ip
        self.reference: Any = 0.0  # c
        self.counted: Any = 0.0  # Σ_i n̄_i
        self.total: Any = 0.0  # Σ_i of the mean over processes of n_ip · loss_ip

    def add(self, loss: Tensor, count: Tensor | int, over_processes: Callable[[Tensor], Tensor]) -> None:
        """A batch.

        Args:
            loss: mean over what this process counted in it.
            count: how much that was.
            over_processes: the mean of a tensor over all processes.
        """
        self.batches += 1
        device = exact_device(loss.device)
        self.own = exact(count, device)
        total, counted = over_processes(torch.stack([exact(loss, device) * self.own, self.own]))
        self.reference = torch.where(exact(self.reference, device) > 0, self.reference, counted)
        self.counted, self.total = self.counted + counted, self.total + total

    @property
    def mean(self) -> Tensor:
        """The loss of the step so far, over all processes."""
        mean: Tensor = self.total / self.counted.clamp_min(TINY)
        return mean

    @property
    def weight(self) -> Tensor:
        """Of the loss of the latest batch."""
        weight: Tensor = self.own / self.reference.clamp_min(TINY) * (self.accumulated / self.expected)
        return weight

    @property
    def rest(self) -> Tensor:
        """Of the gradients that were added up."""
        rest: Tensor = self.expected * self.reference / self.counted.clamp_min(TINY)
        return rest


class WeighedSteps(Callback):
    """Weighs losses and gradients of a task's training by its `window`."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse steps of no batches, which Lightning takes.

        Raises:
            ValueError: fewer than one batch a step.
        """
        if stage == "fit" and trainer.accumulate_grad_batches < 1:
            raise ValueError(f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}: expected at least 1")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, perhaps within an epoch."""
        pl_module.window = Window()  # type: ignore[assignment]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin a step with the batch with which gradients begin."""
        accumulated = trainer.accumulate_grad_batches
        place = batch_idx % accumulated
        if place == 0 or not window(pl_module).batches:
            left = trainer.num_training_batches - (batch_idx - place)  # inf if their number is not known
            window(pl_module).begin(accumulated, int(min(accumulated, left)))

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Weigh the loss; in place, as it is the trainer's own.

        Raises:
            TypeError: the task has not said what the loss is a mean of.
        """
        if not window(pl_module).batches:
            raise TypeError(
                f"{type(pl_module).__name__}.training_step returns a loss without a weight: call self.weigh(loss, "
                "count) with the number of rows, tokens or positions that it is the mean over"
            )
        if trainer.world_size > 1 or trainer.accumulate_grad_batches > 1:
            loss.mul_(window(pl_module).weight.to(loss.dtype).to(loss.device))

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Weigh the gradients, which are no longer scaled and not yet clipped."""
        if trainer.accumulate_grad_batches > 1:
            rest = window(pl_module).rest
            for group in optimizer.param_groups:
                for gradient in (parameter.grad for parameter in group["params"] if parameter.grad is not None):
                    own = gradient.to_local() if isinstance(gradient, DTensor) else gradient
                    own.mul_(rest.to(own.dtype).to(own.device))


def window(module: Any) -> Window:
    """The batches of the step that a task is at."""
    found: Window = module.window
    return found


def steps_with(trainer: Trainer, batch_index: int) -> bool:
    """Whether an optimizer step follows this batch of the training, also if fewer than usual were accumulated."""
    whole = (batch_index + 1) % trainer.accumulate_grad_batches == 0
    return whole or trainer.is_last_batch or batch_index + 1 == trainer.num_training_batches

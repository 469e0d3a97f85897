"""Which parameters decay, and how the learning rate goes."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import Trainer
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def decay_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Parameters in two groups: matrices, with the optimizer's own weight decay, and all others, with none.

    Biases, norms and position tables (whose parameters are those of a module called `position`) do not decay.
    """
    decay: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            matrix = parameter.ndim >= 2 and "position" not in name.split(".")
            (decay if matrix else free).append(parameter)
    return [{"params": decay}, {"params": free, "weight_decay": 0.0}]


def planned_steps(trainer: Trainer) -> int:
    """Optimizer steps of the whole training: its epochs, or `max_steps` if the number of epochs is not limited.

    A `max_steps` below the epochs stops training early but changes no learning rate, so that a run which is stopped by
    it and resumed is the run that was never stopped.
    """
    steps = trainer.estimated_stepping_batches  # sets up the training data
    if trainer.max_epochs is not None and trainer.max_epochs > 0 and trainer.num_training_batches != float("inf"):
        steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches) * trainer.max_epochs
    if steps == float("inf"):
        raise ValueError(
            "the learning rate follows a cosine over the whole training, whose length is not known: limit it with "
            "--trainer.max_epochs or --trainer.max_steps, or give --model.schedule_steps"
        )
    return int(steps)


def warmup_cosine(optimizer: Optimizer, *, steps: int, warmup: int, final: float) -> LambdaLR:
    """Learning rate, as a factor: linearly to 1 over `warmup` steps, then half a cosine to `final` at step `steps`."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min((step - warmup) / max(steps - warmup, 1), 1.0)
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)

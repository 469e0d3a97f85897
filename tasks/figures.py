"""Figures of a training epoch that go on where a checkpoint was saved, on the same number of processes or another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torchmetrics import Metric

UPDATES = "updates"  # how often a metric was updated, kept beside its sums

Sums = dict[str, dict[str, Tensor]]  # of metrics by name, of states by name: (P, …), one for each data-parallel process


def sums(metrics: Mapping[str, Metric], trainer: Trainer) -> Sums:
    """What metrics have summed up; all processes have to ask.

    The sums of each process are kept by themselves, so that on as many processes not even the order of additions
    changes.
    """
    return {
        name: {state: gathered(own, trainer) for state, own in states(metric).items()}
        for name, metric in metrics.items()
    }


def go_on(metrics: Mapping[str, Metric], saved: Sums, trainer: Trainer) -> None:
    """Put sums back in place; on another number of processes the first has those of all, and the others none."""
    replicas, own = place(trainer)
    for name in metrics.keys() & saved.keys():
        metric = metrics[name]
        for state, every in saved[name].items():
            if state == UPDATES:  # of all, so that processes without sums do not warn of that
                # Private to torchmetrics, whose public `update_count` can only be read
                metric._update_count = int(every.sum())
            elif len(every) == replicas:
                setattr(metric, state, every[own].to(getattr(metric, state)))
            elif own == 0:
                setattr(metric, state, every.sum(0).to(getattr(metric, state)))


def within_epoch(loops: Mapping[str, Any]) -> bool:
    """Whether a checkpoint with these loops is of the middle of an epoch, or of the validation at its end."""
    epoch, batches = (loops["fit_loop"][name] for name in ("epoch_progress", "epoch_loop.batch_progress"))
    finished = batches["is_last_batch"] and epoch["current"]["processed"] == epoch["current"]["ready"]
    return batches["current"]["ready"] > 0 and not finished


def states(metric: Metric) -> dict[str, Tensor]:
    """Sums of a metric, and the number of its updates."""
    own: dict[str, Any] = metric.metric_state
    return own | {UPDATES: torch.tensor(metric.update_count)}


def gathered(own: Tensor, trainer: Trainer) -> Tensor:
    """A tensor of each process that has rows of its own, (P, …), on the CPU."""
    if trainer.world_size == 1:
        return own.detach().cpu()[None].clone()
    every: Tensor = trainer.strategy.all_gather(own.detach().to(trainer.strategy.root_device))
    return every[:: trainer.world_size // place(trainer)[0]].cpu()  # neighbours may share their rows


def place(trainer: Trainer) -> tuple[int, int]:
    """Number of processes among which the rows are shared, and which this is."""
    share = trainer.distributed_sampler_kwargs
    return (share["num_replicas"], share["rank"]) if share else (1, 0)

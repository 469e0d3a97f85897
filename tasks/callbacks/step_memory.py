"""Says before the first step what memory a step takes, and warns where that is more than there is."""

from __future__ import annotations

import logging
import sys
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed.fsdp import FSDPModule

from lambda_seq.inference.batches import padded_length
from lambda_seq.layers.synced import SyncedBatchNorm2d, SyncedMaskedBatchNorm
from lambda_seq.tasks.memory.advice import advice
from lambda_seq.tasks.memory.estimate import StepMemory, estimate, kept_by
from lambda_seq.tasks.memory.free import available_memory, available_on_gpu

log = logging.getLogger(__name__)

LARGE, LARGE_NETWORK = 2**15, 2**26  # positions of a batch, weights of a network, from which on steps take gigabytes
SYNCED = (SyncedMaskedBatchNorm, SyncedBatchNorm2d, torch.nn.SyncBatchNorm)
ROOM = 0.75  # of what is free, which an estimate may fill: libraries and fragments take some, too


class MemoryNote(Callback):
    """Estimates the memory of a training step, says it in a line with the model summary, and warns if it will not fit.

    Where there is no summary, as in short runs of tests, only large batches and networks are estimated, and only the
    warning is said. Where processes share weights, sequences or the statistics of norms there is no estimate.

    Args:
        summary: whether the run has a model summary.
        shared: whether processes share sequences.
    """

    def __init__(self, summary: bool, shared: bool = False) -> None:
        self.summary, self.shared = summary, shared

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Estimate and say."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        facts = getattr(pl_module, "facts", None)
        if facts is None or data is None or self.shared or not trainer.is_global_zero or waits_for_others(pl_module):
            return
        longest = longest_row(data)
        if not (self.summary or is_large(facts, data, longest, pl_module)):
            return
        try:
            found = estimate(
                pl_module,
                data.batch_size,
                longest=longest,
                kept=max(map(kept_by, trainer.optimizers), default=0),
                context=trainer.precision_plugin.forward_context(),
            )
        except Exception as error:  # of a network that looks at numbers: a step shows what it takes
            log.info("memory of a step is not known: %s: %s", type(error).__name__, str(error).split("\n")[0])
            return
        if found is not None:
            for line in said(found, room_of(trainer), data, trainer, self.summary):
                print(line, file=sys.stderr)


def waits_for_others(module: torch.nn.Module) -> bool:
    """Whether a forward pass waits for other processes, which make none meanwhile."""
    return isinstance(module, FSDPModule) or any(isinstance(part, SYNCED) for part in module.modules())


def said(found: StepMemory, room: int, data: Any, trainer: Trainer, summary: bool = True) -> list[str]:
    """The line, or in its place the warning."""
    sizes = f"a training step of {found.what} takes about {gib(found.total)} beside the weights, an estimate"
    if found.total <= ROOM * room:
        return [f"memory: {sizes}; {gib(room)} are free"] if summary else []
    options = advice(data, trainer, found.fitting(int(ROOM * room)))
    return [f"warning: {sizes}, and only {gib(room)} are free: try {options}"]


def room_of(trainer: Trainer) -> int:
    """Bytes that are free for each process on a device."""
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return available_on_gpu(device.index)
    return available_memory() // max(trainer.num_devices, 1)


def longest_row(data: Any) -> int | None:
    """Positions of the longest training row as it is padded, if the data module knows the lengths."""
    if not hasattr(data, "lengths") or not hasattr(data, "split"):
        return None
    rows = data.split("train")
    lengths = data.lengths(rows)
    if lengths is None:  # batches are not sorted by them
        lengths = getattr(data.rows_as_items(rows, "train", training=True), "lengths", None)
    if lengths is None or not len(lengths):
        return None
    return padded_length(int(lengths.max()), getattr(data, "pad_to_multiple", 1), getattr(data, "max_length", None))


def is_large(facts: Any, data: Any, longest: int | None, module: torch.nn.Module) -> bool:
    """Whether a batch, or the network, is so large that a step may take gigabytes."""
    height, width = facts.options.get("image_size", (1, 1))
    row = longest or facts.options.get("max_length") or height * width
    return data.batch_size * row >= LARGE or sum(p.numel() for p in module.parameters()) >= LARGE_NETWORK


def gib(size: float) -> str:
    """Bytes in words: 1.5 GiB, 30 MiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{max(size / 2**20, 1):.0f} MiB"

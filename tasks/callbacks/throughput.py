"""How fast training reads: real positions per second, in the progress bar and in the logs."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from torch import Tensor

from lambda_seq.models.inputs import INPUTS
from lambda_seq.tasks.weighing import steps_with

PERIOD = 1.0  # seconds between readings, each of which waits for the device


class Throughput(Callback):
    """Measures the positions per second that training reads: tokens, samples of audio, pixels; padding is none.

    Logged as tokens_per_second (samples_, pixels_ or positions_per_second for other data), as often as the loss, and
    shown by `ProgressBar`. Time between steps counts, so that a slow data set shows; validation does not. Several
    processes are taken to be equally fast.

    Lightning's own `ThroughputMonitor` counts padding, takes all batches to be of one size and waits for the device at
    each step; here positions are counted on the device, which is waited for once a second.
    """

    def __init__(self) -> None:
        self.unit = "positions"
        self.rate: float | None = None  # per second
        self._seen: Tensor | int = 0  # positions since the last reading
        self._since = 0.0  # the time of it

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out what positions are called."""
        kind = getattr(getattr(pl_module, "network", None), "input_kind", "")
        if getattr(pl_module, "frontend", None) is not None:  # samples that become what the network takes
            kind = "waveform"
        self.unit = INPUTS[kind].unit if kind in INPUTS else "positions"

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to measure."""
        self._restart()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on after a validation."""
        self._restart()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a batch, and read the rate when a second has passed or a step is logged."""
        self._seen = self._seen + real_positions(batch)
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        logged = every > 0 and steps_with(trainer, batch_idx) and trainer.global_step % every == 0
        if logged or time.perf_counter() - self._since >= PERIOD:
            seen = int(self._seen)  # waits for the device
            elapsed = time.perf_counter() - self._since
            rows = trainer.distributed_sampler_kwargs
            self.rate = seen * (rows["num_replicas"] if rows else 1) / max(elapsed, 1e-9)
            self._restart()
        if logged and self.rate is not None:
            pl_module.log(f"{self.unit}_per_second", self.rate, on_step=True, on_epoch=False, batch_size=1)

    def _restart(self) -> None:
        self._seen, self._since = 0, time.perf_counter()


class ProgressBar(RichProgressBar):
    """Lightning's progress bar with the rate of a `Throughput` among the trainer's callbacks."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What stands behind the bar."""
        shown: dict[str, Any] = super().get_metrics(trainer, pl_module)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Throughput) and callback.rate is not None:
                shown[f"{callback.unit}/s"] = short(callback.rate)
        return shown


def real_positions(batch: dict[str, Any]) -> Tensor | int:
    """Positions of a batch that are no padding: those of "mask", or without one all of "x".

    "x" is (B, N), (B, N, C) or, of images, (B, C, H, W), which has B · H · W.
    """
    if batch.get("mask") is not None:
        return batch["mask"].sum(dtype=torch.int64)
    x = batch["x"]
    if isinstance(x, list):  # pictures of any size
        return sum(one.shape[-2] * one.shape[-1] for one in x)
    return x.shape[0] * (x.shape[2] * x.shape[3] if x.ndim == 4 else x.shape[1])


def short(number: float) -> str:
    """A number with three digits and a prefix: 1234567 is "1.23M"."""
    for prefix in ("", "k", "M", "G"):
        if number < 999.5 or prefix == "G":
            break
        number /= 1000
    return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f}{prefix}"

"""Steps on the CPU take the memory that the one before has freed."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from lambda_seq.tasks.memory.heap import keep_freed


class KeptMemory(Callback):
    """Lets a process on the CPU keep what steps free, once the data are read; see `tasks.memory.heap`."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Data have been read, whose memory has gone back to the system."""
        if trainer.strategy.root_device.type == "cpu":
            keep_freed()

"""How a fit may end: refused before its training, once it is known whether the data can be tested."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy


class Ending(Callback):
    """Refuses a fit whose test or export could only fail when all is trained.

    Args:
        tests: whether it ends with a test, if the data have one.
        exports: whether it ends with an export of the network.
        keeps: whether checkpoints are kept.
    """

    def __init__(self, *, tests: bool, exports: bool, keeps: bool) -> None:
        self.tests, self.exports, self.keeps = tests, exports, keeps

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check, as data were read just now.

        Raises:
            ValueError: less than a batch to test, or weights that are spread over processes and nowhere whole.
        """
        if stage != "fit":
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        limit = trainer.limit_test_batches
        tests = self.tests and limit != 0 and data.tested
        if isinstance(trainer.strategy, ModelParallelStrategy) and not self.keeps and (tests or self.exports):
            raise ValueError(
                "trainer.enable_checkpointing=False with trainer.strategy=fsdp2: the weights are whole in checkpoints "
                "alone, of which a test and the exported model are made; keep them, or give --test_after_fit false "
                "--export false"
            )
        if isinstance(limit, float) and 0 < limit < 1 and tests:
            batches = len(data.test_dataloader())
            if limit * batches < 1:
                raise ValueError(
                    f"trainer.limit_test_batches={limit}: less than one of the {batches} batches to test; give "
                    f"{1 / batches:.3g} or more, a number of batches, or --test_after_fit false"
                )

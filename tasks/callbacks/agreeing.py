"""All processes of a run train with the same options."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import Callback, LightningModule, Trainer


class SameChoices(Callback):
    """Ends a run whose processes have other choices of a recipe, as machines do whose data differ.

    Args:
        words: the choices of this process, as options of the command line.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compare, before a network is made of them.

        Raises:
            ValueError: they differ.
        """
        first = trainer.strategy.broadcast(self.words)
        if trainer.strategy.reduce_boolean_decision(first == self.words):
            return
        raise ValueError(
            f"recipe: process {trainer.global_rank} has chosen {' '.join(self.words)}, and process 0 "
            f"{' '.join(first)}; --data.path must hold the same rows on all machines, or give these options"
        )

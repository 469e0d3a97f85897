"""An average of the weights over training, which is validated, tested and saved in their place."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightEMA(WeightAveraging):
    """Exponential moving average of weights and norms' statistics, by Lightning's `WeightAveraging`.

        average ← d · average + (1 − d) · weights        d = min(decay, (1 + n) / (10 + n)) after step n

    The decay grows with the steps, so that the first weights are soon forgotten. Validation, best.ckpt, the test, and
    the model that is exported have the average; a checkpoint keeps the weights that are trained beside it, under
    "current_model_state", and training goes on with them.

    Args:
        decay: greatest decay, from 0 to below 1; 0.9999 averages over about 10,000 steps.

    Raises:
        ValueError: a decay out of range, or weights spread over processes.
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema_decay={decay}: expected a number from 0 to below 1, such as 0.9999")
        self.decay = decay
        super().__init__(multi_avg_fn=self._average)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin the average.

        Raises:
            ValueError: weights are spread over processes, which an average of whole ones cannot follow.
        """
        if isinstance(trainer.strategy, ModelParallelStrategy):
            raise ValueError(
                f"ema_decay={self.decay} with trainer.strategy=fsdp2: weights are spread over processes, and their "
                "average is not supported; use trainer.strategy=ddp, or leave ema_decay out"
            )
        with warnings.catch_warnings():
            # It warns of any `configure_model`, which may spread weights; here that was just ruled out
            warnings.filterwarnings("ignore", "You're using the WeightAveraging callback with a model that overrides")
            super().setup(trainer, pl_module, stage)

    def state_dict(self) -> dict[str, Any]:
        """Nothing, as Lightning asks for a callback that has something wherever its checkpoint is loaded."""
        return {}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with weights and average, if training does; a test after it has the average and keeps it.

        The average of a run that kept none begins with its weights.
        """
        if trainer.state.fn == TrainerFn.FITTING:
            if "averaging_state" in checkpoint:
                super().on_load_checkpoint(trainer, pl_module, checkpoint)
            # Private to Lightning, which has no public way to begin an average with other weights, at another step
            elif self._average_model is not None:
                self._average_model.module.load_state_dict(checkpoint["state_dict"])
            self._latest_update_step = checkpoint["global_step"]

    @torch.no_grad()
    def _average(self, averages: Sequence[Tensor], weights: Sequence[Tensor], count: Tensor) -> None:
        steps = float(count)
        if averages[0].is_floating_point():
            get_ema_multi_avg_fn(min(self.decay, (1 + steps) / (10 + steps)))(list(averages), list(weights), count)
        else:  # counters
            for average, weight in zip(averages, weights, strict=True):
                average.copy_(weight)

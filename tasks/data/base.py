"""What all data modules share: where data come from, how they are loaded, and a seed that resumed runs keep."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningDataModule


class Data(LightningDataModule, ABC):
    """Data at a path, in splits, as batches.

    Args:
        path: a hub name, a file or a folder.
        batch_size: items per step and device.
        num_workers: processes that prepare batches; 0 prepares them in the training process.
        subset: configuration of a hub data set that has several.
        validation_fraction: share of the training data held out if there is no validation split; 0 for no validation.
        test_fraction: share of the training data held out if there is no test split; 0 for no test.
        predict_path: data to predict instead of the test split.

    Raises:
        ValueError: no path, or a number out of range.
    """

    def __init__(
        self,
        path: str,
        *,
        batch_size: int,
        num_workers: int,
        subset: str | None,
        validation_fraction: float,
        test_fraction: float,
        predict_path: str | None,
    ) -> None:
        super().__init__()
        if not path:
            raise ValueError("path: no data given; --data.path takes a hub name, a file or a folder")
        for name, number, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
            if number < least:
                raise ValueError(f"{name}={number}: expected at least {least}")
        for name, fraction in (("validation_fraction", validation_fraction), ("test_fraction", test_fraction)):
            if not 0 <= fraction < 1:
                raise ValueError(f"{name}={fraction}: expected a number from 0 to below 1")
        self.path, self.batch_size, self.num_workers = path, batch_size, num_workers
        self.subset, self.predict_path = subset, predict_path
        self.validation_fraction, self.test_fraction = validation_fraction, test_fraction
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0))  # of --seed_everything

    @property
    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What the model has to know, as primitives.

        "input": "image", "features", "waveform" or "tokens", the kind of network that takes them; "options": arguments
        that a network may accept, such as in_channels. Classes have "labels", their names; images "mean" and "std", per
        channel, for bytes from 0 to 255; audio has "audio", the arguments of `tasks.frontends.AudioFrontend`; text has
        "tokens", the argument of `tasks.data.tokens.Tokens.from_facts`.
        """

    @property
    @abstractmethod
    def splits(self) -> dict[str, Any]:
        """The data by split: train, validation and test, as far as there are such."""

    @property
    def collate(self) -> Callable | None:
        """How items become a batch; None for stacking."""
        return None

    def _loader_options(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "collate_fn": self.collate,
            "pin_memory": torch.cuda.is_available(),
            "persistent_workers": self.num_workers > 0,
        }

    @property
    def _process(self) -> dict[str, Any]:
        """How many processes have rows of their own, and which of these this is."""
        found = self.trainer.distributed_sampler_kwargs if self.trainer else None
        return {"replicas": found["num_replicas"], "rank": found["rank"]} if found else {"replicas": 1, "rank": 0}

    def _trained(self) -> int:
        """Batches of this epoch that the trainer is done with."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.ready if self.trainer else 0

    def state_dict(self) -> dict[str, Any]:
        """The seed of the order of items."""
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the order of the run that is resumed."""
        self.seed = state_dict["seed"]

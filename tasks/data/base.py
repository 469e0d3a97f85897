"""What all data modules share: when data are read, how they are loaded, and a seed that resumed runs keep."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn

from lambda_seq.tasks.data.batches import Batch
from lambda_seq.tasks.data.reading.notes import note
from lambda_seq.tasks.facts import Facts

LOADED: dict[TrainerFn | None, tuple[str, ...]] = {  # which splits a trainer loads
    TrainerFn.FITTING: ("train", "validation"),
    TrainerFn.VALIDATING: ("validation",),
    TrainerFn.TESTING: ("test",),
    TrainerFn.PREDICTING: ("test",),
}


class Data(LightningDataModule, ABC):
    """Data at a path, in splits, as batches.

    To make one costs nothing. Lightning reads the data by `prepare_data`, on one process of each machine while the
    others wait, and then by `setup` on all of them. Without a trainer, `splits`, `facts` and the loaders read them when
    they are first asked for.

    Args:
        path: a hub name, a file or a folder.
        batch_size: items per step and device.
        num_workers: processes that prepare batches; 0 prepares them in the training process.
        subset: configuration of a hub data set that has several.
        validation_fraction: share of the training data held out if there is no validation split; 0 for no validation.
        test_fraction: share of the training data held out if there is no test split; 0 for no test.
        predict_path: data to predict instead of the test split.

    Attributes:
        reads: what it has read that depends on the rows alone, and on none of the options that recipes choose.
        view: where the `inspection.views.View` of its rows is, "package.module.Class"; None of rows that have none.

    Raises:
        ValueError: no path, or a number out of range.
    """

    reads: ClassVar[tuple[str, ...]] = ("splits",)
    view: ClassVar[str | None] = None

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

    def take_over(self, other: Data) -> None:
        """Use what another module has read of the same rows, as far as it has: `reads`."""
        vars(self).update({name: value for name, value in vars(other).items() if name in self.reads})

    def prepare_data(self) -> None:
        """Download, read and measure, train a tokenizer and turn texts into ids, so that all processes find it done.

        What takes long is kept on disk, in the caches of `datasets`, where `setup` finds it on every process.
        """
        self.setup()
        for name in LOADED.get(self.trainer.state.fn, ()) if self.trainer else ():
            if name in self.splits:
                self.keep(name)

    def setup(self, stage: str | None = None) -> None:
        """Read the splits, and measure what the model has to know; what was read already stays as it is."""
        _ = self.facts

    def keep(self, name: str) -> None:
        """Put on disk what the batches of a split are made of, if that is more than what was read."""

    @abstractmethod
    def read(self) -> dict[str, Any]:
        """Read the data: `splits`."""

    @abstractmethod
    def measure(self) -> Facts:
        """Look at the data, as far as necessary: `facts`."""

    @cached_property
    def splits(self) -> dict[str, Any]:
        """The data by split: train, validation and test, as far as there are such."""
        return self.read()

    @cached_property
    def facts(self) -> Facts:
        """What the model has to know."""
        return self.measure()

    def note_held_out(self, name: str, what: str) -> None:
        """Say what is held out of the training data for a split that there is not."""
        note(f"path={self.path!r} has no {name} split: {what} held out for it. Choose with --data.{name}_fraction")

    def note_not_held_out(self) -> None:
        """Say that `test_fraction` is for data without a test split."""
        note(f"path={self.path!r} has a test split, which is taken: test_fraction={self.test_fraction} is left out")

    @property
    def tested(self) -> bool:
        """Whether there is a test split that can be tested."""
        return "test" in self.splits

    @property
    def divided(self) -> int | None:
        """A number that tells which rows are held out of those for training; None where none are, or none known."""
        return None

    def training_ids(self) -> Iterable[Int[np.ndarray, " N"]] | None:
        """Token ids of all that is trained on, of one document after another; None where there are none to go through.

        Networks that weigh tokens by how many documents have them count these; see `tasks.networks.adapt`.
        """
        return None

    @property
    def collate(self) -> Callable[[list[Any]], Batch] | None:
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
    def share(self) -> dict[str, Any]:
        """How many processes divide the data among them, "replicas", and which this is, "rank"."""
        options = self.trainer.distributed_sampler_kwargs if self.trainer else None
        return {"replicas": options["num_replicas"], "rank": options["rank"]} if options else {"replicas": 1, "rank": 0}

    def _trained(self) -> int:
        """Batches of this epoch that the trainer is done with."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.ready if self.trainer else 0

    def state_dict(self) -> dict[str, Any]:
        """The seed of the order of items."""
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the order of the run that is resumed."""
        self.seed = state_dict["seed"]

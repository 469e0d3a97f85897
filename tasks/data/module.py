"""What data modules for classification share: splits, labels, loaders."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from tasks.data.labels import Rows, carve, encode_labels, find_label_column
from tasks.data.loading import EpochSampler, ResumableLoader
from tasks.data.sources import load_rows


class ClassificationData(LightningDataModule, ABC):
    """Labelled rows from a hub data set or local files, in three splits.

    Without a validation split a part of the training split is held out for it. Without a test split there is no test,
    unless `test_fraction` holds one out.
    """

    def __init__(
        self,
        path: str,
        *,
        batch_size: int,
        num_workers: int,
        label_column: str | None,
        subset: str | None,
        validation_fraction: float,
        test_fraction: float,
        split_seed: int,
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
        self.label_column, self.subset, self.predict_path = label_column, subset, predict_path
        self.validation_fraction, self.test_fraction, self.split_seed = validation_fraction, test_fraction, split_seed
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0))  # of --seed_everything

    @property
    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What the model has to know, as primitives.

        "labels": class names; "input": "image", "features" or "tokens", the kind of network that takes them; "options":
        arguments that a network may accept, such as in_channels; images also have "mean" and "std", per channel, for
        bytes from 0 to 255.
        """

    @abstractmethod
    def rows_as_items(self, rows: Rows, split: str, *, training: bool = False) -> Dataset:
        """A data set of items {"x", "id"} and, if labels are known, {"label"}; takes keys row or (epoch, row)."""

    @property
    def collate(self) -> Callable | None:
        """How items become a batch; None for stacking."""
        return None

    def lengths(self, rows: Rows) -> np.ndarray | None:
        """Lengths of the rows, if batches should hold rows of similar length."""
        return None

    @cached_property
    def splits(self) -> dict[str, Rows]:
        """Rows of train, validation and, if there is one, test."""
        tables = load_rows(self.path, self.subset)
        if "train" not in tables:
            raise ValueError(
                f"path={self.path!r} has no training split, only {', '.join(tables)}; it is needed for the class names"
            )
        column = find_label_column(tables["train"], self.label_column)
        self._labels, numbers = encode_labels(tables, column, f"path={self.path!r}")
        splits = {name: Rows(table, np.arange(len(table)), numbers[name]) for name, table in tables.items()}
        for name, fraction in (("test", self.test_fraction), ("validation", self.validation_fraction)):
            if name not in splits and fraction:
                if len(splits["train"]) < 2:
                    raise ValueError(f"path={self.path!r}: too few training rows to hold some out for {name}")
                splits["train"], splits[name] = carve(splits["train"], fraction, self.split_seed)
        return splits

    @property
    def labels(self) -> list[str]:
        """Class names, in the order of the class numbers."""
        return self._labels if self.splits else []

    def split(self, name: str) -> Rows:
        """The rows of a split.

        Raises:
            ValueError: there is no such split; says how to get one.
        """
        if name not in self.splits:
            raise ValueError(
                f"path={self.path!r} has no {name} split, only {', '.join(self.splits)}; add one, or hold out a part "
                f"of the training rows: --data.{name}_fraction 0.1"
            )
        return self.splits[name]

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches; see `EpochSampler`."""
        rows = self.split("train")
        items = self.rows_as_items(rows, "train", training=True)
        sampler = EpochSampler(
            items,
            batch_size=self.batch_size,
            seed=self.seed,
            lengths=self.lengths(rows),
            replicas=self.trainer.world_size if self.trainer else 1,
            rank=self.trainer.global_rank if self.trainer else 0,
        )
        return ResumableLoader(
            items,
            sampler=sampler,
            trained=self._trained,
            drop_last=len(sampler) >= self.batch_size,  # no batch of one row, of which a batch norm learns nothing
            **self._loader_options(),
        )

    def val_dataloader(self) -> DataLoader | list:
        """The validation split in order; nothing if it is switched off by validation_fraction=0."""
        if "validation" not in self.splits and not self.validation_fraction:
            return []
        return self._in_order(self.split("validation"), "validation")

    def test_dataloader(self) -> DataLoader:
        """The test split in order."""
        return self._in_order(self.split("test"), "test")

    def predict_dataloader(self) -> DataLoader:
        """The rows of `predict_path`, which need no labels; without it the test split."""
        if self.predict_path is None:
            return self.test_dataloader()
        tables = load_rows(self.predict_path)
        name, table = max(tables.items(), key=lambda item: (item[0] == "test", len(item[1])))
        if len(tables) > 1 and name != "test":
            raise ValueError(f"predict_path={self.predict_path!r} has the splits {', '.join(tables)}: give one of them")
        return self._in_order(Rows(table, np.arange(len(table)), None), Path(self.predict_path).name)

    def _in_order(self, rows: Rows, split: str) -> DataLoader:
        return DataLoader(self.rows_as_items(rows, split), shuffle=False, **self._loader_options())

    def _loader_options(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "collate_fn": self.collate,
            "pin_memory": torch.cuda.is_available(),
            "persistent_workers": self.num_workers > 0,
        }

    def _trained(self) -> int:
        """Batches of this epoch that the trainer is done with."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.ready if self.trainer else 0

    def state_dict(self) -> dict[str, Any]:
        """The seed of the order of rows."""
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the order of the run that is resumed."""
        self.seed = state_dict["seed"]

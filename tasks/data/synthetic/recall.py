"""Associative recall, generated on the fly: which value stood behind this key?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from jaxtyping import Int
from torch.utils.data import Dataset

from lambda_seq.tasks.data.labels import Rows
from lambda_seq.tasks.data.module import ClassificationData
from lambda_seq.tasks.facts import Facts

PAD, QUERY, FIRST = 0, 1, 2  # ids of padding, of the sign of a question, of the first key
SPLITS = {"train": 0, "validation": 1, "test": 2}


@dataclass(frozen=True)
class Recall:
    """Sequences in which keys are followed by values, and that end with one of the keys again.

    ids: 0 padding, 1 the sign of a question, then the keys, the values and the noise.

    Args:
        length: tokens of a sequence.
        pairs: keys with values in it, all keys different.
        keys, values, noise: how many tokens of each kind there are.
        distractors: share of the other positions that hold values without a key, instead of noise.
    """

    length: int
    pairs: int
    keys: int
    values: int
    noise: int
    distractors: float

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return FIRST + self.keys + self.values + self.noise

    def pairing(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
        """Keys (pairs,), their values (pairs,), from 0 on, and which pair is asked for."""
        keys = random.choice(self.keys, self.pairs, replace=False)
        return keys, random.integers(0, self.values, self.pairs), int(random.integers(self.pairs))

    def draw(self, random: np.random.Generator) -> tuple[Int[np.ndarray, " length"], int]:
        """A sequence and the value that is asked for.

        Pairs stand anywhere, all places alike; a value's key is the token in front of it. Values of pairs are drawn one
        by one, so that one value can stand behind several keys.
        """
        keys, values, asked = self.pairing(random)
        room = self.length - 2
        # Choosing among the places of single tokens, then moving each pair by the pairs before it
        place = np.sort(random.choice(room - self.pairs, self.pairs, replace=False, shuffle=False))
        place += np.arange(self.pairs)
        first_value = FIRST + self.keys
        sequence = np.empty(self.length, np.int64)
        sequence[:room] = random.integers(first_value + self.values, self.vocab_size, room)
        lone = random.random(room) < self.distractors
        sequence[:room][lone] = random.integers(first_value, first_value + self.values, int(lone.sum()))
        sequence[place] = FIRST + keys
        sequence[place + 1] = first_value + values
        sequence[room:] = QUERY, FIRST + keys[asked]
        return sequence, int(values[asked])


class RecallItems(Dataset):
    """Sequences that depend on seed, split, epoch and row alone.

    Args:
        recall: draws them.
        count: of sequences.
        seed: of all of them.
        split: "train", "validation" or "test".
    """

    def __init__(self, recall: Recall, count: int, seed: int, split: str) -> None:
        self.recall, self.count, self.seed, self.split = recall, count, seed, split

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """The sequence with key row or (epoch, row)."""
        epoch, row = key if isinstance(key, tuple) else (0, key)
        sequence, value = self.recall.draw(self.random(epoch, row))
        return {"x": torch.from_numpy(sequence), "label": value, "id": str(row)}

    def random(self, epoch: int, row: int) -> np.random.Generator:
        """What a sequence is drawn with."""
        return np.random.default_rng([self.seed, SPLITS[self.split], epoch, row])


class RecallData(ClassificationData):
    """Associative recall: sequences of keys with values, spread among noise, that end with one key; the class is its
    value.

    Harder with more `pairs`, which a network must keep apart, more `keys` than it has channels to keep them in
    (`dim_key` of a lambda layer), greater `length`, more `noise`, and `distractors`, without which all values belong to
    keys. Chance is 1 / values. Who knows which values stand behind keys, but not behind which, does best with the most
    frequent one. Both are logged beside validation and test results, as `baseline_chance` and `baseline_most_frequent`.

    Nothing is stored. Training draws new sequences in each epoch; validation and test sequences are always the same.

    Args:
        batch_size: sequences per step and device.
        num_workers: processes that draw sequences; 0 draws them in the training process.
        length: tokens of a sequence, 1,024 or 65,536 or any other number.
        pairs: keys with values in a sequence.
        keys: different keys, of which a sequence has `pairs`.
        values: different values, the classes.
        noise: different tokens that mean nothing and stand at all other positions.
        distractors: share of the other positions that hold a value without a key, from 0 to 1.
        train_size: training sequences in an epoch.
        validation_size: validation sequences.
        test_size: test sequences.
        data_seed: of validation and test sequences; those of training have the seed of the run.
    """

    def __init__(
        self,
        batch_size: int = 32,
        num_workers: int = 0,
        length: int = 1024,
        pairs: int = 8,
        keys: int = 16,
        values: int = 16,
        noise: int = 1,
        distractors: float = 0.0,
        train_size: int = 10_000,
        validation_size: int = 1_000,
        test_size: int = 1_000,
        data_seed: int = 0,
    ) -> None:
        super().__init__(
            "associative recall",
            batch_size=batch_size,
            num_workers=num_workers,
            label_column=None,
            subset=None,
            validation_fraction=0.1,
            test_fraction=0.0,
            split_seed=0,
            predict_path=None,
        )
        self.sizes = {"train": train_size, "validation": validation_size, "test": test_size}
        least = {"pairs": 1, "values": 2, "noise": 1, "data_seed": 0} | {f"{name}_size": 1 for name in self.sizes}
        given = {"pairs": pairs, "values": values, "noise": noise, "data_seed": data_seed}
        for name, number in (given | {f"{name}_size": size for name, size in self.sizes.items()}).items():
            if number < least[name]:
                raise ValueError(f"{name}={number}: expected at least {least[name]}")
        if keys < pairs:
            raise ValueError(f"keys={keys}: expected at least as many as pairs={pairs}, whose keys all differ")
        if length < 2 * pairs + 2:
            raise ValueError(
                f"length={length}: expected at least {2 * pairs + 2}, room for pairs={pairs} and the question"
            )
        if not 0 <= distractors <= 1:
            raise ValueError(f"distractors={distractors}: expected a number from 0 to 1")
        self.recall = Recall(length, pairs, keys, values, noise, distractors)
        self.data_seed = data_seed

    def measure(self) -> Facts:
        """Labels, vocabulary size and length, and what the rules without memory reach on these very sequences."""
        options = {
            "num_classes": self.recall.values,
            "vocab_size": self.recall.vocab_size,
            "max_length": self.recall.length,
        }
        baselines = {
            stage: {"chance": 1 / self.recall.values, "most_frequent": self._most_frequent(split)}
            for stage, split in (("val", "validation"), ("test", "test"))
        }
        return Facts(kind="tokens", options=options, labels=self.labels, baselines=baselines)

    @property
    def labels(self) -> list[str]:
        """The values, counted from 0."""
        return [str(value) for value in range(self.recall.values)]

    def read(self) -> dict[str, Rows]:
        """As many rows as sequences; they hold nothing."""
        return {
            split: Rows(datasets.Dataset.from_dict({"row": range(size)}), np.arange(size), None)
            for split, size in self.sizes.items()
        }

    @property
    def tested(self) -> bool:
        """True: what each sequence asks for is made with it."""
        return True

    def rows_as_items(self, rows: Rows, split: str, *, training: bool = False) -> RecallItems:
        """Token ids, (length,)."""
        return RecallItems(self.recall, len(rows), self.seed if split == "train" else self.data_seed, split)

    def _most_frequent(self, split: str) -> float:
        """Accuracy of the value that most keys of a sequence have, the smallest of several."""
        items = self.rows_as_items(self.splits[split], split)
        right = 0
        for row in range(len(items)):
            _, values, asked = self.recall.pairing(items.random(0, row))
            right += int(np.bincount(values).argmax() == values[asked])
        return right / len(items)

"""Series of numbers, as a data module of one's own has them."""

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from lambda_seq.tasks.baselines.registry import fit_baseline
from lambda_seq.tasks.baselines.series import summary
from lambda_seq.tasks.data import ClassificationData
from lambda_seq.tasks.data.labels import Rows
from lambda_seq.tasks.facts import Facts

SIZES = {"train": 80, "validation": 30, "test": 30}


class Series(Dataset):
    def __init__(self, seed, labels, make):
        self.seed, self.labels, self.make = seed, labels, make

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, row):
        random = np.random.default_rng([self.seed, row])
        x = torch.from_numpy(self.make(random, int(self.labels[row])).astype(np.float32))
        return {"x": x, "id": str(row), "label": int(self.labels[row])}


class FeatureRows(ClassificationData):
    def __init__(self, make, classes=2, kind="features"):
        options = dict.fromkeys(("label_column", "subset", "predict_path"))
        fractions = {"validation_fraction": 0.1, "test_fraction": 0.0, "split_seed": 0}
        super().__init__("generated:series", batch_size=8, num_workers=0, **options, **fractions)
        self.make, self.classes, self.kind = make, classes, kind

    labels = ("down", "up")

    def read(self):
        tables = {name: datasets.Dataset.from_dict({"row": range(size)}) for name, size in SIZES.items()}
        return {
            name: Rows(table, np.arange(len(table)), np.arange(len(table)) % self.classes)
            for name, table in tables.items()
        }

    def measure(self):
        channels = {} if self.kind == "waveform" else {"in_channels": 2}
        return Facts(kind=self.kind, options={"num_classes": 2, **channels}, labels=list(self.labels))

    def rows_as_items(self, rows, split, *, training=False):
        return Series(list(SIZES).index(split), rows.labels, self.make)


def louder(random, label):
    return random.standard_normal((random.integers(20, 60), 2)) * (1 + 3 * label)


def later(random, label):
    x = 0.1 * random.standard_normal((100, 2))
    x[20 + 50 * label : 30 + 50 * label] += 1
    return x


@pytest.mark.parametrize("make", [louder, later], ids=["of any length", "of one length"])
def test_what_says_the_class_is_found(make):
    found = fit_baseline(FeatureRows(make))
    assert min(found.figures[stage]["accuracy"] for stage in ("val", "test")) > 0.85
    assert "80 training series" in found.line


def test_samples_of_which_nothing_is_known():
    found = fit_baseline(FeatureRows(lambda random, label: louder(random, label)[:, 0], kind="waveform"))
    assert found.figures["test"]["accuracy"] > 0.85


def test_nothing_but_noise_is_chance():
    accuracy = fit_baseline(FeatureRows(lambda random, label: random.standard_normal((50, 2)))).figures["test"][
        "accuracy"
    ]
    assert 0.2 < accuracy < 0.8


def test_a_single_class_is_an_error():
    with pytest.raises(ValueError, match=r"generated:series'.*all training rows have the same label, 'down'"):
        fit_baseline(FeatureRows(louder, classes=1))


def test_a_summary():
    x = torch.arange(12.0).view(6, 2)
    found = summary(x, steps=3)
    assert found[:8].tolist() == pytest.approx(
        [5, 6, np.std([0, 2, 4, 6, 8, 10]), np.std([0, 2, 4, 6, 8, 10]), 0, 1, 10, 11]
    )
    assert found[8:16].tolist() == [2, 2, 0, 0, 2, 2, 2, 2]
    assert found[16:].tolist() == [1, 5, 9, 2, 6, 10]
    assert np.isfinite(summary(torch.zeros(1, 2), 4)).all()
    assert summary(torch.zeros(0), 4).shape == (12,)

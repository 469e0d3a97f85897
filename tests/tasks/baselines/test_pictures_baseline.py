"""Pictures and sequences of pixels: the same figures for both, right where the right one is known."""

import numpy as np
import pytest
import torch
from small_data import image_folder

from lambda_seq.tasks.baselines import pictures as pictures_baseline
from lambda_seq.tasks.baselines.pictures import pixels
from lambda_seq.tasks.baselines.registry import fit_baseline
from lambda_seq.tasks.data import ImageData


def test_halves_of_pictures_are_told_apart(pictures):
    found = fit_baseline(ImageData(str(pictures), flip=True, augment="randaugment"))
    sequences = fit_baseline(ImageData(str(pictures), as_sequence=True))
    for figures in (found.figures, sequences.figures):
        assert figures["val"]["accuracy"] == figures["test"]["accuracy"] == 1.0
        assert figures["test"]["majority"] == 0.5
    assert "logistic regression on pixels: 24 training pictures, 192 features (pixels of 8 × 8), C=" in found.line
    assert "pixels of 8 × 8" in sequences.line


@pytest.mark.parametrize("sequence", [False, True])
def test_large_pictures_become_small(tmp_path, sequence):
    folder = image_folder(tmp_path / "large", {"train": 6, "validation": 2, "test": 2}, size=(70, 40))
    found = fit_baseline(ImageData(str(folder), as_sequence=sequence))
    assert found.chosen["features"] == 3 * 32 * 32
    assert "(pixels of 32 × 32)" in found.line
    assert found.figures["test"]["accuracy"] == 1.0


def test_pixels_are_averaged():
    picture = torch.arange(64, dtype=torch.uint8).repeat(3, 64, 1)  # (3, 64, 64)
    found = pixels(picture)
    np.testing.assert_allclose(found[:32], np.arange(32) * 2 + 0.5)
    np.testing.assert_array_equal(pixels(picture.flatten(1).mT, (64, 64)), found)
    small = torch.zeros(3, 8, 9, dtype=torch.uint8)
    assert pixels(small).shape == (3 * 8 * 9,)
    assert pixels(torch.zeros(72, 3, dtype=torch.uint8)).shape == (216,)


def test_many_pictures_are_a_sample(pictures, monkeypatch):
    monkeypatch.setattr(pictures_baseline, "MOST", 10)
    found = fit_baseline(ImageData(str(pictures)))
    assert found.chosen["training_rows"] == 10
    assert "10 of 24 training pictures" in found.line

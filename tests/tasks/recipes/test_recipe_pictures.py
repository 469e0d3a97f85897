"""The recipe of pictures: sizes, networks and random changes for how many pictures of which size."""

import numpy as np
import pytest
from small_data import image_folder, picture

from lambda_seq.models import accepted_options
from lambda_seq.tasks.data import ImageData
from lambda_seq.tasks.recipes.pictures import NETWORKS, SEQUENCES, Images, choose, measure


def chosen(given=None, **measured):
    return {choice.option: choice.value for choice in choose(Images(given=given or {}, **measured))}


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (
            {"rows": 1_300, "height": 8, "width": 8},
            {
                "model.options.stem": "small",
                "data.crop_padding": 1,
                "data.batch_size": 32,
                "model.options.blocks": [1, 1, 1],
                "trainer.max_epochs": 37,
            },
        ),
        (
            {"rows": 20_000, "height": 28, "width": 28},
            {
                "model.options.stem": "resnet_d",
                "data.crop_padding": 3,
                "data.batch_size": 64,
                "model.options.blocks": [2, 2],
                "trainer.max_epochs": 13,
            },
        ),
        (
            {"rows": 900, "height": 80, "width": 100},
            {"data.image_size": None, "data.crop_scale": [0.5, 1], "data.crop_padding": None},
        ),
        (
            {"rows": 9_000, "height": 480, "width": 640, "differ": True},
            {
                "data.image_size": [96, 128],
                "data.crop_scale": [0.7, 1],
                "data.batch_size": 32,
                "model.options.blocks": [2, 2, 2],
                "model.channels_last": True,
            },
        ),
        (
            {"rows": 1_300, "height": 8, "width": 8, "sequences": True, "given": {"model.network": "lambda_encoder"}},
            {
                "model.options.stem": "features",
                "model.options.strides": [],
                "model.options.scope": 31,
                "data.crop_padding": None,
                "model.channels_last": None,
            },
        ),
        (
            {"rows": 43_000, "height": 64, "width": 64, "sequences": True},
            {"model.options.strides": [4], "model.options.scope": None, "model.options.position": "multiscale"},
        ),
        (  # whose error says what fits
            {"rows": 43_000, "sequences": True, "given": {"model.network": "lambda_resnet50"}},
            {"model.options.stem": None},
        ),
    ],
)
def test_choices(measured, expected):
    found = chosen(**measured)
    assert {name: found.get(name) for name in expected} == expected


def test_what_follows_from_given_options():
    large = {"rows": 900, "height": 480, "width": 640}
    found = chosen({"data.image_size": [240, 320]}, rows=900, height=240, width=320)
    assert found["data.batch_size"] == 4
    assert "data.image_size" not in found
    assert not {"data.crop_scale", "data.crop_padding"} & set(chosen({"data.crop_padding": 4}, **large))


def test_the_networks_take_what_is_chosen():
    assert {name for _, options in NETWORKS for name in options} <= accepted_options("lambda_resnet50")
    assert {name for _, options in SEQUENCES for name in options} <= accepted_options("lambda_encoder")


def test_pictures_are_measured(tmp_path):
    folder = image_folder(tmp_path / "pictures", {"train": 6, "validation": 2}, size=(12, 16))
    found = measure(ImageData(str(folder)))
    assert (found.rows, found.validation, found.classes) == (12, 4, (6, 6))
    assert (found.height, found.width, found.differ, found.sequences) == (12, 16, False, False)
    assert found.sentence == "12 training pictures, 12 × 16 pixels, 2 classes"
    picture(0, np.random.default_rng(0), (30, 30)).save(folder / "train" / "up" / "large.png")
    found = measure(ImageData(str(folder), as_sequence=True))
    assert (found.height, found.width, found.differ, found.sequences) == (12, 16, True, True)
    assert "median 12 × 16 pixels" in found.sentence
    assert measure(ImageData(str(folder), image_size=20)).height == 20

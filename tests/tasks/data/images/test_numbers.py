"""Pictures that tables hold as numbers."""

import csv

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lambda_seq.tasks.data import ImageData
from lambda_seq.tasks.data.images.numbers import NUMBERS
from lambda_seq.tasks.data.reading import notes

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 28, 28))
PIXELS[:, 0, 0] = PIXELS[:, -1, -1] = 0  # as of handwritten digits
PIXELS[0, 1, 1] = 255
LABELS = np.arange(12) % 3


@pytest.fixture(autouse=True)
def _each_note_anew(monkeypatch):
    monkeypatch.setattr(notes, "_said", set())


def write(file, pixels=PIXELS, header=True, name="pixel{}", first=True):
    flat = pixels.reshape(len(pixels), -1)
    rows = [[name.format(place) for place in range(flat.shape[1])], *flat.tolist()]
    labels = ["label", *LABELS.tolist()]
    table = [([label, *row] if first else [*row, label]) for label, row in zip(labels, rows, strict=True)]
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows(table if header else table[1:])
    return file


def loaded(path, **options):
    data = ImageData(str(path), validation_fraction=0, **options)
    items = data.rows_as_items(data.split("train"), "train")
    return np.stack([items[row]["x"].numpy() for row in range(len(items))]), data


@pytest.mark.parametrize(
    "options",
    [{}, {"name": "{}"}, {"name": "p_{}", "first": False}, {"header": False}, {"header": False, "first": False}],
)
def test_a_column_for_each_pixel(tmp_path, caplog, options):
    pixels, data = loaded(write(tmp_path / "a.csv", **options))
    assert np.array_equal(pixels[:, 0], PIXELS)
    assert data.labels == ["0", "1", "2"]
    assert data.split("train").labels.tolist() == LABELS.tolist()
    assert "are read as pictures of 28×28 pixels, 0 as black and 255 as white. Choose with --data.pix" in caplog.text


def test_shapes(tmp_path):
    file = write(tmp_path / "a.csv", PIXELS[:, :, :20])
    with pytest.raises(ValueError, match=r"pixel_shape: there is no square of the 560 numbers .* 'pixel0' to .*H, W"):
        loaded(file)
    with pytest.raises(ValueError, match=r"pixel_shape=\[20, 20\]: does not fit the 560 numbers"):
        loaded(file, pixel_shape=(20, 20))
    assert np.array_equal(loaded(file, pixel_shape=(28, 20))[0][:, 0], PIXELS[:, :, :20])
    colours = PIXELS[:, :12, :12].reshape(12, 12, 12, 1).repeat(3, 3) // [1, 2, 3]
    assert np.array_equal(loaded(write(tmp_path / "b.csv", colours))[0], colours.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    "cells",
    [
        PIXELS.tolist(),
        PIXELS.reshape(12, -1).tolist(),
        [" ".join(map(str, row.ravel())) for row in PIXELS],
        [str(row.ravel().tolist()) for row in PIXELS],
        PIXELS[:, None].tolist(),
        PIXELS[..., None].tolist(),
    ],
    ids=["rows", "flat", "text", "list as text", "channel first", "channel last"],
)
@pytest.mark.parametrize("name", ["pixels", "img", "what"])
def test_all_pixels_in_a_cell(tmp_path, cells, name):
    pq.write_table(pa.table({name: cells, "emotion": LABELS}), tmp_path / "a.parquet")
    pixels, data = loaded(tmp_path / "a.parquet", image_column="what" if name == "what" else None)
    assert np.array_equal(pixels[:, 0], PIXELS)
    assert data.labels == ["0", "1", "2"]


@pytest.mark.parametrize(("pixels", "white"), [(PIXELS / 255, 1), (PIXELS * 16, 4095)])
def test_white(tmp_path, caplog, pixels, white):
    pq.write_table(pa.table({"image": pixels.tolist(), "label": LABELS}), tmp_path / "a.parquet")
    found = loaded(tmp_path / "a.parquet")[0][:, 0]
    assert np.abs(found.astype(int) - PIXELS).max() <= 1
    assert f"0 as black and {white} as white" in caplog.text


def test_pictures_to_predict_have_the_same_white(tmp_path):
    pq.write_table(pa.table({"image": (PIXELS / 255).tolist(), "label": LABELS}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": (PIXELS[:2] // 255.0).tolist()}), tmp_path / "b.parquet")
    data = ImageData(str(tmp_path / "a.parquet"), predict_path=str(tmp_path / "b.parquet"))
    data.setup()
    batch = next(iter(data.predict_dataloader()))
    assert np.array_equal(batch["x"][:, 0].numpy(), PIXELS[:2] // 255 * 255)
    (tmp_path / "c.csv").write_text("text\nx\n")
    data.predict_path = str(tmp_path / "c.csv")
    with pytest.raises(ValueError, match=r"the columns of pixels 'image' are missing; give a table like that of"):
        data.predict_dataloader()


def test_numbers_that_are_no_pixels(tmp_path):
    for bad in (np.nan, -3):
        pixels = PIXELS[:, :4, :4].astype(float)
        pixels[7, 1, 1] = bad
        pq.write_table(pa.table({"image": pixels.tolist(), "label": LABELS}), tmp_path / "a.parquet")
        with pytest.raises(ValueError, match=r"row 7: its pixels in 'image' are missing or below 0; give num"):
            loaded(tmp_path / "a.parquet")


def test_paths_and_few_numbers_are_none():
    assert not NUMBERS.fullmatch("1 2 3")
    assert not NUMBERS.fullmatch("pictures/2020/01/02/a.png")
    assert NUMBERS.fullmatch(" ".join(["70"] * 16))
    assert datasets.Dataset.from_dict({"x": [1]}).column_names == ["x"]


def test_a_table_of_files_beside_numbers_is_of_files(tmp_path):
    header, row = [f"f{n}" for n in range(20)], ["1"] * 20
    lines = [["image", "label", *header], ["a.png", "a", *row], ["b.png", "b", *row]]
    (tmp_path / "a.csv").write_text("\n".join(map(",".join, lines)))
    with pytest.raises(ValueError, match=r"a.png: there is no such file"):
        loaded(tmp_path / "a.csv")

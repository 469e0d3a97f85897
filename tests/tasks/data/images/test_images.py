"""Images as bytes of one size."""

import io
import tracemalloc

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from small_data import image_folder, picture, write_jsonl

from lambda_seq.inference.pictures import Decoder
from lambda_seq.tasks.data import ImageData
from lambda_seq.tasks.data.images.data import Augmentation


def first(loader):
    return next(iter(loader))


def test_facts_and_batches_of_a_folder(pictures):
    data = ImageData(str(pictures), batch_size=6)
    facts = data.facts
    assert facts.labels == ["down", "up"]
    assert facts.options == {"num_classes": 2, "in_channels": 3, "image_size": [8, 8]}
    assert facts.pixels.mean == pytest.approx([104] * 3, abs=8)
    assert facts.pixels.std == pytest.approx([77] * 3, abs=8)
    batch = first(data.train_dataloader())
    assert batch["x"].shape == (6, 3, 8, 8)
    assert batch["x"].dtype == torch.uint8
    assert len(data.train_dataloader()) == 4
    batch = first(data.test_dataloader())
    assert batch["label"].tolist() == [0] * 4 + [1] * 2
    assert batch["id"][0].endswith("down/00.png")


def test_columns_within_columns_of_a_metadata_file(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for row in range(12):
        picture(row % 2, rng).save(tmp_path / f"{row:02}.png")
        rows.append({"file_name": f"{row:02}.png", "width": 8, "about": {"half": ["up", "down"][row % 2], "row": row}})
    write_jsonl(tmp_path / "metadata.jsonl", rows)
    data = ImageData(str(tmp_path), label_column="about.half", test_fraction=0)
    assert data.facts.labels == ["down", "up"]
    table, labels = data.split("train").table, data.split("train").labels
    assert table.column_names == ["image", "width", "about.half", "about.row"]
    assert [table[int(row)]["about.row"] % 2 for row in data.split("train").indices] == [1 - label for label in labels]
    assert len(data.split("train")) + len(data.split("validation")) == 12


def test_grey_images_keep_one_channel_and_become_sequences(tmp_path):
    folder = image_folder(tmp_path / "grey", {"train": 5, "test": 1}, channels=1, size=(6, 8))
    data = ImageData(str(folder), as_sequence=True, batch_size=2)
    assert data.facts.kind == "features"
    assert data.facts.options == {"num_classes": 2, "in_channels": 1, "max_length": 48}
    sequence = first(data.test_dataloader())["x"]
    image = first(ImageData(str(folder), batch_size=2).test_dataloader())["x"]
    assert torch.equal(sequence, image.flatten(2).transpose(1, 2))


def test_colours_read_as_shades_of_grey(pictures):
    sequence = ImageData(str(pictures), grey=True, as_sequence=True, batch_size=2)
    assert sequence.facts.options == {"num_classes": 2, "in_channels": 1, "max_length": 64}
    assert len(sequence.facts.pixels.mean) == 1
    grey = first(sequence.test_dataloader())["x"]
    colours = first(ImageData(str(pictures), batch_size=2).test_dataloader())["x"].double()  # (B, 3, H, W)
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)  # of ITU-R BT.601
    expected = torch.einsum("bchw, c -> bhw", colours, weights).flatten(1)
    assert grey.shape == (2, 64, 1)
    assert (grey[..., 0] - expected).abs().max() < 1


def test_different_sizes_are_brought_to_the_median_or_the_one_given(tmp_path, caplog):
    folder = image_folder(tmp_path / "mixed", {"": 3})
    picture(0, np.random.default_rng(0), (20, 30)).save(folder / "up" / "large.png")
    data = ImageData(str(folder), validation_fraction=0.2)
    assert data.facts.options["image_size"] == [8, 8]
    assert "--data.image_size" in caplog.text
    assert first(data.train_dataloader())["x"].shape[2:] == (8, 8)
    assert ImageData(str(folder), image_size=(10, 12)).facts.options["image_size"] == [10, 12]


def test_modes():
    colours = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert np.array_equal(Decoder((4, 4), 3)(Image.fromarray(colours)), colours.transpose(2, 0, 1))
    opaque = Image.fromarray(np.dstack([colours, np.full((4, 4), 255, np.uint8)]))
    assert np.array_equal(Decoder((4, 4), 3)(opaque), colours.transpose(2, 0, 1))
    deep = Image.fromarray(np.full((4, 4), 513 * 64, np.uint16))
    assert Decoder((4, 4), 1)(deep).tolist() == np.full((1, 4, 4), 513 * 64 // 256).tolist()
    assert Decoder((2, 2), 1)(Image.new("1", (4, 4), 1)).tolist() == [[[255, 255], [255, 255]]]
    assert Decoder((4, 4), 3)(Image.new("P", (4, 4))).shape == (3, 4, 4)


def test_statistics_are_those_of_all_pixels_at_once(pictures):
    data = ImageData(str(pictures), validation_fraction=0)
    pixels = np.stack([item["x"].numpy() for item in data.rows_as_items(data.split("train"), "train")])
    assert np.allclose(data.facts.pixels.mean, pixels.mean((0, 2, 3), dtype=np.float64), rtol=1e-14)
    assert np.allclose(data.facts.pixels.std, pixels.std((0, 2, 3), dtype=np.float64), rtol=1e-14)


def test_statistics_take_the_memory_of_a_picture(tmp_path):
    folder = image_folder(tmp_path / "large", {"": 40}, size=(256, 256))
    data = ImageData(str(folder), validation_fraction=0)
    _ = data.decoder
    tracemalloc.start()
    _ = data.facts
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 256 * 256 * 3 * 4  # four pictures in 64 bits; all would be eighty


def test_a_border_is_no_wider_than_half_of_the_picture(tmp_path, caplog):
    folder = image_folder(tmp_path / "small", {"": 4}, size=(6, 10))
    pixels = ImageData(str(folder), crop_padding=3, validation_fraction=0)
    wide = ImageData(str(folder), crop_padding=40, validation_fraction=0)
    batches = [first(pixels.train_dataloader())["x"]]
    assert not caplog.text
    batches.append(first(wide.train_dataloader())["x"])
    assert "crop_padding=40 is more than half of images of 6×10 pixels" in caplog.text
    assert "it is 3" in caplog.text
    assert torch.equal(*batches)
    assert (batches[1].flatten(1) > 0).any(1).all()


def test_augmentation_depends_on_seed_epoch_and_row_alone():
    pixels = np.arange(192, dtype=np.uint8).reshape(3, 8, 8)
    augment = Augmentation(padding=2, flip=True, seed=1)
    assert augment(pixels, 0, 0).shape == (3, 8, 8)
    assert np.array_equal(augment(pixels, 3, 4), augment(pixels, 3, 4))
    seen = {augment(pixels, epoch, row).tobytes() for epoch in range(8) for row in range(8)}
    assert len(seen) > 20
    assert np.array_equal(Augmentation(0, False, 1)(pixels, 0, 0), pixels)


def test_training_images_differ_between_epochs_and_test_images_do_not(pictures):
    data = ImageData(str(pictures), batch_size=24, crop_padding=3)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(0)
    zero = first(loader)
    loader.sampler.set_epoch(1)
    one = first(loader)
    by_name = [dict(zip(batch["id"], batch["x"], strict=True)) for batch in (zero, one)]
    assert any(not torch.equal(by_name[0][name], by_name[1][name]) for name in by_name[0])
    assert torch.equal(first(data.test_dataloader())["x"], first(data.test_dataloader())["x"])


def test_an_image_in_a_table_is_named_by_its_row(tmp_path):
    stream = io.BytesIO()
    picture(0, np.random.default_rng(0)).save(stream, "png")
    good = {"bytes": stream.getvalue(), "path": None}
    features = datasets.Features(img=datasets.Image(), label=datasets.Value("int64"))
    rows = {"img": [good, good, good, {"bytes": b"no image", "path": None}], "label": [0, 1, 0, 1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "images.parquet")
    with pytest.raises(ValueError, match=r"row 3: not a readable image"):
        _ = ImageData(str(tmp_path / "images.parquet"), validation_fraction=0).facts
    rows["img"][3] = None
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "gap.parquet")
    with pytest.raises(ValueError, match=r"row 3: no image"):
        _ = ImageData(str(tmp_path / "gap.parquet"), validation_fraction=0).facts


@pytest.mark.parametrize("count", [0, 40, 90])
def test_a_truncated_image_is_named_by_its_file(pictures, count):
    broken = pictures / "train" / "down" / "05.png"
    broken.write_bytes(broken.read_bytes()[:count])
    with pytest.raises(ValueError, match=rf"{broken}: not a readable image"):
        _ = ImageData(str(pictures)).facts


def test_a_column_without_images(tmp_path):
    datasets.Dataset.from_dict({"image": [5, 6], "label": [0, 1]}).to_json(tmp_path / "numbers.jsonl")
    with pytest.raises(ValueError, match=r"image_column='image' holds .*expected images, bytes of files or paths"):
        _ = ImageData(str(tmp_path / "numbers.jsonl")).facts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"image_size": 0}, "image_size=0"),
        ({"crop_padding": -1}, "crop_padding=-1"),
        ({"background": "whitish"}, "background='whitish': expected an opaque colour, such as 'white'"),
        ({"background": "#ff000080"}, "background='#ff000080': expected an opaque colour"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        ImageData("anywhere", **options)


def test_splits_that_are_missing_or_held_out(tmp_path):
    folder = image_folder(tmp_path / "one", {"": 10})
    data = ImageData(str(folder))
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 18, "validation": 2}
    with pytest.raises(ValueError, match=r"no test split.*--data.test_fraction 0.1"):
        data.test_dataloader()
    data = ImageData(str(folder), test_fraction=0.2, validation_fraction=0)
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 16, "test": 4}
    assert data.val_dataloader() == []
    only = image_folder(tmp_path / "only", {"test": 3})
    with pytest.raises(ValueError, match="has no training split, only test"):
        _ = ImageData(str(only)).splits


def test_pictures_of_a_relative_folder_that_holds_one_of_its_own_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = image_folder(tmp_path / "known", {"": 2})
    for place, value in (("a", 200), ("a/a", 9)):
        (tmp_path / place).mkdir()
        Image.new("RGB", (8, 8), (value,) * 3).save(tmp_path / place / "1.png")
    data = ImageData(str(known), validation_fraction=0, predict_path="a")
    assert first(data.predict_dataloader())["x"][:, 0, 0, 0].tolist() == [200, 9]


@pytest.mark.parametrize("size", [0, (4,), (4, 4, 4), (4, 0)])
def test_sizes_that_are_none(size):
    with pytest.raises(ValueError, match=r"image_size=.*: expected a number of pixels, at least 1, or two such"):
        ImageData("x", image_size=size)


@pytest.mark.parametrize(
    ("size", "sequence", "wanted"),
    [
        ((374, 500), False, (224, 299)),
        ((300, 260), False, (258, 224)),
        ((256, 300), False, (256, 300)),
        ((128, 96), True, (128, 96)),
        ((374, 500), True, (64, 86)),
    ],
)
def test_photos_get_a_size_that_fits_into_memory(tmp_path, caplog, size, sequence, wanted):
    folder = image_folder(tmp_path / "photos", {"": 2}, size=size)
    assert ImageData(str(folder), as_sequence=sequence).decoder.size == wanted
    said = [record.message for record in caplog.records if "large for a batch" in record.message]
    assert len(said) == (wanted != size)
    assert ImageData(str(folder), image_size=size, as_sequence=sequence).decoder.size == size

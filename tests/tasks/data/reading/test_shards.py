"""Shards of WebDataset, as pictures, clips and texts."""

import io
import json
import tarfile

import numpy as np
import pytest
import soundfile
from PIL import Image

from lambda_seq.tasks.data import AudioData, CorpusData, ImageData, TextData
from lambda_seq.tasks.inspection.guessing import guessed


def png(grey):
    stream = io.BytesIO()
    Image.new("L", (6, 5), grey).save(stream, "png")
    return stream.getvalue()


def flac(grey):
    stream = io.BytesIO()
    soundfile.write(stream, np.full(40, grey / 256), 8000, format="FLAC")
    return stream.getvalue()


def shard(file, samples, mode="w"):
    """A tar of files by name, in order."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, mode) as tar:
        for name, content in samples:
            raw = content if isinstance(content, bytes) else str(content).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(raw)
            tar.addfile(entry, io.BytesIO(raw))
    return file


def pictures(begin=0, count=6):
    for row in range(begin, begin + count):
        yield f"{row:04}.png", png(10 * row)
        yield f"{row:04}.cls", row % 2


def greys(data, split="train"):
    items = list(data.rows_as_items(data.split(split), split))
    return [int(item["x"].max()) for item in items], [data.labels[item["label"]] for item in items]


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz")])
def test_pictures_with_their_classes(tmp_path, name, mode):
    file = shard(tmp_path / name, pictures(), mode)
    assert greys(ImageData(str(file), validation_fraction=0)) == ([0, 10, 20, 30, 40, 50], ["0", "1"] * 3)
    assert guessed(str(file))[0] == "image_classification"


def test_a_folder_of_shards_in_splits(tmp_path):
    for number in range(2):
        shard(tmp_path / f"train-{number:04}.tar", pictures(6 * number))
    shard(tmp_path / "test-0000.tar", pictures(20, 2))
    data = ImageData(str(tmp_path), validation_fraction=0)
    assert greys(data)[0] == list(range(0, 120, 10))
    assert greys(data, "test")[0] == [200, 210]
    plain = tmp_path / "plain"
    for number in range(2):
        shard(plain / f"{number:03}.tar", pictures(6 * number))
    assert len(ImageData(str(plain), validation_fraction=0).split("train")) == 12


def test_endings_may_differ_and_classes_are_any_words(tmp_path):
    samples = []
    for row in range(6):
        stream = io.BytesIO()
        Image.new("L", (6, 5), 10 * row).save(stream, "png" if row % 2 else "bmp")
        samples += [(f"{row}.{'PNG' if row % 2 else 'bmp'}", stream.getvalue()), (f"{row}.cls", f"{'ab'[row % 2]}\n")]
        samples += [(f"{row}.mask.png", png(0)), (f"{row}.npy", b"x")]
    data = ImageData(str(shard(tmp_path / "a.tar", samples)), validation_fraction=0)
    assert greys(data) == ([0, 10, 20, 30, 40, 50], ["a", "b"] * 3)


def test_labels_in_json_and_in_folders(tmp_path):
    samples = [
        entry
        for row in range(6)
        for entry in ((f"{row}.png", png(row)), (f"{row}.json", json.dumps({"label": "ab"[row % 2], "by": "me"})))
    ]
    assert greys(ImageData(str(shard(tmp_path / "a.tar", samples)), validation_fraction=0))[1] == ["a", "b"] * 3
    samples = [(f"{'cat' if row % 2 else 'dog'}/{row}.png", png(row)) for row in range(6)]
    assert greys(ImageData(str(shard(tmp_path / "b.tar", samples)), validation_fraction=0))[1] == ["dog", "cat"] * 3


def test_clips_and_texts(tmp_path):
    samples = [entry for row in range(6) for entry in ((f"{row}.flac", flac(row)), (f"{row}.cls", row % 2))]
    file = shard(tmp_path / "clips.tar", samples)
    data = AudioData(str(file), validation_fraction=0)
    items = data.rows_as_items(data.split("train"), "train")
    assert [len(items[row]["x"]) for row in range(6)] == [40] * 6
    assert guessed(str(file))[0] == "audio_classification"
    samples = [entry for row in range(6) for entry in ((f"{row}.txt", f"naïve {row}"), (f"{row}.cls", row % 2))]
    file = shard(tmp_path / "texts.tar", samples)
    data = TextData(str(file), validation_fraction=0)
    assert [text.decode() for text in data.texts(data.split("train"))] == [f"naïve {row}" for row in range(6)]
    assert guessed(str(file))[0] == "text_classification"
    assert len(CorpusData(str(file), validation_fraction=0, length=8).splits["train"].table) == 6


def test_what_is_predicted_needs_no_labels(tmp_path):
    train = shard(tmp_path / "a.tar", pictures())
    new = shard(tmp_path / "new.tar", [(f"x{row}.png", png(row)) for row in range(3)])
    data = ImageData(str(train), validation_fraction=0, predict_path=str(new))
    _ = data.facts
    (batch,) = data.predict_dataloader()
    assert batch["x"].shape[0] == 3
    assert "label" not in batch


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([("a.png", png(1)), ("a.jpg", png(1))], "sample 'a' has two files for the column 'image'; leave one"),
        ([("a.png", png(1)), ("a.json", "{cat")], "a.json: it is no JSON"),
        ([("a", b"x"), ("readme", b"y")], "the shards hold no samples"),
    ],
)
def test_what_cannot_be_read(tmp_path, samples, message):
    file = shard(tmp_path / "a.tar", samples)
    with pytest.raises(ValueError, match=message):
        _ = ImageData(str(file)).splits
    (tmp_path / "b.tar").write_bytes(b"no archive at all")
    with pytest.raises(ValueError, match=r"b.tar: the shard cannot be read: ReadError"):
        _ = ImageData(str(tmp_path / "b.tar")).splits


def test_broken_pictures_are_named(tmp_path):
    file = shard(tmp_path / "a.tar", [*pictures(), ("x.png", b"none"), ("x.cls", 1)])
    with pytest.raises(ValueError, match=r"row 6.* not a readable image"):
        _ = ImageData(str(file), validation_fraction=0).facts

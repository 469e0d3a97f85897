"""Pictures as files: modes, transparency, deep numbers, and tables that name or hold them."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_data import image_folder, write_jsonl

from lambda_seq.inference.pictures import Decoder, full_scale, look
from lambda_seq.tasks.data import ImageData

DRAWING = np.zeros((8, 8, 4), np.uint8)  # black, on a transparent ground
DRAWING[2:6, 2:6, 3] = 255
INK = DRAWING[..., 3] == 255
KEY = np.where(INK, 0, 9).astype(np.uint8)  # the same, with the grey that shall be transparent


def encoded(picture, kind="PNG", **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def reopened(picture, kind="PNG", **options):
    return Image.open(io.BytesIO(encoded(picture, kind, **options)))


def with_alpha(mode):
    picture = Image.fromarray(DRAWING[..., 0]).convert(mode)
    picture.putalpha(Image.fromarray(DRAWING[..., 3]))
    return picture


DRAWINGS = {
    "RGBA": Image.fromarray(DRAWING),
    "RGBa": Image.fromarray(DRAWING).convert("RGBa"),
    "LA": with_alpha("L"),
    "La": with_alpha("L").convert("La"),
    "PA": with_alpha("P"),
    "P": reopened(Image.fromarray(DRAWING).quantize(4)),
    "L": reopened(Image.fromarray(KEY), transparency=9),
    "RGB": reopened(Image.fromarray(KEY).convert("RGB"), transparency=(9, 9, 9)),
    "I;16": reopened(Image.fromarray(KEY.astype(np.uint16)), transparency=9),
}


@pytest.mark.parametrize("mode", DRAWINGS)
@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_pictures_lie_on_the_background(mode, channels):
    assert DRAWINGS[mode].mode == mode
    assert look(DRAWINGS[mode]).transparent
    for colour, level in {"white": 255, "black": 0, "#808080": 128}.items():
        pixels = Decoder((8, 8), channels, colour)(DRAWINGS[mode])
        assert pixels.shape == (channels, 8, 8)
        assert (pixels[:, INK] == 0).all()
        assert (pixels[:, ~INK] == level).all()
    assert np.array_equal(Decoder((8, 8), channels)(DRAWINGS[mode]), Decoder((8, 8), channels, "white")(DRAWINGS[mode]))


def test_half_transparent_and_coloured_grounds():
    half = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert np.abs(Decoder((2, 2), 3)(half).astype(int) - 127).max() <= 1
    assert Decoder((2, 2), 3, "red")(Image.new("LA", (2, 2), (0, 0)))[:, 0, 0].tolist() == [255, 0, 0]
    assert Decoder((2, 2), 1, "red")(Image.new("LA", (2, 2), (0, 0)))[:, 0, 0].tolist() == [76]  # its luminance


@pytest.mark.parametrize(
    ("numbers", "scale", "expected"),
    [
        (np.array([[0, 32768, 65535]], np.uint16), None, [0, 128, 255]),
        (np.array([[0, 32768, 65535]], ">u2"), None, [0, 128, 255]),
        (np.array([[0, 2048, 4095]], np.uint16), 4095, [0, 128, 255]),
        (np.array([[-5, 32768, 99999]], np.int32), None, [0, 128, 255]),
        (np.array([[0, 0.5, 1]], np.float32), None, [0, 128, 255]),
        (np.array([[0, 128, 255]], np.float32), None, [0, 128, 255]),
        (np.array([[0, 500, 1000]], np.float32), 1000, [0, 128, 255]),
    ],
)
def test_numbers_of_more_than_eight_bits(numbers, scale, expected):
    modes = {"<u2": "I;16", ">u2": "I;16B", "<i4": "I", "<f4": "F"}
    picture = Image.frombytes(modes[numbers.dtype.str], (3, 1), numbers.tobytes())
    assert look(picture).deep
    assert look(picture).grey
    assert Decoder((1, 3), 1, full_scale=scale)(picture)[0, 0].tolist() == expected
    assert Decoder((1, 3), 3, full_scale=scale)(picture)[2, 0].tolist() == expected


def test_the_level_of_white():
    assert [full_scale(most) for most in (0.3, 1, 1.01, 256, 4000, 65535, 70000)] == [
        1,
        1,
        255,
        1023,
        4095,
        65535,
        70000,
    ]
    assert full_scale(1, fractions=False) == 255


def test_the_level_of_white_is_that_of_the_training_pictures(tmp_path, caplog):
    rng = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / "deep" / label).mkdir(parents=True)
        for index in range(4):
            numbers = rng.integers(0, 100 if index else 4000, (8, 8), dtype=np.uint16)  # one bright, three dark
            Image.fromarray(numbers).save(tmp_path / "deep" / label / f"{index}.png")
    data = ImageData(str(tmp_path / "deep"), validation_fraction=0)
    assert data.facts.pixels.full_scale == 4095
    assert data.facts.options["in_channels"] == 1
    assert "of the 8 training images looked at, 8 hold no bytes but numbers up to 3" in caplog.text
    assert "4095 is taken as white" in caplog.text
    dark = data.rows_as_items(data.split("train"), "train")[1]["x"]
    assert dark.max() <= 100 * 255 / 4095 + 1
    assert json.loads(json.dumps(data.facts.to_dict())) == data.facts.to_dict()


def test_a_picture_with_numbers_that_are_none_is_named(tmp_path):
    folder = image_folder(tmp_path / "some", {"": 2})
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(folder / "up" / "nan.tif")
    with pytest.raises(ValueError, match=r"nan\.tif: not a readable image \(it holds pixels that are infinite"):
        _ = ImageData(str(folder), validation_fraction=0).facts


def test_pictures_stand_upright_and_show_their_first_frame():
    left = np.zeros((4, 6, 3), np.uint8)
    left[:, :3] = 255
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned to the right by 90 degrees
    picture = reopened(Image.fromarray(left), exif=turned)
    assert look(picture).size == (6, 4)
    upright = Decoder((6, 4), 1)(picture)[0]
    assert upright[:3].min() == 255
    assert upright[3:].max() == 0
    frames = [Image.new("L", (4, 4), grey) for grey in (10, 200)]
    for kind in ("GIF", "TIFF"):
        moving = reopened(frames[0], kind, save_all=True, append_images=frames[1:])
        assert look(moving).frames == 2
        assert (Decoder((4, 4), 1)(moving) == 10).all()


def test_what_was_found_in_the_pictures_is_said(tmp_path, caplog):
    folder = image_folder(tmp_path / "some", {"": 3})
    DRAWINGS["RGBA"].save(folder / "up" / "drawing.png")
    frames = [Image.new("L", (8, 8), grey) for grey in (10, 200)]
    frames[0].save(folder / "down" / "moving.gif", save_all=True, append_images=frames[1:])
    data = ImageData(str(folder), validation_fraction=0, background="black")
    assert data.facts.pixels.background == "black"
    assert "of the 8 training images looked at, 1 are transparent: put on black" in caplog.text
    assert "--data.background" in caplog.text
    assert "of the 8 training images looked at, 1 have several frames or pages: the first one is taken" in caplog.text
    drawing = {item["id"]: item["x"] for item in data.rows_as_items(data.split("train"), "train")}
    assert drawing[str(folder / "up" / "drawing.png")].max() == 0


@pytest.fixture
def flat(tmp_path):
    """Eight pictures in a folder of their own, picture i of grey i."""
    (tmp_path / "flat" / "pictures").mkdir(parents=True)
    for grey in range(8):
        Image.new("L", (8, 8), grey).save(tmp_path / "flat" / "pictures" / f"{grey}.png")
    return tmp_path / "flat"


def table(file, columns):
    frame = pd.DataFrame(columns)
    {".csv": frame.to_csv, ".tsv": lambda *a, **o: frame.to_csv(*a, sep="\t", **o), ".parquet": frame.to_parquet}[
        file.suffix
    ](file, index=False)
    return file


def shades(data, split="train"):
    items = data.rows_as_items(data.split(split), split)
    return [int(item["x"][0, 0, 0]) for item in items]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("absolute", [False, True])
def test_tables_name_pictures_beside_them(flat, suffix, absolute):
    names = [str(flat / "pictures" / f"{grey}.png") if absolute else f"pictures/{grey}.png" for grey in range(8)]
    rows = {"file_name": names, "label": list("abababab")}
    if suffix == ".jsonl":
        write_jsonl(
            flat / "rows.jsonl", [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
        )
    else:
        table(flat / f"rows{suffix}", rows)
    data = ImageData(str(flat / f"rows{suffix}"), validation_fraction=0)
    assert data.labels == ["a", "b"]
    assert shades(data) == list(range(8))
    assert data.rows_as_items(data.split("train"), "train")[3]["id"] == str(flat / "pictures" / "3.png")


def bytes_of(kind, pictures):
    if kind == "binary":
        return pictures
    return [{"bytes": raw, "path": None} for raw in pictures]


@pytest.mark.parametrize("kind", ["binary", "struct"])
@pytest.mark.parametrize("column", ["image", "jpg"])
def test_parquet_holds_pictures_as_bytes(tmp_path, kind, column):
    raw = [encoded(Image.new("RGB", (8, 8), (grey, 0, 0))) for grey in range(8)]
    columns = {column: bytes_of(kind, raw), "path": ["gone.png"] * 8, "label": list("abababab")}
    file = table(tmp_path / "rows.parquet", columns)
    for options in ({}, {"image_column": column}):
        assert shades(ImageData(str(file), validation_fraction=0, **options)) == list(range(8))
    columns[column] = bytes_of(kind, [*raw[:6], b"no picture", raw[7]])
    with pytest.raises(ValueError, match=r"train split of path=.*, row 6: not a readable image"):
        shades(ImageData(str(table(tmp_path / "bad.parquet", columns)), validation_fraction=0))


def test_missing_pictures_are_all_named_before_training(flat):
    names = ["pictures/0.png", "gone/1.png", "pictures/2.png", "gone/3.png", None, "pictures/5.png"]
    file = table(flat / "rows.parquet", {"file_name": names, "label": list("ababab")})
    with pytest.raises(
        ValueError, match=r"3 pictures cannot be used:\n.*row 1, gone/1.png: there is no such file"
    ) as error:
        _ = ImageData(str(file), validation_fraction=0).facts
    assert "row 3, gone/3.png" in str(error.value)
    assert "row 4: no image" in str(error.value)


def test_several_columns_of_paths_are_told(flat, caplog):
    names = [f"pictures/{grey}.png" for grey in range(8)]
    file = table(flat / "rows.csv", {"image": names, "path": names[::-1], "label": list("abababab")})
    assert shades(ImageData(str(file), validation_fraction=0)) == list(range(8))
    assert "Column 'image' is read; path could be it too. Choose with --data.image_column" in caplog.text
    assert shades(ImageData(str(file), validation_fraction=0, image_column="path")) == list(range(8))[::-1]


def test_pictures_to_predict(flat):
    names = [f"pictures/{grey}.png" for grey in range(8)]
    file = table(flat / "rows.csv", {"file_name": names, "label": list("abababab")})
    some = table(flat / "new.csv", {"path": names[:2]})
    raw = table(flat / "new.parquet", {"image": [encoded(Image.new("L", (8, 8), 7))]})
    for path, expected in (
        (some, [0, 1]),
        (raw, [7]),
        (flat / "pictures", range(8)),
    ):
        data = ImageData(str(file), validation_fraction=0, predict_path=str(path))
        batch = next(iter(data.predict_dataloader()))
        assert batch["x"][:, 0, 0, 0].tolist() == list(expected)
        assert "label" not in batch
    table(some, {"path": ["pictures/0.png", "gone.png"]})
    data = ImageData(str(file), validation_fraction=0, predict_path=str(some))
    with pytest.raises(ValueError, match=r"predict_path=.*, row 1, gone.png: there is no such file"):
        data.predict_dataloader()


def test_a_folder_with_a_table_for_each_split_beside_one_of_pictures(flat):
    for split, members in {"train": range(5), "test": range(5, 8)}.items():
        names = [f"pictures/{grey}.png" for grey in members]
        table(flat / f"{split}.csv", {"file_name": names, "label": [grey % 2 for grey in members]})
    data = ImageData(str(flat), validation_fraction=0, predict_path=str(flat / "pictures" / "6.png"))
    assert shades(data, "test") == [5, 6, 7]
    assert data.labels == ["0", "1"]
    assert next(iter(data.predict_dataloader()))["x"][:, 0, 0, 0].tolist() == [6]


def test_a_table_that_names_no_pictures_leaves_folders_of_classes_as_they_are(tmp_path, caplog):
    folder = image_folder(tmp_path / "classes", {"": 2})
    table(folder / "notes.csv", {"class": ["up", "down"], "meaning": ["bright above", "bright below"]})
    data = ImageData(str(folder), validation_fraction=0)
    assert data.labels == ["down", "up"]
    assert len(data.split("train")) == 4
    assert "notes.csv" in caplog.text


def test_orientations_of_damaged_exif():
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = encoded(Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3)), "PNG", exif=exif)
    picture = Image.open(io.BytesIO(raw))
    picture.getexif()[0x011A] = "no number"  # which cannot be written again
    assert Decoder((3, 2), 1)(picture)[0].tolist() == [[3, 0], [4, 1], [5, 2]]
    assert look(Image.open(io.BytesIO(raw))).size == (3, 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("white", [None, 1.0])
def test_pixels_that_are_no_numbers_are_refused_whatever_white_is(bad, white):
    picture = Image.fromarray(np.array([[0, bad]], np.float32))
    with pytest.raises(ValueError, match="pixels that are infinite or no numbers"):
        Decoder((1, 2), 1, full_scale=white)(picture)

"""Photos with boxes in the rows of a table, as data sets of the hub have them."""

import datasets
import pytest
import torch
from small_photos import coco, read

pytest.importorskip("torchvision", exc_type=ImportError)
pytest.importorskip("pycocotools")

from lambda_seq.tasks.detection import DetectionData

SPLITS = {"train": 4, "val": 3}
NAMES = {3: "tall", 7: "wide"}
FLOATS, NUMBERS = datasets.List(datasets.Value("float32")), datasets.List(datasets.Value("int64"))
COLUMNS = {"image_id": datasets.Value("int64"), "image": datasets.Image()}
SIZES = {"width": datasets.Value("int64"), "height": datasets.Value("int64")}


@pytest.fixture
def folder(tmp_path):
    return coco(tmp_path / "photos", SPLITS)


def data(path):
    return DetectionData(path=str(path), batch_size=2, size=48, max_size=64)


def rows_of(folder, split):
    """The rows of a split of COCO's JSON, and the objects of each."""
    content = read(folder / "annotations" / f"instances_{split}.json")
    for entry in content["images"]:
        image = {"bytes": (folder / split / entry["file_name"]).read_bytes(), "path": None}
        objects = [one for one in content["annotations"] if one["image_id"] == entry["id"]]
        row = {"image_id": entry["id"], "image": image, "width": entry["width"], "height": entry["height"]}
        yield row, objects


def named_numbers(folder, split, edit=lambda row: None):
    """Lists of each entry, categories as numbers with names, and areas; no outlines."""
    rows = []
    for row, objects in rows_of(folder, split):
        boxes = [one["bbox"] for one in objects]
        categories = [list(NAMES).index(one["category_id"]) for one in objects]
        rows.append({**row, "objects": {"bbox": boxes, "category": categories, "area": [7.0] * len(objects)}})
        edit(rows[-1])
    category = datasets.List(datasets.ClassLabel(names=list(NAMES.values())))
    objects = {"bbox": datasets.List(FLOATS), "category": category, "area": FLOATS}
    return datasets.Dataset.from_list(rows, datasets.Features({**COLUMNS, **SIZES, "objects": objects}))


def outlined(folder, split):
    """A list of objects, categories as names, with polygons."""
    rows = []
    for row, objects in rows_of(folder, split):
        kept = [
            {"bbox": one["bbox"], "category": NAMES[one["category_id"]], "segmentation": one["segmentation"]}
            for one in objects
        ]
        rows.append({**{name: row[name] for name in COLUMNS}, "objects": kept})
    one = {"bbox": FLOATS, "category": datasets.Value("string"), "segmentation": datasets.List(FLOATS)}
    return datasets.Dataset.from_list(rows, datasets.Features({**COLUMNS, "objects": datasets.List(one)}))


def parquet(tables, folder):
    folder.mkdir()
    for split, table in tables.items():
        table.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def check_same(found, expected, split, masks):
    """That the photos of both have the same pixels, boxes and classes, and perhaps masks."""
    assert found.facts.labels == expected.facts.labels == ["tall", "wide"]
    assert found.facts.options["masks"] == masks
    ours, theirs = (one.items(one.split(split)) for one in (found, expected))
    assert len(ours) == len(theirs)
    for row in range(len(theirs)):
        assert ours[row]["id"] == theirs[row]["id"]
        assert torch.equal(ours[row]["x"], theirs[row]["x"])
        for name in ("boxes", "labels", *(["masks"] if masks else [])):
            assert torch.equal(ours[row]["target"][name], theirs[row]["target"][name]), name


def test_parquet_of_lists_and_named_numbers(folder, tmp_path):
    tables = {split: named_numbers(folder, split) for split in SPLITS}
    found = data(parquet(tables, tmp_path / "rows"))
    for split in ("train", "validation"):
        check_same(found, data(folder), split, masks=False)
    assert found.facts.options["categories"] == [0, 1]
    assert found.items(found.split("validation"))[0]["target"]["area"].unique().tolist() == [7.0]
    batch = next(iter(found.train_dataloader()))
    assert [one.dtype for one in batch["x"]] == [torch.uint8] * 2


def test_saved_rows_of_objects_with_outlines(folder, tmp_path):
    tables = datasets.DatasetDict({split: outlined(folder, split) for split in SPLITS})
    tables.save_to_disk(tmp_path / "rows")
    found = data(tmp_path / "rows")
    for split in ("train", "validation"):
        check_same(found, data(folder), split, masks=True)
    assert found.facts.options["categories"] == [1, 2]


def test_one_file_of_rows_holds_out_a_part(folder, tmp_path):
    named_numbers(folder, "train").to_parquet(tmp_path / "rows.parquet")
    found = data(tmp_path / "rows.parquet")
    assert [len(found.split(name)) for name in ("train", "validation")] == [3, 1]


def wide(row):
    row["width"] += 1


def outside(row):
    row["objects"]["bbox"][:1] = [[30.0, 5.0, 60.0, 4.0]] * bool(row["objects"]["bbox"])


def unnamed(row):
    row["objects"]["category"][:1] = [None] * bool(row["objects"]["bbox"])


def short(row):
    row["objects"]["bbox"][:1] = [[1.0, 2.0, 3.0]] * bool(row["objects"]["bbox"])


def fewer(row):
    del row["objects"]["area"][:1]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (wide, r"row 0: the photo has \d+ × \d+ pixels, but its row says"),
        (outside, r"photo 100 \(row 0\) of .* has the box \[30.0, 5.0, 60.0, 4.0\] .* lies outside"),
        (unnamed, "row 0: an object has the category None, which has no name; correct it"),
        (short, "row 0: a 'bbox' is not x, y, width, height"),
        (fewer, "row 0: . boxes but . of 'area'"),
    ],
)
def test_mistakes_in_rows_are_named(folder, tmp_path, edit, message):
    named_numbers(folder, "train", edit).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=message):
        _ = data(tmp_path / "rows.parquet").facts


def test_tables_that_do_not_fit(folder, tmp_path):
    table = named_numbers(folder, "train")
    table.remove_columns("objects").to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(
        ValueError, match="has the columns image_id, image, width, height: expected 'image' and 'objects'"
    ):
        _ = data(tmp_path / "rows.parquet").facts
    broken = table.cast_column("image", datasets.Image(decode=False)).to_list()
    broken[1]["image"]["bytes"] = b"no picture"
    datasets.Dataset.from_list(broken, table.features).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"train split of .*, row 1.*: not a readable image"):
        _ = data(tmp_path / "rows.parquet").facts
    other = datasets.ClassLabel(names=["tall", "round"])
    features = datasets.Features(table.features)
    features["objects"] = {**features["objects"], "category": datasets.List(other)}
    changed = named_numbers(folder, "val").cast(features)
    with pytest.raises(ValueError, match=r"validation split of .*: its categories have other names than in training"):
        _ = data(parquet({"train": table, "val": changed}, tmp_path / "rows")).facts
    with pytest.raises(ValueError, match="has the splits test: expected one called train"):
        _ = data(parquet({"test": table}, tmp_path / "tested")).facts


def test_boxes_of_numbers_alone_are_classes_by_number(folder, tmp_path):
    table = named_numbers(folder, "train")
    features = datasets.Features(table.features)
    features["objects"] = {**features["objects"], "category": NUMBERS}
    table.cast(features).to_parquet(tmp_path / "rows.parquet")
    assert data(tmp_path / "rows.parquet").facts.labels == ["0", "1"]

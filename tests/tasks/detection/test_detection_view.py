"""`lambda-seq data` of photos with objects."""

import json
import shutil

import numpy as np
import pytest
from small_photos import coco

pytest.importorskip("torchvision", exc_type=ImportError)
pytest.importorskip("pycocotools")

from lambda_seq.tasks.detection import DetectionData
from lambda_seq.tasks.inspection.guessing import guessed
from lambda_seq.tasks.inspection.inspecting import inspect, run


def test_photos_are_looked_at(cli, tmp_path):
    """By the command line without a configuration: what is in them, twice in them, and a sheet."""
    folder = coco(tmp_path / "photos", {"train": 12, "val": 3})
    copy = folder / "train" / "01.png"
    shutil.copy(copy, folder / "val" / "00.png")
    content = json.loads((folder / "annotations" / "instances_val.json").read_text())
    trained = json.loads((folder / "annotations" / "instances_train.json").read_text())
    for name in ("height", "width"):
        content["images"][0][name] = trained["images"][1][name]
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] != content["images"][0]["id"]]
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(content))
    printed = cli("data", folder, "--output_dir=looked").out
    assert "configuration detection, as instances_train.json has boxes of objects" in printed
    found = json.loads((tmp_path / "looked" / "data.json").read_text())
    boxes = np.array([one["bbox"] for one in trained["annotations"]])
    kinds = {one["id"]: one["name"] for one in trained["categories"]}
    holding = {(one["image_id"], kinds[one["category_id"]]) for one in trained["annotations"]}
    assert found["target"] == "labels"
    assert found["splits"]["train"]["rows"] == 12
    assert found["splits"]["train"]["classes"] == {
        name: sum(label == name for _, label in holding) for name in ("tall", "wide")
    }
    assert found["splits"]["train"]["lengths"]["longest"] == max(
        one["height"] * one["width"] for one in trained["images"]
    )
    said = f"- train: {len(boxes)} objects, with outlines, 0 of them crowds; sides of 14 to 14 pixels, median 14"
    assert said in printed
    assert "1 of 3 rows of validation are in train, too" in printed
    assert "objects: " in found["examples"][0]["shown"]
    assert found["examples"][0]["row"].startswith("train/")
    assert (tmp_path / "looked" / "data.png").stat().st_size > 10_000


def test_scenes_are_looked_at(tmp_path):
    found = inspect(DetectionData(size=64, max_size=96, scenes=[4, 2, 2]), tmp_path)
    assert [one["rows"] for one in found.splits.values()] == [4, 2, 2]
    assert found.examples[0]["row"].startswith("train row ")
    assert "unreadable" not in {finding.kind for finding in found.findings}


def test_a_damaged_photo_is_named(tmp_path):
    folder = coco(tmp_path / "photos", {"train": 3})
    (folder / "train" / "01.png").write_bytes(b"no photo")
    with pytest.raises(ValueError, match=r"01\.png"):
        run(DetectionData(str(folder), size=48, max_size=64), tmp_path / "looked")


@pytest.mark.parametrize("form", ["coco", "file", "metadata", "plain", "others"])
def test_what_is_about_objects(tmp_path, form):
    folder = coco(tmp_path / "photos", {"train": 2})
    expected = ("detection", "instances_train.json has boxes of objects, as COCO's has")
    path = folder
    if form == "file":
        path = folder / "annotations" / "instances_train.json"
    elif form != "coco":
        shutil.rmtree(folder / "annotations")
        expected = ("image_classification", "there are 2 pictures")
        objects = {"objects": {"bbox": [], "category": []}} if form == "metadata" else {"label": "a"}
        lines = [json.dumps({"file_name": f"0{row}.png", **objects}) for row in range(2)]
        if form != "plain":
            (folder / "train" / "metadata.jsonl").write_text("\n".join(lines))
        (folder / "train_notes.json").write_text("{ no JSON")
        if form == "metadata":
            expected = ("detection", "train/metadata.jsonl has boxes of objects")
    assert guessed(str(path)) == expected

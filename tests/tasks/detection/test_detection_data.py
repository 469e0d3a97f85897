"""Photos with boxes and masks: what is read, what follows changes, and what is refused."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from small_photos import coco, read, write

pytest.importorskip("torchvision", exc_type=ImportError)
mask_runs = pytest.importorskip("pycocotools.mask")

from lambda_seq.tasks.detection import DetectionData, scenes  # noqa: E402
from lambda_seq.tasks.detection.changes import Changes, fitted  # noqa: E402
from lambda_seq.tasks.detection.coco import read_json  # noqa: E402

SPLITS = {"train": 5, "val": 3}


@pytest.fixture
def folder(tmp_path):
    return coco(tmp_path / "photos", SPLITS)


def data(folder, **options):
    return DetectionData(path=str(folder), **{"batch_size": 2, "size": 48, "max_size": 64, **options})


def change(file, edit):
    content = read(file)
    edit(content)
    write(file, content)


def boxed(mask):
    """x, y, x, y around a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_coco(folder):
    made = data(folder)
    assert {name: len(album) for name, album in made.splits.items()} == {"train": 5, "validation": 3}
    assert made.facts.labels == ["tall", "wide"]
    assert made.facts.options["categories"] == [3, 7]
    assert made.facts.options["masks"]
    items = made.items(made.split("train"))
    content = read(folder / "annotations" / "instances_train.json")
    for row, entry in enumerate(content["images"]):
        item, objects = items[row], [one for one in content["annotations"] if one["image_id"] == entry["id"]]
        assert item["id"] == entry["id"]
        assert item["x"].shape == (3, entry["height"], entry["width"])
        assert item["target"]["labels"].tolist() == [{3: 1, 7: 2}[one["category_id"]] for one in objects]
        for box, mask, one in zip(item["target"]["boxes"].tolist(), item["target"]["masks"], objects, strict=True):
            x, y, width, height = one["bbox"]
            assert box == [x, y, x + width, y + height] == boxed(mask.numpy())
            assert item["x"][:, mask.bool()].min() >= 150
    assert items[4]["target"]["boxes"].shape == (0, 4)  # a photo of nothing stays
    assert items[4]["target"]["masks"].shape == (0, *items[4]["x"].shape[1:])


def test_each_file_is_parsed_once_and_forgotten(folder, monkeypatch):
    """Those of COCO take a minute, and gigabytes."""
    parsed, loads = [], json.loads
    monkeypatch.setattr("lambda_seq.tasks.detection.coco.json.loads", lambda text: parsed.append(text) or loads(text))
    splits = data(folder).splits
    assert len(parsed) == len(set(parsed)) == len(splits)
    assert read_json.cache_info().currsize == 0


def test_crowds_and_boxes_of_no_area(folder, caplog):
    def edit(content):
        first = content["images"][0]
        runs = mask_runs.encode(np.asfortranarray(np.ones((first["height"], first["width"]), np.uint8)))
        crowd = {
            "bbox": [0, 0, first["width"], first["height"]],
            "iscrowd": 1,
            "category_id": 3,
            "image_id": first["id"],
        }
        crowd["segmentation"] = {"size": runs["size"], "counts": runs["counts"].decode()}
        flat = {"bbox": [4, 4, 0, 9], "category_id": 7, "image_id": first["id"], "segmentation": [[4, 4, 4, 13, 4, 8]]}
        content["annotations"] += [{"id": 1000, **crowd}, {"id": 1001, **flat}]

    before = len(data(folder).split("train").pictures[0].boxes)
    change(folder / "annotations" / "instances_train.json", edit)
    made = data(folder)
    album = made.split("train")
    assert "1 boxes have no area and are left out" in caplog.text
    assert album.pictures[0].crowd.tolist() == [False] * before + [True]
    assert made.items(album)[0]["target"]["iscrowd"].tolist() == [0] * before + [1]
    assert made.items(album)[0]["target"]["masks"][-1].all()
    trained = Changes(48, 64, flip=False, scale_jitter=None, seed=0)
    assert len(made.items(album, trained)[0]["target"]["boxes"]) == before


def test_run_lengths_of_numbers_and_of_text(folder):
    expected = data(folder).items(data(folder).split("train"))[0]["target"]["masks"]
    file = folder / "annotations" / "instances_train.json"
    for packed in (False, True):

        def edit(content, packed=packed):
            height, width = (content["images"][0][name] for name in ("height", "width"))
            for one, mask in zip(content["annotations"], expected.numpy(), strict=False):
                columns = mask.flatten(order="F")
                changes = np.flatnonzero(np.diff(columns, prepend=0)).tolist()
                runs = {"size": [height, width], "counts": np.diff([0, *changes, columns.size]).tolist()}
                if packed:
                    runs = mask_runs.frPyObjects(runs, height, width)
                    runs["counts"] = runs["counts"].decode()
                one["segmentation"] = runs

        change(file, edit)
        assert torch.equal(data(folder).items(data(folder).split("train"))[0]["target"]["masks"], expected)


def as_metadata(folder):
    """The same photos with metadata.jsonl in the place of COCO's JSON."""
    for split in SPLITS:
        content = read(folder / "annotations" / f"instances_{split}.json")
        names = {one["id"]: one["name"] for one in content["categories"]}
        lines = []
        for entry in content["images"]:
            objects = [one for one in content["annotations"] if one["image_id"] == entry["id"]]
            found = {
                "bbox": [one["bbox"] for one in objects],
                "category": [names[one["category_id"]] for one in objects],
            }
            lines.append(json.dumps({"file_name": entry["file_name"], "objects": found}))
        (folder / split / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    shutil.rmtree(folder / "annotations")
    return folder


def test_metadata(folder):
    expected = data(folder, masks=False)
    expected = [expected.items(expected.split("train"))[row] for row in range(5)]
    made = data(as_metadata(folder))
    assert made.facts.labels == ["tall", "wide"]
    assert not made.facts.options["masks"]
    for row, one in enumerate(expected):
        item = made.items(made.split("train"))[row]
        assert torch.equal(item["x"], one["x"])
        for name in ("boxes", "labels", "area"):
            assert torch.equal(item["target"][name], one["target"][name])


def test_masks_where_all_splits_have_them(folder):
    change(folder / "annotations" / "instances_val.json", lambda content: content["annotations"][0].pop("segmentation"))
    assert not data(folder).facts.options["masks"]
    with pytest.raises(ValueError, match="masks=True: not all objects of the validation split"):
        _ = data(folder, masks=True).facts
    change(folder / "annotations" / "instances_val.json", lambda content: content["annotations"].clear())
    assert data(folder).facts.options["masks"]


def test_named_files_and_folders(folder):
    (folder / "labels").mkdir()
    shutil.move(folder / "annotations" / "instances_train.json", folder / "labels" / "for_train.json")
    shutil.move(folder / "annotations" / "instances_val.json", folder / "labels" / "for_val.json")
    made = data(folder, annotations="labels/for_{split}.json", images="{split}")
    assert [len(made.split(name)) for name in ("train", "validation")] == [5, 3]
    with pytest.raises(FileNotFoundError, match=r"annotations='x/\{split\}.json': there is no .*x/train.json"):
        _ = data(folder, annotations="x/{split}.json").facts


def test_of_several_files_the_one_with_outlines(tmp_path, caplog):
    folder = coco(tmp_path / "photos", SPLITS)
    for split in SPLITS:
        file = folder / "annotations" / f"instances_{split}.json"
        shutil.copy(file, file.with_stem(f"instances_outlined_{split}"))
        change(file, lambda content: [one.pop("segmentation") for one in content["annotations"]])
    assert data(folder).facts.options["masks"]
    assert "instances_outlined_train.json is taken, not instances_train.json" in caplog.text
    assert not data(folder, masks=False).split("train").masked


def test_without_validation_some_are_held_out(tmp_path):
    folder = coco(tmp_path / "photos", {"train": 8})
    made = data(folder, validation_fraction=0.25)
    names = [{picture.id for picture in made.split(name).pictures} for name in ("train", "validation")]
    assert [len(one) for one in names] == [6, 2]
    assert not names[0] & names[1]
    assert data(folder, validation_fraction=0.0).val_dataloader() == []


MISTAKES = {
    "a box outside": (
        lambda content: content["annotations"][0].update(bbox=[30, 5, 60, 4]),
        r"photo 100 \(00.png\) of \d+ × \d+ pixels has the box \[30.0, 5.0, 60.0, 4.0\] .* lies outside",
    ),
    "an unknown category": (
        lambda content: content["annotations"][0].update(category_id=5),
        r"annotation 1 of photo 00.png has category_id=5, which is not among the 2 categories",
    ),
    "an unknown photo": (
        lambda content: content["annotations"][0].update(image_id=999),
        r"annotation 1 is of image_id=999, which is not listed",
    ),
    "a mask of another size": (
        lambda content: content["annotations"][0].update(segmentation={"size": [9, 8], "counts": [72]}),
        r"photo 100 \(00.png\) of .* has a mask of 8 × 9 pixels, of object 0; give masks of the photo's size",
    ),
    "a polygon of another size": (
        lambda content: content["annotations"][0].update(segmentation=[[0, 0, 200, 0, 200, 200]]),
        r"photo 100 \(00.png\) of .* has a polygon, of object 0, that reaches to \[200, 200\]",
    ),
    "another photo": (
        lambda content: content["images"][0].update(height=400),
        r"00.png has \d+ × \d+ pixels, but its annotations say \d+ × 400",
    ),
    "no list of photos": (lambda content: content.update(images=3), r"expected a list 'images'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(folder, mistake):
    edit, message = MISTAKES[mistake]
    change(folder / "annotations" / "instances_train.json", edit)
    with pytest.raises(ValueError, match=message):
        _ = data(folder).facts


def test_photos_that_are_missing_or_none(folder):
    broken = folder / "train" / "01.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"01.png is no photo \(its format is not known\); replace the file"):
        _ = data(folder).facts
    broken.unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 5 photos are missing: .*01.png; add them"):
        _ = data(folder).facts


def test_a_category_that_training_does_not_know(folder):
    change(
        folder / "annotations" / "instances_val.json",
        lambda content: content["categories"].append({"id": 9, "name": "round"}),
    )
    with pytest.raises(
        ValueError, match=r"validation split of path=.*: category 9 is 'round', which is unknown to training"
    ):
        _ = data(folder).facts
    as_metadata(coco(folder.parent / "other", SPLITS))
    file = folder.parent / "other" / "val" / "metadata.jsonl"
    file.write_text(file.read_text().replace('"tall"', '"round"').replace('"wide"', '"round"'))
    with pytest.raises(ValueError, match="has the category 'round', which no training photo has"):
        _ = data(folder.parent / "other").facts


def test_options_and_places_that_are_wrong(tmp_path):
    for options, message in (
        ({"size": 0}, "size=0, max_size=64: expected at least a pixel"),
        ({"scale_jitter": [2.0, 1.0]}, "scale_jitter=.*: expected a least and a greatest scale"),
        ({"standardize": "none"}, "standardize='none': expected 'data' or 'imagenet'"),
        ({"scenes": [1, 0, 1]}, "scenes=.*: expected three numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            data(tmp_path, **options)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        _ = data(tmp_path / "nowhere").facts
    with pytest.raises(FileNotFoundError, match="no annotations of training photos; expected COCO's instances"):
        _ = data(tmp_path).facts
    with pytest.raises(ValueError, match="masks=True: not all objects of the train split"):
        _ = data(coco(tmp_path / "boxes", SPLITS, masks=False), masks=True).facts


@pytest.mark.parametrize("jitter", [None, [0.4, 1.8]])
def test_boxes_and_masks_follow_what_is_changed(folder, jitter):
    made, seen = data(folder), 0
    changes = Changes(48, 64, flip=True, scale_jitter=jitter, seed=3)
    items = made.items(made.split("train"), changes)
    for epoch in range(12):
        for row in range(4):
            item = items[epoch, row]
            height, width = item["x"].shape[1:]
            assert jitter is None or (height <= 48 and width <= 48)
            for box, mask in zip(item["target"]["boxes"].numpy(), item["target"]["masks"].numpy(), strict=True):
                seen += 1
                assert mask.shape == (height, width)
                inside = item["x"][:, torch.from_numpy(mask.astype(bool))].float()
                assert not inside.numel() or inside.mean() > 120  # the block is where its mask is
                assert not mask.any() or np.abs(np.array(boxed(mask)) - box).max() <= 2
    assert seen > 50


@pytest.mark.parametrize(("height", "width", "cut"), [(30, 60, (32, 48)), (60, 30, (48, 32)), (40, 44, (48, 48))])
def test_objects_of_scale_1_are_as_large_as_in_evaluation(height, width, cut):
    target = {"boxes": torch.tensor([[0.0, 0.0, width, height]]), "labels": torch.tensor([1])}
    pixels = torch.zeros(3, height, width, dtype=torch.uint8)
    changed, seen = Changes(48, 64, flip=False, scale_jitter=[1.0, 1.0], seed=0)(pixels, target, 0, 0)
    assert changed.shape[1:] == tuple(min(side, 48) for side in fitted(height, width, 48, 64)) == cut
    assert seen["boxes"].tolist() == [[0.0, 0.0, cut[1], cut[0]]]
    half, _ = Changes(48, 64, flip=False, scale_jitter=[0.5, 0.5], seed=0)(pixels, target, 0, 0)
    assert half.shape[1:] == tuple(round(side / 2) for side in fitted(height, width, 48, 64))


def test_what_is_drawn_depends_on_seed_epoch_and_row_alone(folder):
    made = data(folder)
    items = [
        made.items(made.split("train"), Changes(48, 64, flip=True, scale_jitter=[0.4, 1.8], seed=seed))
        for seed in (0, 0, 1)
    ]
    torch.manual_seed(5)
    first = copy.deepcopy(items[0][2, 1])
    state = torch.random.get_rng_state()
    assert torch.equal(items[1][2, 1]["x"], first["x"])
    assert torch.equal(torch.random.get_rng_state(), state)
    shapes = {tuple(items[which][epoch, 1]["x"].shape) for which in (0, 2) for epoch in range(6)}
    assert len(shapes) > 3


def test_sizes():
    assert fitted(480, 640, 800, 1333) == [800, 1067]
    assert fitted(400, 1000, 800, 1333) == [533, 1333]


def test_scenes():
    album = scenes.album("validation", 30)
    assert album.masked
    assert any(not len(picture.boxes) for picture in album.pictures)
    for picture in album.pictures:
        pixels, masks = picture.source()
        assert pixels.shape == (picture.height, picture.width, 3)
        for box, mask, area in zip(picture.boxes, masks, picture.areas, strict=True):
            x, y, right, low = boxed(mask)
            assert box.tolist() == [x, y, right - x, low - y]
            assert area == mask.sum() > 0
        assert masks.sum(0).max(initial=0) <= 1  # what is hidden belongs to the digit in front
    again = scenes.album("validation", 30)
    assert all(
        np.array_equal(a.source()[0], b.source()[0]) for a, b in zip(album.pictures, again.pictures, strict=True)
    )
    assert not np.array_equal(album.pictures[0].boxes, scenes.album("test", 1).pictures[0].boxes)


def test_photos_to_predict(folder, tmp_path):
    made = data(folder, predict_path=str(folder / "val"))
    assert [picture.id for picture in made.to_predict().pictures] == ["00.png", "01.png", "02.png"]
    assert [len(batch["x"]) for batch in made.predict_dataloader()] == [2, 1]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no photos there"):
        data(folder, predict_path=str(tmp_path / "empty")).to_predict()
    Image.new("L", (9, 7)).save(tmp_path / "empty" / "grey.png")
    one = data(folder, predict_path=str(tmp_path / "empty" / "grey.png"))
    assert next(iter(one.predict_dataloader()))["x"][0].shape == (3, 7, 9)

"""Detectors as a user trains them: figures equal to COCO's, several processes, resumed runs, files."""

import copy
import json
from pathlib import Path

import pytest
import torch
from commands import run
from small_data import QUIET
from small_photos import CATEGORIES, SMALL_HEADS, TINY, coco, options, photo, read

pytest.importorskip("torchvision", exc_type=ImportError)
pytest.importorskip("pycocotools")

import numpy as np
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lambda_seq.tasks.detection import Detection, DetectionData
from lambda_seq.tasks.detection.evaluation import FIGURES, AveragePrecision, as_coco

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own array
COMMAND = (
    *("--config", "detection", *QUIET, *options("model.options", TINY), *options("model", SMALL_HEADS)),
    *("--data.size=48", "--data.max_size=64", "--data.batch_size=2", "--data.scale_jitter=[0.6,1.4]"),
    *("--trainer.max_epochs=2", "--trainer.check_val_every_n_epoch=1", "--report=false"),
)


@pytest.fixture
def folder(tmp_path):
    return coco(tmp_path / "photos", {"train": 6, "val": 5})


def theirs(truth: Path, found: list, kind: str) -> list[float]:
    """COCO's twelve figures of results, by its own program, which measures by boxes wherever there are some."""
    known, found = COCO(str(truth)), copy.deepcopy(found)  # to which COCO adds
    if kind == "segm":
        found = [{key: value for key, value in row.items() if key != "bbox"} for row in found]
    evaluated = COCOeval(known, known.loadRes(found), kind)
    evaluated.evaluate()
    evaluated.accumulate()
    evaluated.summarize()
    return evaluated.stats.tolist()


def guesses(made, random):
    """What a fair detector might say of photos: most objects, moved a little, and some that are none."""
    for picture in made.split("validation").pictures:
        item = made.items(made.split("validation"))[made.split("validation").pictures.index(picture)]
        target = item["target"]
        count = len(target["labels"])
        kept = torch.from_numpy(random.random(count) < 0.8)
        moved = (target["boxes"] + torch.from_numpy(random.normal(0, 1.5, (count, 4))).float())[kept]
        boxes = torch.cat([moved, torch.tensor([[2.0, 3.0, 20.0, 24.0]])])
        masks = torch.zeros(len(boxes), picture.height, picture.width, dtype=torch.bool)
        for mask, (x, y, right, low) in zip(masks, boxes.round().int().tolist(), strict=True):
            mask[max(y, 0) : low, max(x, 0) : right] = True
        labels = torch.cat([target["labels"][kept], torch.tensor([1])])
        scores = torch.from_numpy(random.random(len(boxes))).float()
        yield item, {"boxes": boxes, "labels": labels, "scores": scores, "masks": masks}


def test_figures_are_those_of_coco_on_the_saved_boxes(tmp_path):
    folder = coco(tmp_path / "photos", {"train": 2, "val": 24})
    file = folder / "annotations" / "instances_val.json"
    content = read(file)
    content["annotations"][3]["iscrowd"] = 1
    for one in content["annotations"][::4]:
        one["area"] = 40.0**2  # of medium size, as another outline would have it
    file.write_text(json.dumps(content))
    made = DetectionData(path=str(folder), size=48, max_size=64)
    metric, rows = AveragePrecision(masks=True), []
    for item, found in guesses(made, np.random.default_rng(0)):
        metric.update([found], [item["target"]])
        rows += json.loads(json.dumps(as_coco(found, item["id"], made.facts.options["categories"])))
    ours, classes = metric.figures()
    for kind, name in (("box", "bbox"), ("mask", "segm")):
        for figure, value in zip(FIGURES, theirs(file, rows, name), strict=True):
            assert ours.get(f"{kind}_{figure}", -1.0) == pytest.approx(value, abs=1e-6), (kind, figure)
        assert 0.2 < ours[f"{kind}_ap"] < 0.95
        assert np.mean([found[f"{kind}_ap"] for found in classes.values()]) == pytest.approx(ours[f"{kind}_ap"])
    assert {"box_ap_small", "box_ap_medium"} <= ours.keys()
    assert "box_ap_large" not in ours  # there are none


def test_without_any_object_there_is_no_precision():
    metric = AveragePrecision(masks=False)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    metric.update([{**nothing, "scores": torch.zeros(0)}], [nothing])
    overall, classes = metric.figures()
    assert np.isnan(overall["box_ap"])
    assert classes == {}


@pytest.mark.slow
def test_a_run(cli, folder):
    """Fit, validate and predict, and the files that they leave."""
    command = (*COMMAND, "--data.path", folder)
    cli("fit", *command, "--output_dir=run", "--model.threshold=0.0")
    summary = json.loads(Path("run/summary.json").read_text())
    figures = json.loads(Path("run/val_figures.json").read_text())
    assert summary["val/box_ap"] == pytest.approx(figures["figures"]["val/box_ap"])
    assert set(figures["classes"]) == {"tall", "wide"}
    rows = json.loads(Path("run/val_detections.json").read_text())
    assert {row["category_id"] for row in rows} <= {3, 7}
    assert {row["image_id"] for row in rows} <= {100, 101, 102, 103, 104}
    truth = folder / "annotations" / "instances_val.json"
    for kind, name in (("box", "bbox"), ("mask", "segm")):
        for figure, value in zip(FIGURES, theirs(truth, rows, name), strict=True):
            found = figures["figures"].get(f"val/{kind}_{figure}", -1.0)
            assert found == pytest.approx(value, abs=1e-6), (kind, figure)
    with Image.open("run/val_detections.png") as sheet:
        assert sheet.size[0] > 500
    cli("validate", *command, "--output_dir=run", "--ckpt_path=best", "--model.threshold=0.0")
    assert json.loads(Path("run/val_detections.json").read_text()) == rows
    unknown = Path("unknown")
    unknown.mkdir()
    pixels, _ = photo(np.random.default_rng(9), 50, 62, [3, 7])
    Image.fromarray(pixels).save(unknown / "new.jpg")
    cli(
        *("predict", *command, "--output_dir=run", "--ckpt_path=best", "--model.threshold=0.0"),
        *("--data.predict_path", unknown),
    )
    table = Path("run/predictions.csv").read_text().splitlines()
    assert table[0] == "id,prediction,score,x,y,width,height"
    found = json.loads(Path("run/predictions.json").read_text())
    assert len(found) == len(table) - 1 > 0
    assert {row["image_id"] for row in found} == {"new.jpg"}
    assert found[0]["segmentation"]["size"] == [50, 62]
    assert Path("run/predictions.png").exists()


@pytest.mark.slow
def test_boxes_alone(cli, tmp_path):
    folder = coco(tmp_path / "photos", {"train": 4, "val": 2}, masks=False)
    cli("fit", *COMMAND, "--data.path", folder, "--output_dir=run", "--trainer.max_epochs=1")
    names = json.loads(Path("run/val_figures.json").read_text())["figures"]
    assert "val/box_ap" in names
    assert not any("mask" in name for name in names)
    assert (
        "network.roi_heads.mask_predictor.mask_fcn_logits.weight"
        not in torch.load("run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    )


def weights(folder):
    checkpoint = torch.load(f"{folder}/checkpoints/last.ckpt", weights_only=True)
    moments = checkpoint["optimizer_states"][0]["state"]
    return checkpoint["state_dict"] | {
        f"{index}.{key}": torch.as_tensor(value) for index, state in moments.items() for key, value in state.items()
    }


@pytest.mark.slow
def test_resumed_in_the_middle_of_an_epoch(cli, folder):
    command = ("fit", *COMMAND, "--data.path", folder, "--test_after_fit=false", "--trainer.limit_val_batches=0")
    cli(*command, "--output_dir=whole", "--best.monitor=epoch")
    for step in (2, 4):
        part = (*command, f"--output_dir=part{step}", "--best.monitor=epoch")
        cli(*part, f"--trainer.max_steps={step}")
        cli(*part, "--ckpt_path=last")
        expected, found = weights("whole"), weights(f"part{step}")
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), name


@pytest.mark.slow(seconds=30)
def test_two_processes_count_as_one(cli, folder):
    command = (*COMMAND, "--data.path", folder, "--model.threshold=0.0")
    cli("fit", *command, "--output_dir=run", "--trainer.max_epochs=1")
    found = []
    for processes in (1, 2):
        output = f"validated{processes}"
        words = (
            "validate",
            *command,
            "--data.batch_size=1",
            f"--output_dir={output}",
            "--ckpt_path=run/checkpoints/best.ckpt",
        )
        said = run(
            *words,
            "--trainer.accelerator=cpu",
            f"--trainer.devices={processes}",
            "--trainer.strategy=ddp_spawn" if processes > 1 else "--trainer.strategy=auto",
        )
        assert "sync_dist" not in said  # Lightning's advice for each figure that is not of all processes
        found.append([json.loads(Path(f"{output}/val_{name}.json").read_text()) for name in ("figures", "detections")])
    assert found[0] == found[1]


def test_weights_to_start_from_and_norms_that_stay(cli, folder, tmp_path):
    from lambda_seq import create_model

    torch.manual_seed(4)
    backbone = create_model("lambda_resnet50", num_classes=5, **TINY)
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
    backbone.save_pretrained(tmp_path / "backbone")
    start = (f"--model.init_from={tmp_path / 'backbone'}", "--model.freeze_norms=true")
    cli("fit", *COMMAND, "--data.path", folder, "--output_dir=run", "--trainer.max_epochs=1", *start)
    saved = torch.load("run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for name, tensor in backbone.state_dict().items():
        if "running" in name:
            assert torch.equal(saved[f"network.backbone.body.{name}"], tensor)
    trained = saved["network.backbone.body.stages.0.0.conv1.weight"]
    assert 0 < (trained - backbone.stages[0][0].conv1.weight).abs().max() < 0.1


def test_wrong_uses(cli, folder):
    facts = DetectionData(path=str(folder), size=48, max_size=64).facts
    for given, message in (
        ({"network": "lambda_encoder"}, "which has no maps of features: choose a residual network"),
        ({"channels": 0}, "channels=0: expected at least 1"),
        ({"mask_width": 0}, "mask_width=0: expected at least 1"),
        ({"threshold": 1.0}, r"anchor_scale=8.0, threshold=1.0: expected"),
    ):
        with pytest.raises(ValueError, match=message):
            Detection(facts=facts, **given)
    with pytest.raises(ValueError, match="the data have no boxes to find; choose DetectionData"):
        Detection(facts={"input": "image", "options": {"num_classes": 2}, "mean": [0.0] * 3, "std": [1.0] * 3})
    (folder / "train" / "02.png").unlink()
    result = cli("fit", *COMMAND, "--data.path", folder, code=1)
    assert "train split: 1 of 6 photos are missing" in result.err
    assert "Traceback" not in result.err


@pytest.mark.slow
def test_another_set_of_classes_is_refused(cli, folder, tmp_path):
    cli("fit", *COMMAND, "--data.path", folder, "--output_dir=run", "--trainer.max_epochs=1")
    other = coco(tmp_path / "other", {"train": 2, "val": 2})
    for split in ("train", "val"):
        file = other / "annotations" / f"instances_{split}.json"
        content = read(file)
        content["categories"] = [{**one, "name": one["name"].upper()} for one in CATEGORIES]
        file.write_text(json.dumps(content))
    result = cli("validate", *COMMAND, "--data.path", other, "--ckpt_path=run/checkpoints/last.ckpt", code=1)
    assert "the checkpoint knows other classes than the data" in result.err

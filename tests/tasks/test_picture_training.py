"""Trainings of pictures as a user starts them: augmentation, averaged weights, formats, fine-tuning, predictions."""

import json
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from small_data import QUIET, SHORT, TINY_RESNET, image_folder

import lambda_seq
from lambda_seq.tasks.callbacks.averaging import WeightEMA
from lambda_seq.tasks.callbacks.predictions import PredictionFile
from lambda_seq.tasks.predictions.sheet import Sheet
from lambda_seq.tasks.strategies.distributed import ShardedStrategy

IMAGES = ("--config", "tasks/configs/image_classification.yaml", *TINY_RESNET, *QUIET)
ALL = (  # everything that draws at random
    *("--data.batch_size=5", "--data.augment=randaugment", "--data.crop_scale=[0.3,1.0]", "--data.erasing=0.5"),
    *("--data.flip=true", "--model.mixup=0.2", "--model.cutmix=1.0", "--model.options.dropout=0.3"),
    *("--model.options.stochastic_depth=0.2", "--ema_decay=0.9", "--model.channels_last=true"),
    *("--trainer.max_epochs=2", "--test_after_fit=false", "--trainer.log_every_n_steps=1"),
)


def load(folder, name="last"):
    return torch.load(f"{folder}/checkpoints/{name}.ckpt", weights_only=True)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("step", [2, 4, 7])  # in the middle of an epoch, at its end, in the middle of the last
def test_a_stopped_run_is_the_one_that_never_stopped(cli, pictures, step):
    command = ("fit", *IMAGES, *ALL, "--data.path", pictures)
    cli(*command, "--output_dir=whole")
    cli(*command, "--output_dir=part", f"--trainer.max_steps={step}")
    cli(*command, "--output_dir=part", "--ckpt_path=last")
    whole, part = load("whole"), load("part")
    assert whole["global_step"] == part["global_step"] == 8
    for name in ("state_dict", "current_model_state", "averaging_state"):
        assert_same(part[name], whole[name])
    assert_same(load("part", "best")["state_dict"], load("whole", "best")["state_dict"])
    points = [checkpoint["callbacks"]["Curves"]["points"] for checkpoint in (part, whole)]
    for name in ("train/loss", "lr", "val/loss", "val/accuracy"):
        assert points[0][name] == points[1][name]


def test_the_background_goes_with_the_model_and_its_checkpoints(cli, pictures, caplog):
    for file in pictures.rglob("0*.png"):
        picture = Image.open(file).convert("RGBA")
        picture.putalpha(100)
        picture.save(file)
    command = (*IMAGES, "--data.path", pictures, "--output_dir=run")
    cli("fit", *command, "--data.background=black", "--trainer.max_epochs=1", "--test_after_fit=false")
    assert "of the 24 training images looked at, 20 are transparent: put on black" in caplog.text
    assert lambda_seq.from_pretrained("run/model").preprocessing["background"] == "black"
    assert load("run")["hyper_parameters"]["facts"]["background"] == "black"
    for stage in ("test", "predict"):
        cli(stage, *command, "--data.background=black")
        result = cli(stage, *command, code=1)
        assert "the checkpoint saw other pictures than the data are now, background='white'" in result.err
        assert "give --data.background black" in result.err


def test_averaged_weights_are_validated_tested_and_exported(cli, pictures):
    command = (*IMAGES, "--data.path", pictures, "--data.batch_size=4", "--output_dir=run")
    cli("fit", *command, "--trainer.max_epochs=2", "--ema_decay=0.99")
    best, summary = load("run", "best"), json.loads(Path("run/summary.json").read_text())
    averaged, trained = best["state_dict"], best["current_model_state"]
    assert not torch.equal(averaged["network.head.weight"], trained["network.head.weight"])
    model = lambda_seq.from_pretrained("run/model")
    assert torch.equal(model.head.weight, averaged["network.head.weight"])
    tested = cli("test", *command).out  # by itself, from the same file
    assert f"{summary['test/loss']:.5f}"[:6] in tested
    shown = cli("validate", *command).out
    score = next(state for name, state in best["callbacks"].items() if name.startswith("BestCheckpoint"))
    assert f"{float(score['best_model_score']):.4f}"[:6].rstrip("0") in shown


def test_the_average_is_that_of_its_formula():
    torch.manual_seed(0)
    ema, value = WeightEMA(0.7), torch.zeros(3)
    expected = 0.0
    for step in range(1, 20):
        weight = torch.full((3,), float(step))
        ema._average([value], [weight], torch.tensor(step))
        decay = min(0.7, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        assert value[0].item() == pytest.approx(expected, rel=1e-5)
    counter = torch.tensor([3])
    ema._average([counter], [torch.tensor([8])], torch.tensor(1))
    assert counter.item() == 8


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_decay_out_of_range(cli, pictures, decay):
    result = cli("fit", *IMAGES, "--data.path", pictures, *SHORT, f"--ema_decay={decay}", code=1)
    assert f"ema_decay={decay}: expected a number from 0 to below 1" in result.err


@pytest.mark.slow(seconds=30)
@pytest.mark.skipif(" " in torch.__file__, reason="torch's inductor fails in a folder whose name has a space")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # inductor's own use
def test_a_compiled_training_leaves_checkpoints_as_they_are(cli, pictures):
    command = (*IMAGES, "--data.path", pictures, "--data.batch_size=4", "--output_dir=run")
    cli("fit", *command, *SHORT, "--model.compile=true", "--test_after_fit=false", "--data.validation_fraction=0")
    assert not [name for name in load("run")["state_dict"] if "_orig_mod" in name]
    cli("test", *command)


def test_bf16_channels_last(cli, pictures):
    command = ("--data.path", pictures, "--data.batch_size=4", "--model.channels_last=true")
    cli("fit", *IMAGES, *command, *SHORT, "--trainer.precision=bf16-mixed", "--model.mixup=0.2", "--data.erasing=0.2")
    weights = load("outputs/image_classification")["state_dict"]
    assert {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--data.augment=randaugmint",), ("augment='randaugmint'", "'randaugment'")),
        (("--data.augment_magnitude=40", "--data.augment=randaugment"), ("augment_magnitude=40",)),
        (("--model.mixup=-1",), ("mixup=-1", "Beta")),
        (("--predictions.sheet=-1",), ("predictions.sheet=-1",)),
    ],
)
def test_what_cannot_be(cli, pictures, arguments, words):
    result = cli("fit", *IMAGES, "--data.path", pictures, *SHORT, *arguments, code=1)
    for word in words:
        assert word in result.err
    assert "Traceback" not in result.err


def test_mixing_pictures_of_one_class(cli, tmp_path):
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("string"))
    rows = {"image": [np.zeros((8, 8), np.uint8)] * 6, "label": ["only"] * 6}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "one.parquet")
    result = cli("fit", *IMAGES, "--data.path", tmp_path / "one.parquet", *SHORT, "--model.mixup=0.2", code=1)
    assert "all training rows have the same label, 'only'" in result.err


@pytest.mark.parametrize("scope", ["3", "null"])
def test_fine_tuning_for_other_classes_and_another_size(cli, pictures, tmp_path, scope):
    shared = (*IMAGES, *SHORT, "--data.batch_size=4", f"--model.options.scope={scope}")
    cli("fit", *shared, "--data.path", pictures, "--output_dir=first")
    names = ("left", "middle", "right")
    other = image_folder(tmp_path / "other", {"train": 8, "validation": 2, "test": 2}, names[:2], size=(12, 10))
    for split, count in (("train", 8), ("validation", 2), ("test", 2)):
        (other / split / names[2]).mkdir()
        for index in range(count):
            Image.fromarray(np.full((12, 10, 3), index, np.uint8)).save(other / split / names[2] / f"{index}.png")
    for start in ("first/checkpoints/best.ckpt", "first/model"):
        cli("fit", *shared, "--data.path", other, f"--model.init_from={start}", "--output_dir=second", "--overwrite")
    model = lambda_seq.from_pretrained("second/model")
    assert model.labels == list(names)
    table = next(weight for name, weight in model.named_parameters() if name.endswith("position.weight"))
    assert table.shape[2:] == ((23, 19) if scope == "null" else (3, 3))
    assert "test/accuracy" in cli("test", *shared, "--data.path", other, "--output_dir=second").out


def test_fine_tuning_begins_with_the_weights_of_the_other_training(cli, pictures, tmp_path):
    cli("fit", *IMAGES, *SHORT, "--data.path", pictures, "--data.batch_size=4", "--output_dir=first")
    still = ("--model.optimizer.lr=0", "--model.optimizer.weight_decay=0", "--data.batch_size=4")
    other = image_folder(tmp_path / "larger", {"train": 6, "validation": 2}, ("a", "b"), size=(11, 13))
    start = "--model.init_from=first/checkpoints/last.ckpt"
    cli("fit", *IMAGES, *SHORT, "--data.path", other, *still, start, "--output_dir=second")
    first, second = load("first")["state_dict"], load("second")["state_dict"]
    same = [name for name, tensor in first.items() if second[name].shape == tensor.shape and "running" not in name]
    assert {name for name in same if not torch.equal(first[name], second[name])} <= {
        *("network.head.weight", "network.head.bias", "mean", "std"),
        *(name for name in same if name.endswith("num_batches_tracked")),
    }


def test_a_contact_sheet_beside_the_predictions(cli, pictures, tmp_path, rendered):
    command = (*IMAGES, "--data.path", pictures, "--output_dir=run")
    cli("fit", *command, *SHORT, "--data.batch_size=8")
    loose = image_folder(tmp_path / "loose", {"": 5}, names=("",))
    options = ("--data.predict_path", loose, "--predictions.path", "found/loose.jsonl")
    result = cli("predict", *command, *options)
    assert "contact sheet: found/loose.png" in result.out
    assert np.asarray(Image.open("found/loose.png").convert("L")).std() > 10
    rows = [json.loads(line) for line in Path("found/loose.jsonl").read_text().splitlines()]
    assert [Path(row["id"]).name for row in rows] == [f"{index:02}.png" for index in range(5)]
    assert list(rows[0]) == ["id", "input", "prediction", "probability: down", "probability: up"]
    without = cli("predict", *command, "--predictions.path=found/none.csv", "--predictions.sheet=0")
    assert "contact sheet" not in without.out
    assert not Path("found/none.png").exists()


def test_a_sheet_has_the_extremes_in_order(tmp_path, monkeypatch):
    chances = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.45, 0.55], [1.0, 0.0], [0.3, 0.7]])
    sheet, drawn = Sheet(2), {}
    for part in ([0, 1, 2], [3, 4, 5]):
        pixels = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
        names = [f"folder/{row}.png" for row in part]
        sheet.add({"x": pixels}, {"id": names, "probabilities": chances[part]}, ["a", "b"])
    monkeypatch.setattr("lambda_seq.tasks.predictions.sheet.draw_sheet", lambda groups, path: drawn.update(groups))
    assert sheet.draw(tmp_path / "sheet.png")
    found = {title: [(one.name, one.label) for one in shown] for title, shown in drawn.items()}
    assert found == {
        "Most certain": [("4.png", "a"), ("0.png", "a")],
        "Least certain": [("1.png", "a"), ("3.png", "b")],
    }


def test_data_without_pictures_have_no_sheet(tmp_path):
    sheet = Sheet(2)
    sheet.add({"x": torch.zeros(2, 5)}, {"id": ["0", "1"], "probabilities": torch.zeros(2, 2)}, ["a", "b"])
    assert not sheet.draw(tmp_path / "sheet.png")
    with pytest.raises(ValueError, match=r"predictions.sheet=-1"):
        PredictionFile(sheet=-1)


def test_no_average_of_weights_that_are_spread():
    trainer = SimpleNamespace(strategy=ShardedStrategy())
    with pytest.raises(ValueError, match=r"ema_decay=0.9 with trainer.strategy=fsdp2: .* use trainer.strategy=ddp"):
        WeightEMA(0.9).setup(trainer, None, "fit")

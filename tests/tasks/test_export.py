"""The network that a fit leaves behind by itself answers as the checkpoint does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_data import SHORT, TINY_ENCODER, TINY_RESNET

import lambda_seq
from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.data import AudioData, ImageData, TextData
from lambda_seq.tasks.data.reading.tokens import Tokens
from lambda_seq.tasks.export import card
from lambda_seq.tasks.facts import Facts

TEXTS = ("--config", "tasks/configs/text_classification.yaml", "--data.batch_size=8", *TINY_ENCODER)
AUDIO = ("--config", "tasks/configs/audio_classification.yaml", *TINY_ENCODER, "--trainer.limit_train_batches=2")


def restored(folder, data):
    """The task of best.ckpt, and a batch of the test split."""
    checkpoint = torch.load(f"{folder}/checkpoints/best.ckpt", weights_only=True)
    given = checkpoint["hyper_parameters"]
    task = Classification(given["network"], given["options"], facts=given["facts"])
    task.load_state_dict(checkpoint["state_dict"])
    return task.eval(), next(iter(data.test_dataloader()))


@torch.no_grad()
def test_texts(cli, stories):
    fitted = cli("fit", *TEXTS, "--data.path", stories, *SHORT, "--output_dir=run")
    assert "run/model" in fitted.out
    model = lambda_seq.from_pretrained("run/model")
    task, batch = restored("run", TextData(str(stories)))
    assert torch.equal(model(batch["x"], batch["mask"]), task(batch))
    assert model.labels == ["canine", "feline"]
    assert model.tokenizer is None
    words = {"kind": "words", "pad": 0, "vocab_size": 2**31, "part": "start"}
    assert model.preprocessing["tokens"] == words | {"max_length": model.preprocessing["max_length"]}
    summary = json.loads(Path("run/summary.json").read_text())
    written = Path("run/model/README.md").read_text()
    assert f"| test/accuracy | {summary['test/accuracy']:.4f} |" in written
    assert "on `stories`" in written
    assert str(stories.parent) not in written


def test_what_exports_that_were_killed_have_left_goes(cli, stories):
    """Of a first one, beside the folder; of one that replaces another, within."""
    cli("fit", *TEXTS, "--data.path", stories, *SHORT, "--output_dir=run", "--export=false")
    for left in ("run/.model-0123abcd", "run/model/.model-89efffff", "run/model/.model-mine", "run/.model"):
        Path(left).mkdir(parents=True)
        (Path(left) / "model.safetensors").write_bytes(b"a half")
    partial = Path("run/checkpoints/best.ckpt.partial")
    partial.write_bytes(b"a half")
    cli("fit", *TEXTS, "--data.path", stories, *SHORT, "--output_dir=run", "--ckpt_path=last")
    assert sorted(file.name for file in Path("run").rglob(".model*")) == [".model", ".model-mine"]
    assert not partial.exists()
    lambda_seq.from_pretrained("run/model")


@torch.no_grad()
def test_a_trained_tokenizer_travels_with_the_model(cli, stories):
    cli("fit", *TEXTS, "--data.path", stories, *SHORT, "--data.tokenizer=train", "--data.vocab_size=300")
    model = lambda_seq.from_pretrained("outputs/text_classification/model")
    data = TextData(str(stories), tokenizer="train", vocab_size=300)
    task, batch = restored("outputs/text_classification", data)
    text = "cat naïve dog"
    assert model.tokenizer.encode(text).ids == data.tokens.encode(text).tolist()
    assert Tokens(model.tokenizer).fingerprint == data.tokens.fingerprint
    assert model.preprocessing["tokens"]["pad"] == data.tokens.pad
    assert torch.equal(model(batch["x"], batch["mask"]), task(batch))


@torch.no_grad()
def test_images_in_a_process_without_the_tasks(cli, pictures):
    config = ("--config", "tasks/configs/image_classification.yaml", "--data.batch_size=8", *TINY_RESNET)
    cli("fit", *config, "--data.path", pictures, *SHORT, "--output_dir=run")
    task, batch = restored("run", ImageData(str(pictures), batch_size=8))
    torch.save(batch["x"], "x.pt")
    script = (
        "import sys, torch, lambda_seq\n"
        "model = lambda_seq.from_pretrained('run/model')\n"
        "mean, std = (torch.tensor(model.preprocessing[name]).view(-1, 1, 1) for name in ('mean', 'std'))\n"
        "torch.save(model((torch.load('x.pt') - mean) / std), 'y.pt')\n"
        "assert not {'lightning', 'datasets', 'tasks'} & set(sys.modules)\n"
        "print(model.labels)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['down', 'up']"
    assert torch.allclose(torch.load("y.pt"), task(batch), atol=1e-5)


@torch.no_grad()
def test_audio(cli):
    cli("fit", *AUDIO, *SHORT, "--output_dir=run", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1")
    model = lambda_seq.from_pretrained("run/model")
    assert model.preprocessing["audio"]["sampling_rate"] > 0
    task, batch = restored("run", AudioData("generated:tones"))
    x, mask = task.inputs(batch)
    assert torch.equal(model(x, mask), task(batch))


def test_without_a_test_the_best_is_exported_all_the_same(cli, stories):
    command = ("fit", *TEXTS, "--data.path", stories, *SHORT, "--test_after_fit=false", "--trainer.max_epochs=3")
    cli(*command, "--output_dir=run")
    assert "| val/accuracy |" in Path("run/model/README.md").read_text()
    best = torch.load("run/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    for name, tensor in lambda_seq.from_pretrained("run/model").state_dict().items():
        assert torch.equal(tensor, best[f"network.{name}"]), name


def test_without_validation_the_last_is_exported(cli, stories):
    (stories / "validation.jsonl").unlink()
    cli("fit", *TEXTS, "--data.path", stories, *SHORT, "--data.validation_fraction=0", "--output_dir=run")
    last = torch.load("run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for name, tensor in lambda_seq.from_pretrained("run/model").state_dict().items():
        assert torch.equal(tensor, last[f"network.{name}"]), name


def test_it_can_be_switched_off(cli, stories):
    fitted = cli("fit", *TEXTS, "--data.path", stories, *SHORT, "--output_dir=run", "--export=false")
    assert not Path("run/model").exists()
    assert "run/model" not in fitted.out


@pytest.mark.parametrize("kind", ["image", "features", "waveform"])
def test_the_card_says_what_goes_in(kind):
    facts = {"labels": ["a"], "input": kind, "options": {"num_classes": 1, "in_channels": 3, "image_size": [4, 5]}}
    facts |= {"mean": [1.0], "std": [2.0]}
    facts = Facts.from_dict(facts)
    text = card(facts, "owner/name", {"test/accuracy": 0.5})
    assert "`owner/name`" in text
    assert "| test/accuracy | 0.5000 |" in text
    assert "preprocessing" in text
    kept = facts.preparation()
    assert kept == {"version": 1, "input": kind, "mean": [1.0], "std": [2.0], "in_channels": 3, "image_size": [4, 5]}

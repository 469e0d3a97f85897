"""Files of saved models: whole whenever the process is killed, and checked when they are read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from saved_models import build, tokenizer

from lambda_seq.models import LambdaLM, from_pretrained


def test_a_failed_save_leaves_the_old_model(tmp_path, monkeypatch):
    first = build()
    first.save_pretrained(tmp_path, labels=["a", "b", "c"])
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(Path, "write_text", lambda *given, **options: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        build("lambda_lm_tiny").save_pretrained(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    with pytest.raises(OSError, match="disk full"):
        first.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


KILLED = """
import os, sys
from pathlib import Path
import torch
from lambda_seq import create_model
place, where = sys.argv[1:]
name = {"write": "write_text", "replace": "replace"}[place]
count = 0
real = getattr(Path, name)
def deadly(self, *given, **options):
    global count
    count += 1
    if place == "write":
        self.write_bytes(b'{"half a')
    if count == 2:
        os._exit(9)  # as a kill: nothing is cleaned up
    return real(self, *given, **options)
setattr(Path, name, deadly)
torch.manual_seed(1)
create_model("lambda_encoder_tiny", num_classes=3, scope=[3, 5], strides=(2,)).save_pretrained(where)
"""


@pytest.mark.slow
@pytest.mark.parametrize("place", ["write", "replace"])
def test_a_kill_leaves_whole_files(place, tmp_path):
    build().save_pretrained(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    done = subprocess.run([sys.executable, "-c", KILLED, place, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    after = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    assert after.keys() == before.keys()
    if place == "write":  # before any file took its place
        assert after == before
        from_pretrained(tmp_path)
    else:  # between two: the weights are new, the config is not, and loading says so
        assert load_file(tmp_path / "model.safetensors").keys() == build().state_dict().keys()
        with pytest.raises(ValueError, match=r"model.safetensors is of another save than config.json beside it"):
            from_pretrained(tmp_path)
    build().save_pretrained(tmp_path)
    assert from_pretrained(tmp_path)(torch.ones(1, 9, dtype=torch.int64)).shape == (1, 3)


def test_saving_over_a_model_replaces_it_and_nothing_else(tmp_path):
    build().save_pretrained(tmp_path, tokenizer=tokenizer())
    (tmp_path / "notes.txt").write_text("mine")
    build("lambda_lm_tiny").save_pretrained(tmp_path)
    assert isinstance(from_pretrained(tmp_path), LambdaLM)
    assert from_pretrained(tmp_path).tokenizer is None
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "notes.txt",
    ]


# Reading


@pytest.fixture
def saved(tmp_path):
    build().save_pretrained(tmp_path, labels=["a", "b", "c"])
    return tmp_path


def change(saved, **entries):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, **entries}))


def test_missing_files(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no .*model.safetensors: save the model again"):
        from_pretrained(saved)
    (saved / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no .*config.json: give a folder that save_pretrained wrote"):
        from_pretrained(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"mod', r"config.json is no JSON \("),
        ("[]", r"config.json names no network of lambda_seq"),
        ('{"model_type": "bert"}', r"config.json names no network of lambda_seq"),
        ('{"model": "lambda_lm"}', r"config.json holds no options of the network"),
        (
            '{"model": "lambda_ml", "options": {}}',
            r"config.json: name='lambda_ml' is no model: did you mean 'lambda_lm'",
        ),
        ('{"model": "lambda_lm", "options": {"dims": 3}}', r"config.json: lambda_lm has no option 'dims'"),
        ('{"model": "lambda_lm", "options": {"dim": 0}}', r"config.json: dim=0: expected at least 1"),
    ],
)
def test_bad_configs(saved, text, message):
    (saved / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        from_pretrained(saved)


def test_another_version_of_the_library_is_fine(saved):
    change(saved, library_version="99.0", something_new=[1])
    assert from_pretrained(saved).labels == ["a", "b", "c"]
    change(saved, model="lambda_of_the_future")
    with pytest.raises(ValueError, match=r"saved by lambda_seq 99.0, this is \d"):
        from_pretrained(saved)


def test_weights_that_do_not_fit_are_named(saved):
    change(saved, options={**build().options, "num_classes": 4})
    with pytest.raises(ValueError, match=r"head.weight has shape \(3, 32\) in place of \(4, 32\); head.bias has shape"):
        from_pretrained(saved)
    change(saved, options={**build().options, "depth": 3, "scope": 5})
    with pytest.raises(
        ValueError, match=r"does not fit the network of config.json: blocks.2.* is missing.*, and \d+ more"
    ):
        from_pretrained(saved)
    change(saved, options=build().options)
    tensors = load_file(saved / "model.safetensors")
    save_file({**tensors, "extra": torch.ones(1)}, saved / "model.safetensors")
    with pytest.raises(ValueError, match=r"extra is unknown"):
        from_pretrained(saved)


def test_damaged_files(saved):
    whole = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model.safetensors is damaged \(.*\): save the model again"):
        from_pretrained(saved)
    (saved / "model.safetensors").write_bytes(whole)
    (saved / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer.json is no tokenizer \("):
        from_pretrained(saved)


def test_pickles_are_not_read(saved):
    (saved / "model.safetensors").unlink()
    torch.save(build().state_dict(), saved / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"there is no .*model.safetensors"):
        from_pretrained(saved)
    torch.save(build().state_dict(), saved / "model.safetensors")
    with pytest.raises(ValueError, match=r"model.safetensors is damaged"):
        from_pretrained(saved)

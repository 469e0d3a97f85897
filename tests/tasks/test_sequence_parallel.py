"""`--sequence_parallel`: several processes train what one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_data import QUIET, TINY_ENCODER

from tasks.sequence_parallel import SequenceParallel, make_strategy

CPU = ("--trainer.accelerator=cpu", "--trainer.max_epochs=2", *QUIET)
TEXTS = ("--config", "tasks/configs/text_classification.yaml", *TINY_ENCODER, *CPU, "--data.batch_size=8")
SAME = ("--model.options.dropout=0", "--model.options.token_dropout=0", "--model.optimizer.init_args.lr=0.01")
NEXT = ("--config", "tasks/configs/language_modelling.yaml", *TINY_ENCODER, *CPU, "--data.length=40")


def run(arguments, cache):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(cache)}
    command = [sys.executable, "-m", "tasks.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment)
    assert done.returncode == 0, done.stderr
    return done


def weights(folder):
    return torch.load(f"{folder}/checkpoints/last.ckpt", weights_only=True)["state_dict"]


def compare(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        if tensor.dtype.is_floating_point:
            torch.testing.assert_close(
                found[name], tensor, rtol=1e-3, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}"
            )


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4])
def test_texts_are_classified_alike(cli, stories, tmp_path, devices):
    """On four devices two share a sequence, and two have rows of their own: half the batch each."""
    command = ("fit", *TEXTS, *SAME, "--data.path", stories, "--model.options.norm=layer")
    command = (*command, "--model.options.lambda_norm=rms", "--data.bucket=false")
    cli(*command, "--output_dir=alone")
    both = (f"--trainer.devices={devices}", "--sequence_parallel=2", f"--data.batch_size={8 // (devices // 2)}")
    run((*command, *both, "--output_dir=together"), tmp_path / "cache")
    compare(weights("together"), weights("alone"))
    found, expected = (json.loads(Path(f"{run}/test_report.json").read_text()) for run in ("together", "alone"))
    assert found["rows"] == expected["rows"] == 8  # each row is counted once
    assert found["metrics"]["loss"] == pytest.approx(expected["metrics"]["loss"], abs=1e-3)


def test_what_it_stands_in_for():
    strategy = make_strategy(2, "ddp_fork")
    assert isinstance(strategy, SequenceParallel)
    assert strategy.launcher is None
    assert strategy._start_method == "fork"
    with pytest.raises(ValueError, match=r"trainer.strategy='fsdp' with sequence_parallel=2: expected one of 'auto'"):
        make_strategy(2, "fsdp")


@pytest.mark.slow
def test_other_networks_are_refused(tmp_path):
    (tmp_path / "novel" / "train").mkdir(parents=True)
    (tmp_path / "novel" / "train" / "a.txt").write_text("one two three four. " * 60)
    command = ("fit", *NEXT, "--data.path", tmp_path / "novel", "--trainer.devices=2", "--sequence_parallel=2")
    done = subprocess.run(
        [sys.executable, "-m", "tasks.cli", *map(str, command)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode != 0
    assert "LanguageModelling trains a LambdaLM, which cannot be split here" in done.stderr

"""`--sequence_parallel`: several processes train what one does."""

import csv
import json
from pathlib import Path

import pytest
import torch
from commands import run
from small_data import QUIET, TINY_ENCODER, texts, write_jsonl

from lambda_seq.tasks.strategies.sequence_parallel import SequenceParallel, make_strategy

CPU = ("--trainer.accelerator=cpu", "--trainer.max_epochs=2", *QUIET)
TEXTS = ("--config", "tasks/configs/text_classification.yaml", *TINY_ENCODER, *CPU, "--data.batch_size=8")
SAME = ("--model.options.dropout=0", "--model.options.token_dropout=0", "--model.optimizer.init_args.lr=0.01")
NEXT = ("--config", "tasks/configs/language_modelling.yaml", *TINY_ENCODER, *CPU, "--data.length=40")
LM = ("--data.batch_size=4", "--model.options.dropout=0", "--model.optimizer.init_args.lr=0.01")


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
def test_texts_are_classified_alike(cli, stories, devices):
    """On four devices two share a sequence, and two have rows of their own: half the batch each."""
    command = ("fit", *TEXTS, *SAME, "--data.path", stories, "--model.options.block_norm=layer")
    command = (*command, "--model.options.norm=rms", "--data.bucket=false")
    cli(*command, "--output_dir=alone")
    both = (f"--trainer.devices={devices}", "--sequence_parallel=2", f"--data.batch_size={8 // (devices // 2)}")
    run(*command, *both, "--output_dir=together")
    compare(weights("together"), weights("alone"))
    found, expected = (json.loads(Path(f"{run}/test_report.json").read_text()) for run in ("together", "alone"))
    assert found["rows"] == expected["rows"] == 8  # each row is counted once
    assert found["metrics"]["loss"] == pytest.approx(expected["metrics"]["loss"], abs=1e-3)


@pytest.mark.slow
def test_predictions_are_written_once(cli, stories):
    """By the first of two processes that share a sequence; as they share two of them, in two files."""
    both = (*TEXTS, "--data.path", stories, "--model.options.block_norm=layer", "--model.options.norm=rms")
    cli("fit", *both, "--trainer.max_epochs=1", "--test_after_fit=false", "--output_dir=alone")
    predict = ("predict", *both, "--ckpt_path=alone/checkpoints/last.ckpt", "--output_dir=alone")
    cli(*predict, "--predictions.path=alone.csv")
    run(*predict, "--trainer.devices=4", "--sequence_parallel=2", "--predictions.path=together.csv")
    expected = {row["id"]: row for row in table("alone", 1)}
    rows = table("together", 2)
    assert len(rows) == len(expected) == 8
    for row in rows:
        for name in ("probability: canine", "probability: feline"):
            assert float(row[name]) == pytest.approx(float(expected[row["id"]][name]), abs=1e-4)


def test_what_it_stands_in_for():
    strategy = make_strategy(2, "ddp_fork")
    assert isinstance(strategy, SequenceParallel)
    assert strategy.launcher is None
    assert strategy._start_method == "fork"
    with pytest.raises(ValueError, match=r"trainer.strategy='fsdp' with sequence_parallel=2: expected one of 'auto'"):
        make_strategy(2, "fsdp")


@pytest.fixture
def novels(tmp_path):
    """Texts of very different lengths: rows hold pieces of several, and some texts are rows of their own."""
    folder = tmp_path / "novels"
    for split, count in {"train": 12, "validation": 4, "test": 5}.items():
        found = [one | {"text": one["text"] * (1 + 7 * (number % 3 == 0))} for number, one in enumerate(texts(count))]
        write_jsonl(folder / f"{split}.jsonl", [*found, {"text": "a"}])
    return folder


@pytest.mark.slow
def test_language_models_learn_alike(cli, novels):
    """From rows that hold pieces of several documents, some of which are in the chunks of both processes."""
    data, both = ("--data.path", novels), ("--trainer.devices=2", "--sequence_parallel=2")
    data = (*data, "--trainer.accumulate_grad_batches=2")
    cli("fit", *NEXT, *LM, *data, "--output_dir=alone")
    run("fit", *NEXT, *LM, *data, *both, "--output_dir=together")
    compare(weights("together"), weights("alone"))
    predict = ("predict", *NEXT, *LM, *data, "--ckpt_path=alone/checkpoints/last.ckpt", "--output_dir=alone")
    cli(*predict, "--predictions.path=alone.csv")
    run(*predict, *both, "--predictions.path=together.csv")
    assert counted(table("together", 1)) == pytest.approx(counted(table("alone", 1)), rel=1e-5)


def table(name, files):
    """Rows of predictions; several files if several processes read the data."""
    names = [f"{name}.csv"] if files == 1 else [f"{name}-{number}.csv" for number in range(files)]
    assert sorted(path.name for path in Path().glob(f"{name}*.csv")) == names
    rows = []
    for one in names:
        with Path(one).open(newline="") as file:
            rows += csv.DictReader(file)
    return rows


def counted(rows):
    """Tokens, bytes and nats per token of each document."""
    return {(row["id"], name): float(row[name]) for row in rows for name in ("tokens", "bytes", "loss")}


@pytest.mark.slow
def test_sequences_shorter_than_there_are_processes(cli, tmp_path):
    """Two tokens on three processes are padded."""
    folder = tmp_path / "short"
    for split, count in {"train": 8, "validation": 4, "test": 4}.items():
        write_jsonl(
            folder / f"{split}.jsonl", [{"text": "ab"[: 1 + row % 2], "label": row % 2} for row in range(count)]
        )
    command = ("fit", *TEXTS, *SAME, "--data.path", folder, "--data.bucket=false", "--data.pad_to_multiple=1")
    command = (*command, "--model.options.block_norm=layer", "--model.options.norm=rms")
    cli(*command, "--output_dir=alone")
    run(*command, "--trainer.devices=3", "--sequence_parallel=3", "--output_dir=together")
    compare(weights("together"), weights("alone"))


@pytest.mark.slow
def test_other_tasks_are_refused(stories):
    """Pretraining asks the network for features of positions that it chooses itself."""
    command = ("fit", TEXTS[0], TEXTS[1], "--model=MaskedPretraining", *TEXTS[2:], "--data.path", stories)
    printed = run(*command, "--trainer.devices=2", "--sequence_parallel=2", code=1)
    assert "MaskedPretraining trains a LambdaEncoder, which cannot be split here" in printed

"""Whole trainings in half precisions by the command line: finite, and near to float32."""

import csv
import math
from pathlib import Path

import pytest
import torch
from small_data import SHORT, TINY_ENCODER, TINY_RESNET, write_jsonl

from lambda_seq.tasks.data import TextData

NEAR = {"bf16-mixed": 0.03, "bf16-true": 0.15}  # relative, of the mean loss of an epoch
SAME = ("--seed_everything=0", "--test_after_fit=false", "--export=false", "--trainer.log_every_n_steps=1")


def losses(folder):
    """Of each step, and of the epoch."""
    (file,) = Path(folder).glob("csv/version_0/metrics.csv")
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    steps, (epoch,) = (
        [float(row[name]) for row in rows if row.get(name)] for name in ("train/loss_step", "train/loss_epoch")
    )
    return [*steps, epoch]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["texts", "pictures", "language"])
def test_half_precisions_are_near_to_float32(cli, stories, pictures, tmp_path, kind):
    corpus = write_jsonl(tmp_path / "corpus.jsonl", [{"text": "so it goes, and on it goes. " * 9}] * 9)
    words = {
        "texts": ("--config=text_classification", *TINY_ENCODER, "--data.path", stories, "--data.batch_size=8"),
        "pictures": ("--config=image_classification", *TINY_RESNET, "--data.path", pictures, "--data.batch_size=8"),
        "language": (
            *("--config=language_modelling", *TINY_ENCODER, "--data.path", corpus, "--data.batch_size=4"),
            "--data.length=64",
        ),
    }[kind]
    found = {}
    for precision in ("32-true", *NEAR):
        cli("fit", *words, *SHORT, *SAME, "--output_dir", precision, "--trainer.precision", precision)
        found[precision] = losses(precision)
        assert all(map(math.isfinite, found[precision]))
        weights = torch.load(f"{precision}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        dtypes = {one.dtype for name, one in weights.items() if one.is_floating_point() and "network" in name}
        assert torch.bfloat16 in dtypes if precision == "bf16-true" else dtypes == {torch.float32}
    for precision, near in NEAR.items():
        for one, other in zip(found[precision], found["32-true"], strict=True):
            assert one == pytest.approx(other, rel=near), precision


@pytest.mark.parametrize("there", [False, True])
def test_loaders_pin_their_batches_where_there_is_a_gpu(there, stories, monkeypatch):
    data = TextData(str(stories))
    data.setup()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert data.train_dataloader().pin_memory is there
    assert data.val_dataloader().pin_memory is there

"""The shipped configurations on the data they are for."""

import json
from pathlib import Path

import pytest
from paths import DATA
from small_data import QUIET, SHORT, TINY_ENCODER, TINY_RESNET

LIMITS = tuple(f"--trainer.limit_{stage}_batches=2" for stage in ("train", "val", "test", "predict"))


def shared(name: str) -> Path:
    """A data set that is not part of the project; the test is skipped without it."""
    if not (DATA / name).is_dir():
        pytest.skip(f"optional data set not found: {DATA / name} (its folder is LAMBDA_SEQ_DATA or ../shared/data)")
    return DATA / name


@pytest.mark.slow(seconds=30)
@pytest.mark.parametrize(("config", "least"), [("digits", 0.97), ("digits_sequence", 0.9)])
def test_digits_are_learned(cli, config, least):
    cli("fit", "--config", f"tasks/configs/{config}.yaml", *QUIET)
    summary = json.loads(Path(f"outputs/{config}/summary.json").read_text())
    assert summary["test/accuracy"] >= least


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "name", "tiny"),
    [("image_classification", "fashion_mnist", TINY_RESNET), ("text_classification", "imdb", TINY_ENCODER)],
)
def test_real_data_by_path_alone(cli, config, name, tiny):
    path = shared(name)
    command = ("--config", f"tasks/configs/{config}.yaml", "--data.path", path, *tiny, *LIMITS)
    cli("fit", *command, *SHORT)
    cli("test", *command, *QUIET)
    batch = 64 if name == "fashion_mnist" else 32
    assert f"{2 * batch} predictions" in cli("predict", *command, *QUIET).out

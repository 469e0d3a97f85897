"""Clips heard in crops while training, and whole or in windows otherwise."""

import pytest
import torch
from small_audio import SPLITS, clip_folder

from lambda_seq.inference.batches import cut
from lambda_seq.inference.frontends import LogMelOptions
from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.data import AudioData
from lambda_seq.tasks.data.audio.windows import Together, pad_windows

ENCODER = {"dim": 8, "depth": 1, "heads": 2, "scope": 3, "norm": "rms"}


@pytest.fixture
def folder(tmp_path):
    return str(clip_folder(tmp_path / "clips", SPLITS))  # of 400 to 600 samples, 4000 a second


@pytest.mark.parametrize(
    ("length", "begins"), [(1, [0]), (5, [0]), (6, [0, 1]), (10, [0, 5]), (11, [0, 5, 6]), (15, [0, 5, 10])]
)
def test_windows_cover_all_samples(length, begins):
    samples = torch.arange(length)
    found = cut(samples, 5)
    assert [window[0] for window in found] == begins
    assert all(len(window) == min(length, 5) for window in found)
    assert torch.equal(torch.cat(found).unique(), samples)


def test_a_batch_of_windows():
    items = [{"x": torch.arange(1.0, 8), "id": "a", "label": 1}, {"x": torch.arange(1.0, 4), "id": "b", "label": 0}]
    batch = pad_windows([items], most=5, multiple=2, at_once=2)
    assert batch["x"].tolist() == [[1, 2, 3, 4, 5], [3, 4, 5, 6, 7], [1, 2, 3, 0, 0]]
    assert batch["mask"].sum(1).tolist() == [5, 5, 3]
    assert batch["document"].tolist() == [0, 0, 1]
    assert (batch["at_once"], batch["id"], batch["label"].tolist()) == (2, ["a", "b"], [1, 0])
    assert pad_windows([items[:1]], most=5, multiple=2, at_once=2)["mask"].all()
    together = Together(list(range(7)), 3)
    assert [together[index] for index in range(len(together))] == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.parametrize("evaluate", ["whole", "windows"])
def test_training_hears_crops_and_evaluation_all(folder, evaluate):
    data = AudioData(folder, batch_size=4, crop_seconds=0.05, evaluate=evaluate, pad_to_multiple=64)
    rows = data.split("train")
    training, whole = (data.rows_as_items(rows, "train", training=training) for training in (True, False))
    heard = {training[epoch, 5]["x"].numpy().tobytes() for epoch in range(10)}
    assert len(heard) > 5
    assert torch.equal(training[3, 5]["x"], data.rows_as_items(rows, "train", training=True)[3, 5]["x"])
    places = whole[5]["x"].unfold(0, 200, 1)
    assert all((training[epoch, 5]["x"] == places).all(1).any() for epoch in range(10))
    assert len(whole[5]["x"]) == 600
    most = 200 if evaluate == "windows" else 600
    assert data.facts.options["max_length"] == data.facts.audio.max_length == most
    assert all(batch["x"].shape[1] <= 256 for batch in data.train_dataloader())
    assert data.lengths(rows).tolist() == [200] * 12
    batches = list(data.test_dataloader())
    assert [batch["label"].tolist() for batch in batches] == [[0, 0, 1, 1]]
    assert batches[0]["x"].shape == ((4, 448) if evaluate == "whole" else (10, 200))  # of 400, 440, 400 and 440


def test_the_answer_to_a_clip_is_the_mean_of_its_windows(folder):
    options = {"crop_seconds": 0.05, "evaluate": "windows", "representation": "log_mel"}
    options["log_mel"] = LogMelOptions(n_mels=8, n_fft=128)
    data = AudioData(folder, batch_size=3, **options)
    torch.manual_seed(0)
    task = Classification("lambda_encoder", ENCODER | {"stem": "features"}, facts=data.facts).eval()
    found = torch.cat([task.predict_step(batch, 0)["probabilities"] for batch in data.test_dataloader()])
    whole = AudioData(folder, batch_size=1, pad_to_multiple=1).test_dataloader()
    for row, batch in enumerate(whole):
        windows = torch.stack(cut(batch["x"][0], 200))
        network = task.network(*task.frontend(windows)).softmax(-1)
        torch.testing.assert_close(found[row], network.mean(0), rtol=1e-4, atol=1e-5)
    for size in (1, 4):  # whatever the batches
        other = AudioData(folder, batch_size=size, **options).test_dataloader()
        again = torch.cat([task.predict_step(batch, 0)["probabilities"] for batch in other])
        torch.testing.assert_close(again, found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_seconds": 0.0}, "crop_seconds=0.0: expected a time above 0"),
        ({"evaluate": "parts", "crop_seconds": 1.0}, "evaluate='parts': expected one of 'whole', 'windows'"),
        ({"evaluate": "windows"}, "evaluate='windows': windows are as long as what training hears; give crop_seconds"),
    ],
)
def test_crops_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        AudioData("anywhere", **options)

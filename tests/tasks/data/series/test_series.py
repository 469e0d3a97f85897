"""Series with labels: what is standardised, filled in, cut, padded and said."""

import numpy as np
import pytest
import torch
from small_data import write_jsonl

from lambda_seq.inference.series import SeriesFrontend
from lambda_seq.tasks.baselines.registry import fit_baseline
from lambda_seq.tasks.data import SeriesData
from lambda_seq.tasks.data.series.generated import wave
from lambda_seq.tasks.data.targets import TargetOptions

NAN = float("nan")


def arrays(place, series, labels=None, **others):
    np.savez(place, x=np.asarray(series, np.float64), **({} if labels is None else {"y": np.asarray(labels)}), **others)
    return str(place)


@pytest.fixture
def said(caplog, monkeypatch):
    """What was said, each line once for this test."""
    monkeypatch.setattr("lambda_seq.tasks.data.reading.notes._said", set())
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture
def gaps(tmp_path):
    """12 series of 2 channels and 5 steps, with missing numbers in the first."""
    random = np.random.default_rng(0)
    series = random.standard_normal((12, 2, 5)) * [[3], [0.5]] + [[10], [-2]]
    series[:, 0, 1] = NAN
    series[3, 0] = NAN
    return arrays(tmp_path / "a.npz", series, ["up", "down"] * 6), series


def test_channels_are_standardised_by_what_is_known_of_training_series(gaps):
    path, series = gaps
    data = SeriesData(path, validation_fraction=0, indicator=True)
    record = data.facts.series
    assert record.channels == ["channel 1", "channel 2"]
    assert record.mean == pytest.approx(np.nanmean(series, (0, 2)).tolist(), rel=1e-6)
    assert record.std == pytest.approx(np.nanstd(series, (0, 2)).tolist(), rel=1e-6)
    assert data.facts.options == {"num_classes": 2, "in_channels": 4, "max_length": 5}
    (batch,) = data.train_dataloader()
    x, mask = data.facts.frontend()(batch["x"], batch.get("mask"))
    assert x.shape == (12, 5, 4)
    assert mask is None
    real = x.flatten(0, 1)
    assert real.isfinite().all()
    assert real[:, 0][real[:, 2] == 0].mean().abs() < 1e-5
    assert real[:, 1].std(correction=0) == pytest.approx(1, abs=1e-5)
    marked = real[:, 2] == 1
    assert marked.sum() == 11 + 5
    assert (real[marked][:, 0] == 0).all()
    assert (real[:, 3] == 0).all()


def test_what_is_missing_is_said(gaps, said):
    path, _ = gaps
    _ = SeriesData(path, validation_fraction=0, missing="last").facts
    assert any(
        "16 numbers are missing, 13.33%, most in channel 'channel 1', in 12 of 12 series: they become the number "
        "before, or the mean of their channel (--data.missing). Say where: --data.indicator true" in line
        for line in said()
    )


def test_numbers_are_filled_in_by_hand_computed_values():
    x = torch.tensor([[[1.0], [NAN], [3.0], [NAN]], [[NAN], [5.0], [9.0], [9.0]]])
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    front = SeriesFrontend(mean=[1.0], std=[2.0])
    assert front(x, mask)[0][..., 0].tolist() == [[0, 0, 1, 0], [0, 2, 0, 0]]
    front = SeriesFrontend(mean=[1.0], std=[2.0], missing="last", indicator=True)
    found, same = front(x, mask)
    assert same is mask
    assert found[..., 0].tolist() == [[0, 0, 1, 1], [0, 2, 0, 0]]
    assert found[..., 1].tolist() == [[0, 1, 0, 1], [1, 0, 0, 0]]
    front = SeriesFrontend(mean=[1.0], std=[2.0], standardize="series")
    assert front(x, mask)[0][..., 0].tolist() == [[-1, 0, 1, 0], [0, 0, 0, 0]]
    assert SeriesFrontend(mean=[1.0], std=[2.0], standardize="none")(x, mask)[0][1, :, 0].tolist() == [0, 5, 0, 0]


@pytest.mark.parametrize("standardize", ["train", "series", "none"])
@pytest.mark.parametrize("missing", ["mean", "last"])
def test_padding_changes_nothing_whatever_stands_there(standardize, missing):
    front = SeriesFrontend(mean=[0.3, -1], std=[2, 0.5], standardize=standardize, missing=missing, indicator=True)
    x = torch.randn(2, 7, 2)
    x[0, 2, 1] = x[1, 0, 0] = NAN
    padded = torch.cat([x, torch.full((2, 3, 2), NAN)], 1)
    mask = torch.arange(10).expand(2, 10) < 7
    torch.testing.assert_close(front(padded, mask)[0][:, :7], front(x)[0])
    assert (front(padded, mask)[0][:, 7:] == 0).all()


def test_a_constant_is_nothing_whatever_its_size(tmp_path, said):
    series = np.full((6, 2, 4), 1e7)
    series[:, 1] = np.arange(24).reshape(6, 4)
    data = SeriesData(arrays(tmp_path / "a.npz", series, ["a", "b"] * 3), validation_fraction=0)
    assert data.facts.series.std[0] == 1
    assert any("channels 'channel 1' hold one number alone in all training series" in line for line in said())
    front = SeriesFrontend(mean=[0.0], std=[1.0], standardize="series")
    assert front(torch.full((1, 9, 1), 1e7))[0].abs().max() == 0


def test_long_series_are_cut_as_asked_which_is_said(tmp_path, said):
    path = arrays(tmp_path / "a.npz", np.arange(60.0).reshape(6, 1, 10), ["a", "b"] * 3)
    for part, first in (("start", 0), ("middle", 3), ("end", 6), ("random", 3)):
        data = SeriesData(path, validation_fraction=0, max_length=4, part=part)
        items = data.rows_as_items(data.split("train"), "train")
        assert items[0]["x"][:, 0].tolist() == [first + step for step in range(4)]
    drawn = data.rows_as_items(data.split("train"), "train", training=True)
    assert len({float(drawn[epoch, 0]["x"][0, 0]) for epoch in range(20)}) > 2
    assert torch.equal(drawn[7, 2]["x"], drawn[7, 2]["x"])
    assert any("of 6 of 6 series, which have up to 10 steps, 4 are read, the start" in line for line in said())


def test_series_of_similar_length_come_together_and_none_is_lost(tmp_path):
    rows = [{"series": list(range(1 + row % 9)), "label": "ab"[row % 2]} for row in range(54)]
    data = SeriesData(str(write_jsonl(tmp_path / "a.jsonl", rows)), validation_fraction=0, batch_size=6)
    batches = list(data.train_dataloader())
    assert sorted(name for batch in batches for name in batch["id"]) == sorted(map(str, range(54)))
    spreads = [np.ptp(batch["mask"].sum(1).numpy()) for batch in batches if "mask" in batch]
    assert max(spreads) <= 1


def test_a_series_without_a_step_and_one_without_a_number_stay(tmp_path, said):
    rows = [{"series": [[1.0, 2], [3, 4]], "label": "a"}, {"series": [[], []], "label": "b"}] * 3
    rows.append({"series": [[None, None], [None, None]], "label": "a"})
    data = SeriesData(str(write_jsonl(tmp_path / "a.jsonl", rows)), validation_fraction=0, pad_to_multiple=1)
    batch = next(iter(data.train_dataloader()))
    x, mask = data.facts.frontend()(batch["x"], batch["mask"])
    assert x.shape == (7, 2, 2)
    assert x.isfinite().all()
    assert sorted(mask.sum(1).tolist()) == [0, 0, 0, 2, 2, 2, 2]
    assert any("3 of 7 series have no step; they stay, as nothing" in line for line in said())


def test_an_infinite_number_is_named(tmp_path):
    series = np.zeros((4, 1, 3))
    series[2, 0, 1] = np.inf
    with pytest.raises(ValueError, match="row 2 has a number that is infinite; correct it, or leave it empty"):
        _ = SeriesData(arrays(tmp_path / "a.npz", series, ["a", "b"] * 2), validation_fraction=0).facts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"standardize": "all"}, "standardize='all': expected one of 'train', 'series', 'none'"),
        ({"missing": "next"}, "missing='next': expected one of 'mean', 'last'"),
        ({"part": "windows"}, "part='windows': expected one of 'start'"),
        ({"max_length": 0}, "max_length=0: expected at least 1 step"),
        ({"layout": "rows"}, "layout='rows': expected one of 'channels', 'steps'"),
        ({"channels": 0}, "channels=0: expected at least 1"),
        ({}, "path: no data given"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        SeriesData("x" if options else "", **options)


def test_numbers_to_predict(tmp_path):
    series = np.random.default_rng(0).standard_normal((40, 1, 6))
    path = arrays(tmp_path / "a.npz", series, series.mean((1, 2)))
    data = SeriesData(path, validation_fraction=0.25, target=TargetOptions(kind="numbers"))
    assert data.facts.target.kind == "numbers"
    assert fit_baseline(data).figures["val"]["rmse"] < 0.1


def test_the_baseline_reads_what_the_network_does():
    data = SeriesData("generated:waves")
    found = fit_baseline(data)
    assert 0.15 < found.figures["test"]["accuracy"] < 0.6  # phases are random, so that means along series tell little
    assert found.chosen["features"] == 2 * (8 + 64)
    assert data.channels == ("left", "right")


def test_waves_are_what_they_are_called():
    for kind in ("left rising", "right falling"):
        series = wave(kind, np.random.default_rng(1))
        filled = np.where(np.isnan(series), np.nanmean(series, 1, keepdims=True), series)
        crossings = np.abs(np.diff(np.sign(filled[0] - filled[0].mean())))
        half = len(crossings) // 2
        assert (crossings[half:].sum() > crossings[:half].sum()) == kind.endswith("rising")

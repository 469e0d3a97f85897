"""Predictors of series: the forms of an input, and what is none."""

import logging

import numpy as np
import pytest
import torch

import lambda_seq

CHANNELS = ["x", "y", "z"]
RNG = np.random.default_rng(0)
SERIES = RNG.standard_normal((3, 20)).astype(np.float32)  # (C, N)


def predictor(folder, channels=CHANNELS, **record):
    torch.manual_seed(0)
    given = {"channels": channels, "mean": [0.5] * len(channels), "std": [2.0] * len(channels)} | record
    several = len(channels) * (1 + given.get("indicator", False))
    model = lambda_seq.create_model(
        "lambda_encoder", num_classes=2, stem="features", in_channels=several, dim=8, depth=1, heads=2, scope=3
    )
    preprocessing = {"version": 1, "input": "features", "series": given}
    model.eval().save_pretrained(folder, labels=["no", "yes"], preprocessing=preprocessing)
    return lambda_seq.load_predictor(folder)


def test_forms_of_series(tmp_path):
    answers = predictor(tmp_path / "model")
    assert answers.kind == "series"
    np.save(tmp_path / "a.npy", SERIES)
    header = "time,z,x,y\n" + "\n".join(f"{step},{z},{x},{y}" for step, (x, y, z) in enumerate(SERIES.T.tolist()))
    (tmp_path / "a.csv").write_text(header)
    (tmp_path / "a.tsv").write_text("\n".join("\t".join(map(str, row)) for row in SERIES.T.tolist()))
    forms = [
        *(SERIES, torch.from_numpy(SERIES), SERIES.astype(np.float64), dict(zip("xyz", SERIES, strict=True))),
        *(tmp_path / "a.npy", str(tmp_path / "a.csv"), tmp_path / "a.tsv"),
    ]
    found = [*answers(forms), *map(answers, forms), *answers(np.stack([SERIES, SERIES]))]
    assert all(np.allclose(one.answer, found[0].answer, atol=1e-5) for one in found)
    assert [one.id for one in found[4:7]] == [str(tmp_path / name) for name in ("a.npy", "a.csv", "a.tsv")]
    with torch.no_grad():
        logits = answers.model((torch.from_numpy(SERIES.T)[None] - 0.5) / 2)
    assert np.allclose(found[0].answer, logits.softmax(-1)[0], atol=1e-6)
    assert found[0].labels == [found[0].label]
    assert answers.embed([SERIES, SERIES[:, :5]]).shape == (2, 8)


def test_a_single_channel(tmp_path):
    answers = predictor(tmp_path / "model", ["x"])
    forms = [SERIES[0], SERIES[:1], SERIES[0].tolist(), {"x": SERIES[0]}]
    found = [*answers(forms), answers(SERIES[0]), answers(SERIES[0].tolist())]
    assert all(np.allclose(one.answer, found[0].answer, atol=1e-5) for one in found)
    (tmp_path / "a.csv").write_text("x,other\n1,a\n?,b\n3,c\n")
    assert np.allclose(answers(tmp_path / "a.csv").answer, answers([1, float("nan"), 3]).answer, atol=1e-6)


def test_missing_numbers_lengths_and_what_is_read(tmp_path, caplog):
    answers = predictor(tmp_path / "model", indicator=True, missing="last", max_length=12, part="end")
    gaps = SERIES.copy()
    gaps[1, 3:6] = np.nan
    with caplog.at_level(logging.WARNING):
        together = answers([gaps, gaps[:, -12:], gaps[:, :4], np.zeros((3, 0))])
    assert "of 20 steps 12 are read, as in the training (end)" in caplog.text
    assert "a series without a step" in caplog.text
    assert np.allclose(together[0].answer, together[1].answer, atol=1e-6)
    assert np.allclose(together[2].answer, answers(gaps[:, :4]).answer, atol=1e-6)
    assert all(np.isfinite(one.answer).all() for one in together)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (SERIES.T, ValueError, r"shape \(20, 3\): expected \(3, N\), channels first: 'x', 'y', 'z'; transpose it"),
        (SERIES[0], ValueError, r"shape \(20,\): expected \(3, N\)"),
        (SERIES * np.inf, ValueError, "holds numbers that are infinite"),
        ({"x": [1.0], "y": [2.0]}, ValueError, "the channels 'z' are missing; there are 'x', 'y'"),
        ({"x": [1.0], "y": [2.0], "z": [3.0, 4.0]}, ValueError, r"channels of different lengths, \[1, 1, 2\]"),
        (b"1,2", TypeError, "bytes is no series: the model takes arrays"),
        ("nowhere.csv", ValueError, "nowhere.csv: there is no such file"),
        ("a.xlsx", ValueError, "a file of kind '.xlsx': a single series is"),
        ("bad.csv", ValueError, "line 3 has another number of cells than the 3 of the first"),
        ("word.csv", ValueError, "could not convert string to float: 'two'"),
        ("bad.npy", ValueError, "cannot be read as an array"),
    ],
)
def test_what_is_no_series(tmp_path, monkeypatch, given, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.xlsx").write_text("x")
    (tmp_path / "bad.csv").write_text("x,y,z\n1,2,3\n1,2\n")
    (tmp_path / "word.csv").write_text("x,y,z\n1,two,3\n")
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    with pytest.raises(error, match=message):
        predictor(tmp_path / "model")(given)

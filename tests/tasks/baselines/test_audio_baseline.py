"""Audio: tones of two pitches are told apart, at any sampling rate and as samples or log-mel frames."""

import numpy as np
import pytest
import torch
from small_audio import SPLITS, clip_folder

from lambda_seq.inference.frontends import AudioFrontend, LogMelOptions
from lambda_seq.tasks.baselines.audio import PARTS, statistics
from lambda_seq.tasks.baselines.registry import fit_baseline
from lambda_seq.tasks.data import AudioData


@pytest.mark.parametrize(
    "options",
    [{}, {"representation": "log_mel", "log_mel": LogMelOptions(n_mels=16)}, {"standardize": "train"}],
    ids=["waveform", "log_mel", "train"],
)
def test_tones_are_told_apart(tmp_path, options):
    found = fit_baseline(AudioData(str(clip_folder(tmp_path / "clips", SPLITS)), **options))
    assert found.figures["val"]["accuracy"] == found.figures["test"]["accuracy"] == 1.0
    bands = 16 if "log_mel" in options else 40
    assert f"of {bands} log-mel bands" in found.line
    assert found.chosen["features"] == bands * (4 + PARTS)


def test_low_rates_have_fewer_bands(tmp_path):
    folder = clip_folder(tmp_path / "clips", {"train": 4, "validation": 2}, rate=1000)
    found = fit_baseline(AudioData(str(folder)))
    assert found.chosen["features"] < 40 * (4 + PARTS)


def test_statistics_of_frames():
    frontend = AudioFrontend(sampling_rate=4000, representation="log_mel", n_mels=12, n_fft=128, hop_length=40)
    x = torch.randn(2000)
    found = statistics(x, frontend)
    frames = frontend(x[None])[0][0].numpy()
    np.testing.assert_allclose(found[:12], frames.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[12:24], frames.std(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[36:48], np.diff(frames, axis=0).std(0), rtol=1e-4, atol=1e-5)
    assert np.isfinite(statistics(torch.zeros(1), frontend)).all()

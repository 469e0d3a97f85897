"""Standardised samples and log-mel frames."""

import math

import numpy as np
import pytest
import torch

from lambda_seq.inference.frontends import AudioFrontend, LogMel, LogMelOptions, hertz_to_mel, mel_filters, mel_to_hertz


def samples(count=1000, rows=2, seed=0):
    return 0.1 * torch.randn(rows, count, generator=torch.Generator().manual_seed(seed)) + 0.05


@pytest.mark.parametrize(("hertz", "mel"), [(0, 0), (700, 2595 * math.log10(2)), (1000, 999.99), (4000, 2146.06)])
def test_the_mel_scale(hertz, mel):
    assert hertz_to_mel(hertz) == pytest.approx(mel, abs=0.01)
    assert mel_to_hertz(hertz_to_mel(hertz)) == pytest.approx(hertz)


@pytest.mark.parametrize(
    ("n_mels", "n_fft", "rate"), [(40, 256, 8000), (64, 512, 16000), (80, 1024, 22050), (5, 31, 90)]
)
def test_filters_are_the_formula(n_mels, n_fft, rate):
    corners = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + rate / 1400), n_mels + 2) / 2595) - 1)
    expected = np.zeros((n_mels, n_fft // 2 + 1))
    for band in range(n_mels):
        left, middle, right = corners[band : band + 3]
        for k in range(n_fft // 2 + 1):
            hertz = k * rate / n_fft
            if left <= hertz <= middle:
                expected[band, k] = (hertz - left) / (middle - left)
            elif middle < hertz <= right:
                expected[band, k] = (right - hertz) / (right - middle)
    filters = mel_filters(n_mels, n_fft, rate)
    assert np.abs(filters.numpy() - expected).max() < 1e-6
    hertz = np.arange(n_fft // 2 + 1) * rate / n_fft
    between = (hertz >= corners[1]) & (hertz <= corners[-2])
    assert np.allclose(filters.sum(0)[torch.from_numpy(between)], 1, atol=1e-6)


def test_too_many_bands_say_what_to_change():
    with pytest.raises(ValueError, match=r"log_mel.n_mels=128: \d+ bands lie between.*n_fft=256.*fewer bands"):
        mel_filters(128, 256, 8000)


def test_frames_are_the_fourier_transform_of_windowed_stretches():
    x = samples(1000, 1).double()
    frames, _ = LogMel(8000, 20, 256, 80)(x)
    assert frames.shape == (1, 13, 20)  # ⌈1000 / 80⌉
    wide = np.pad(x[0].numpy(), 128)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    filters = mel_filters(20, 256, 8000).double().numpy()
    for frame in range(13):
        power = np.abs(np.fft.rfft(wide[80 * frame : 80 * frame + 256] * window)) ** 2 / (window**2).sum()
        assert np.allclose(frames[0, frame], np.log(filters @ power + 1e-6), atol=1e-5)


def test_white_noise_has_power_one_and_tones_their_band():
    frames, _ = LogMel(8000, 10, 256, 80)(torch.randn(1, 80000, generator=torch.Generator().manual_seed(0)))
    power = frames.exp().mean((0, 1))
    assert torch.allclose(power, mel_filters(10, 256, 8000).sum(1), rtol=0.1)
    for band in (2, 5, 8):
        peak = mel_to_hertz(hertz_to_mel(4000) * (band + 1) / 11)
        tone = torch.sin(2 * math.pi * peak * torch.arange(4000) / 8000)[None]
        assert (LogMel(8000, 10, 256, 80)(tone)[0][0, 5:-5].argmax(-1) == band).all()


@pytest.mark.parametrize("representation", ["waveform", "log_mel"])
@pytest.mark.parametrize("standardize", ["clip", "train", "none"])
def test_padding_changes_nothing(representation, standardize):
    frontend = AudioFrontend(
        sampling_rate=8000,
        representation=representation,
        standardize=standardize,
        waveform_mean=0.02,
        waveform_std=0.3,
        n_mels=12,
        n_fft=128,
        hop_length=40,
        log_mel_mean=[0.5] * 12,
        log_mel_std=[2.0] * 12,
    )
    x = samples(500)
    mask = torch.arange(500) < torch.tensor([[500], [301]])
    x[~mask] = float("nan")  # anything may stand there
    together, real = frontend(x, mask)
    assert together.shape[:2] == real.shape
    for row, length in enumerate((500, 301)):
        alone, nothing = frontend(x[row : row + 1, :length])
        assert nothing is None
        assert alone.shape[1] == real[row].sum()
        assert torch.allclose(together[row][real[row]], alone[0], atol=1e-5)


def test_clips_have_equal_loudness_and_no_offset():
    frontend = AudioFrontend(sampling_rate=8000)
    loud, _ = frontend(samples())
    quiet, _ = frontend(samples() * 0.1)
    assert torch.allclose(loud, quiet, atol=1e-4)
    assert torch.allclose(loud.mean(1), torch.zeros(2), atol=1e-6)
    assert torch.allclose(loud.square().mean(1), torch.ones(2), atol=1e-5)


@pytest.mark.parametrize("representation", ["waveform", "log_mel"])
def test_silence_single_samples_and_rows_of_padding_are_finite(representation):
    frontend = AudioFrontend(sampling_rate=8000, representation=representation, n_mels=12, n_fft=128, hop_length=40)
    x = torch.zeros(3, 200)
    x[1, 0] = 0.5
    mask = torch.arange(200) < torch.tensor([[200], [1], [0]])
    found, real = frontend(x, mask)
    assert found.isfinite().all()
    assert real.sum(1).tolist() == ([200, 1, 0] if representation == "waveform" else [5, 1, 0])
    if representation == "waveform":
        assert not found.any()  # silence stays silence
        assert frontend(torch.full((1, 50), 1e-5) * torch.tensor([1, -1] * 25))[0].abs().max() <= 0.0101  # 60 dB


def test_training_statistics():
    frontend = AudioFrontend(sampling_rate=8000, standardize="train", waveform_mean=0.05, waveform_std=0.1)
    assert torch.allclose(frontend(samples())[0], (samples() - 0.05) / 0.1)
    assert {"waveform_mean", "waveform_std"} == set(frontend.state_dict())
    assert torch.equal(AudioFrontend(sampling_rate=8000, standardize="none")(samples())[0], samples())
    frames = AudioFrontend(sampling_rate=8000, representation="log_mel", n_mels=12, n_fft=128, hop_length=40)
    assert {"log_mel_mean", "log_mel_std"} == set(frames.state_dict())


def test_half_precision_is_computed_in_float32():
    frontend = AudioFrontend(sampling_rate=8000, representation="log_mel", n_mels=12, n_fft=128, hop_length=40)
    exact, _ = frontend(samples())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(frontend(samples())[0], exact)
    half, _ = frontend(samples().bfloat16())
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), exact, atol=0.1)


def test_sizes_follow_the_sampling_rate():
    assert LogMelOptions().sizes(16000) == {"n_mels": 64, "n_fft": 512, "hop_length": 160}
    assert LogMelOptions(n_mels=20).sizes(8000) == {"n_mels": 20, "n_fft": 256, "hop_length": 80}
    assert LogMelOptions(n_fft=300, hop_length=7).sizes(44100) == {"n_mels": 64, "n_fft": 300, "hop_length": 7}
    assert LogMelOptions().sizes(10)["hop_length"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"standardize": "loud"}, "standardize='loud': expected one of 'clip', 'train', 'none'"),
        ({"representation": "mfcc"}, "representation='mfcc': expected 'waveform' or 'log_mel'"),
    ],
)
def test_bad_choices(options, message):
    with pytest.raises(ValueError, match=message):
        AudioFrontend(sampling_rate=8000, **options)


@pytest.mark.parametrize("option", ["n_mels", "n_fft", "hop_length"])
def test_bad_sizes(option):
    with pytest.raises(ValueError, match=f"log_mel.{option}=0"):
        LogMelOptions(**{option: 0})

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lambda_seq.models.stems import FeatureStem, TokenStem, WaveformStem, make_stem

DIM = 6


def test_tokens_are_looked_up():
    stem = TokenStem(DIM, 10)
    x = torch.tensor([[3, 0, 9]])
    out, mask = stem(x)
    torch.testing.assert_close(out, stem.embedding.weight[x])
    assert mask is None
    assert stem(x.int())[0].equal(out)


def test_any_id_may_stand_at_masked_positions():
    mask = torch.tensor([[True, True, False]])
    out, _ = TokenStem(DIM, 10)(torch.tensor([[3, 0, -100]]), mask)
    assert torch.isfinite(out).all()


def test_features_at_masked_positions_may_be_nan():
    stem, mask = FeatureStem(DIM, 2), torch.tensor([[True, False]])
    x = torch.tensor([[[1.0, 2.0], [float("nan"), float("inf")]]])
    out, _ = stem(x, mask)
    torch.testing.assert_close(out[:, :1], stem.linear(x[:, :1]))
    out.sum().backward()
    assert torch.isfinite(stem.linear.weight.grad).all()


def test_waveform_takes_samples_with_and_without_a_channel_axis():
    stem, x = WaveformStem(DIM, strides=(2, 3)), torch.randn(2, 25)
    out, mask = stem(x)
    assert out.shape == (2, 5, DIM)  # ⌈25 / 6⌉ frames
    assert mask is None
    torch.testing.assert_close(stem(x[..., None])[0], out)
    assert WaveformStem(DIM, 2)(torch.randn(1, 1, 2))[0].shape == (1, 1, DIM)


def test_frames_are_centred():
    stem = WaveformStem(DIM, strides=(2, 2), norm="none").double()
    x = torch.zeros(1, 64, dtype=torch.float64, requires_grad=True)
    # Taps reach 4 samples, then 4 frames of 2 samples, to either side.
    assert seen(stem, x, frame=8) == list(range(32 - 12, 32 + 13))


def test_causal_frames_end_at_their_sample():
    stem = WaveformStem(DIM, strides=(2, 2), norm="layer", causal=True).double()
    x = torch.randn(1, 64, dtype=torch.float64, requires_grad=True)
    assert seen(stem, x, frame=8) == list(range(32 - 24, 33))


def seen(stem, x, frame):
    (gradient,) = torch.autograd.grad(stem(x)[0][0, frame].square().sum() + stem(x)[0][0, frame].sum(), x)
    return gradient[0].nonzero().flatten().tolist()


@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    extra=st.integers(0, 9),
    strides=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    norm=st.sampled_from(["layer", "rms", "none"]),
    causal=st.booleans(),
)
def test_padded_samples_change_no_frame(lengths, extra, strides, norm, causal):
    torch.manual_seed(0)
    stem = WaveformStem(DIM, strides=strides, norm=norm, causal=causal).double()
    x = torch.full((len(lengths), max(lengths) + extra), float("nan"), dtype=torch.float64)
    for row, length in enumerate(lengths):
        x[row, :length] = torch.randn(length)
    frames, real = stem(x, ~x.isnan())
    for row, length in enumerate(lengths):
        alone, _ = stem(x[row : row + 1, :length])
        assert real[row].sum() == alone.shape[1] == -(-length // stem.stride)
        assert real[row, : alone.shape[1]].all()
        torch.testing.assert_close(frames[row : row + 1, : alone.shape[1]], alone)


@pytest.mark.parametrize(
    ("stem", "options"),
    [
        ("tokens", {"vocab_size": 5}),
        ("features", {"in_channels": 2}),
        ("waveform", {"in_channels": 2, "strides": (3,)}),
    ],
)
def test_make_stem(stem, options):
    made = make_stem(stem, DIM, **options)
    x = torch.zeros(1, 6, dtype=torch.int64) if stem == "tokens" else torch.zeros(1, 6, 2)
    assert made(x)[0].shape == (1, 6 // made.stride, DIM)


@pytest.mark.parametrize(
    ("stem", "options", "message"),
    [
        ("token", {}, r"stem='token': expected one of 'tokens', 'features', 'waveform'"),
        ("features", {"vocab_size": 9}, r"vocab_size=9 does not apply to stem='features': leave it out, or .*'tokens'"),
        ("tokens", {"in_channels": 3}, r"in_channels=3 does not apply to stem='tokens': .*'features' or 'waveform'"),
        ("tokens", {"strides": (2,)}, r"strides=\(2,\) does not apply to stem='tokens': .*'waveform'"),
        ("tokens", {"vocab_size": 0}, r"vocab_size=0: expected at least 1"),
        ("features", {"in_channels": 0}, r"in_channels=0: expected at least 1"),
        ("waveform", {"strides": ()}, r"strides=\(\): expected at least one"),
        ("waveform", {"strides": (4, 0)}, r"strides=\(4, 0\): expected at least one, each at least 1"),
    ],
)
def test_bad_options(stem, options, message):
    with pytest.raises(ValueError, match=message):
        make_stem(stem, DIM, **options)


@pytest.mark.parametrize(
    ("stem", "x", "error", "message"),
    [
        (
            "tokens",
            torch.tensor([[1, 5]]),
            ValueError,
            r"ids from 1 to 5: expected 0 ≤ id < vocab_size=5; give the mod",
        ),
        ("tokens", torch.tensor([[-1, 2]]), ValueError, r"x holds token ids from -1 to 2"),
        (
            "tokens",
            torch.zeros(1, 4),
            TypeError,
            r"x is torch.float32: expected token ids, torch.int64; use x.long\(\)",
        ),
        ("tokens", torch.zeros(1, 4, dtype=torch.uint8), TypeError, r"x is torch.uint8: expected token ids"),
        ("tokens", [1, 2], TypeError, r"x is list: expected token ids"),
        ("tokens", torch.tensor([1, 2]), ValueError, r"x has shape \(2,\): expected \(B, N\), N at least 1"),
        (
            "tokens",
            torch.zeros(2, 0, dtype=torch.int64),
            ValueError,
            r"x has shape \(2, 0\): expected \(B, N\), N at l",
        ),
        (
            "features",
            torch.zeros(1, 4),
            ValueError,
            r"x has shape \(1, 4\): expected \(B, N, C\) with C = in_channels=2",
        ),
        ("features", torch.zeros(1, 4, 3), ValueError, r"x has 3 channels, shape \(1, 4, 3\): expected in_channels=2"),
        ("features", torch.zeros(1, 4, 2, dtype=torch.int64), TypeError, r"x is torch.int64: .* use x.float\(\)"),
        ("waveform", torch.zeros(1, 4), ValueError, r"x has 1 channels, .*expected in_channels=2"),
        ("waveform", torch.zeros(4), ValueError, r"x has shape \(4,\): expected \(B, N\), or \(B, N, C\)"),
        ("waveform", torch.zeros(1, 4, dtype=torch.int16), TypeError, r"x is torch.int16: expected a floating point"),
    ],
)
def test_bad_input(stem, x, error, message):
    options = {"vocab_size": 5} if stem == "tokens" else {"in_channels": 2}
    with pytest.raises(error, match=message):
        make_stem(stem, DIM, **options)(x)


def test_bad_masks():
    stem, x = FeatureStem(DIM, 2), torch.zeros(2, 4, 2)
    with pytest.raises(TypeError, match=r"mask is torch.float32: expected a bool tensor, .* use mask.bool\(\)"):
        stem(x, torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"mask has shape \(4, 2\): expected \(2, 4\), \(B, N\) as x"):
        stem(x, torch.ones(4, 2, dtype=torch.bool))

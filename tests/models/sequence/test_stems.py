import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lambda_seq.models.sequence.stems import FeatureStem, SpectrumStem, TokenStem, WaveformStem, make_stem

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


STRIDED = {
    "tokens": lambda **options: TokenStem(DIM, 9, **options),
    "features": lambda **options: FeatureStem(DIM, 2, **options),
    "waveform": lambda **options: WaveformStem(DIM, **options),
    "spectrum": lambda **options: SpectrumStem(DIM, **options),
}


def draw(kind, batch, length):
    if kind == "tokens":
        return torch.randint(9, (batch, length))
    return torch.randn((batch, length, 2) if kind == "features" else (batch, length), dtype=torch.float64)


@settings(deadline=None, max_examples=50)
@given(
    kind=st.sampled_from(sorted(STRIDED)),
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    extra=st.integers(0, 9),
    strides=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    norm=st.sampled_from(["layer", "rms", "none"]),
    causal=st.booleans(),
)
def test_padded_positions_change_no_frame(kind, lengths, extra, strides, norm, causal):
    torch.manual_seed(0)
    stem = STRIDED[kind](strides=strides, norm=norm, causal=causal).double()
    x = draw(kind, len(lengths), max(lengths) + extra)
    mask = torch.arange(x.shape[1]) < torch.tensor(lengths)[:, None]
    nothing = -7 if kind == "tokens" else float("nan")  # may stand at masked positions
    frames, real = stem(torch.where(mask[..., None] if x.ndim == 3 else mask, x, nothing), mask)
    for row, length in enumerate(lengths):
        alone, _ = stem(x[row : row + 1, :length])
        assert real[row].sum() == alone.shape[1] == -(-length // stem.stride)
        assert real[row, : alone.shape[1]].all()
        torch.testing.assert_close(frames[row : row + 1, : alone.shape[1]], alone)


@pytest.mark.filterwarnings("ignore:norm='batch'")  # which causal stems say of it
@settings(deadline=None, max_examples=50)
@given(
    kind=st.sampled_from(sorted(STRIDED)),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    strides=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    norm=st.sampled_from(["layer", "batch", "rms", "none"]),
)
def test_pieces_give_the_frames_of_the_whole(kind, lengths, strides, norm):
    torch.manual_seed(0)
    stem = STRIDED[kind](strides=strides, norm=norm, causal=True).double().eval()
    x = draw(kind, 2, sum(lengths))
    state, frames = stem.init_state(2), []
    for piece, seen in zip(x.split(lengths, 1), torch.tensor(lengths).cumsum(0).tolist(), strict=True):
        some, state = stem.step(piece, state)
        frames.append(some)
        assert sum(part.shape[1] for part in frames) == -(-seen // stem.stride)  # as soon as they can be
    torch.testing.assert_close(torch.cat(frames, 1), stem(x)[0])
    assert [part.kept.shape[1] for part in state] == [4 * layer.stride for layer in stem.layers]


def test_stems_without_convolutions_need_no_state():
    for stem, x in ((TokenStem(DIM, 9), torch.tensor([[1, 2]])), (FeatureStem(DIM, 2), torch.randn(1, 2, 2))):
        assert stem.init_state(1) == ()
        frames, state = stem.step(x, ())
        torch.testing.assert_close(frames, stem(x)[0])
        assert state == ()


@pytest.mark.parametrize("kind", STRIDED)
def test_only_causal_stems_stream(kind):
    with pytest.raises(ValueError, match=r"causal=False: only a causal stem streams; construct it with causal=True"):
        STRIDED[kind](strides=(2,)).init_state(1)


@pytest.mark.parametrize("kind", STRIDED)
def test_strides_shorten_any_stem(kind):
    stem = make_stem(kind, DIM, strides=[4, 2])
    assert stem.stride == 8
    x = torch.randint(9, (1, 33)) if kind == "tokens" else torch.randn(1, 33, 1)
    assert stem(x)[0].shape == (1, 5, DIM)
    assert isinstance(make_stem("tokens", DIM, strides=()).layers, torch.nn.ModuleList)
    assert make_stem("tokens", DIM, strides=()).embedding.embedding_dim == DIM


@pytest.mark.parametrize("kind", STRIDED)
def test_every_parameter_of_a_strided_stem_learns(kind):
    stem = STRIDED[kind](strides=(2, 2)).double()
    stem(draw(kind, 3, 40))[0].square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in stem.parameters())


@pytest.mark.parametrize(
    ("stem", "options"),
    [
        ("tokens", {"vocab_size": 5}),
        ("features", {"in_channels": 2}),
        ("waveform", {"in_channels": 2, "strides": (3,)}),
        ("spectrum", {"in_channels": 2, "strides": (3,)}),
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
        ("tokens", {"strides": (2, 0)}, r"strides=\(2, 0\): expected each at least 1"),
        ("features", {"strides": (-1,)}, r"strides=\(-1,\): expected each at least 1"),
        ("tokens", {"vocab_size": 0}, r"vocab_size=0: expected at least 1"),
        ("features", {"in_channels": 0}, r"in_channels=0: expected at least 1"),
        ("waveform", {"strides": ()}, r"strides=\(\): expected at least one"),
        ("spectrum", {"strides": ()}, r"strides=\(\): expected at least one"),
        ("waveform", {"strides": (4, 0)}, r"strides=\(4, 0\): expected each at least 1; use \(1,\)"),
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
        ("features", torch.zeros(1, 4, 3), ValueError, r"x has shape \(1, 4, 3\): expected .* in_channels=2"),
        ("features", torch.zeros(1, 4, 2, dtype=torch.int64), TypeError, r"x is torch.int64: .* use x.float\(\)"),
        ("waveform", torch.zeros(1, 4), ValueError, r"x has shape \(1, 4\): expected .* in_channels=2"),
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


def test_token_dropout_hides_whole_tokens_in_training():
    torch.manual_seed(0)
    stem = TokenStem(DIM, 9, dropout=0.25)
    x = torch.randint(9, (4, 500))
    out, _ = stem(x)
    hidden = (out == 0).all(-1)
    assert 0.2 < hidden.float().mean() < 0.3
    torch.testing.assert_close(out[~hidden], stem.embedding.weight[x[~hidden]] / 0.75)
    assert hidden[0].ne(hidden[1]).any()  # drawn for each position of each row
    torch.testing.assert_close(stem.eval()(x)[0], stem.embedding.weight[x])


@pytest.mark.parametrize(
    ("stem", "rate", "message"),
    [
        ("tokens", 1.0, "token_dropout=1.0: expected a rate"),
        ("waveform", 0.1, "token_dropout=0.1 does not apply to stem='waveform': leave it out, or use stem='tokens'"),
    ],
)
def test_token_dropout_that_does_not_fit(stem, rate, message):
    with pytest.raises(ValueError, match=message):
        make_stem(stem, DIM, token_dropout=rate)

"""Whole models in pieces: the same as at once, for any cutting, from states that do not grow and do not change."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lambda_seq.layers import LambdaLayer1d
from lambda_seq.models import LambdaEncoder, LambdaLM, state_bytes
from lambda_seq.models.sequence.blocks import Block, LambdaMixing
from lambda_seq.models.sequence.pooling import POOLS

SMALL = {"dim": 8, "depth": 2, "heads": 2, "dim_key": 3, "scope": 5, "ff_ratio": 1.5}
POSITIONS = {
    "local": {},
    "global table": {"scope": None, "max_length": 200},
    "multiscale": {"scope": None, "position": "multiscale"},
    "local multiscale": {"scope": 9, "position": "multiscale"},
    "exponential": {"scope": None, "position": "exponential"},
    "mixed": {"scope": [3, None], "position": ["table", "exponential"]},
    "content": {"position": False},
    "no blocks": {"depth": 0},
}
CONSTANT = ["local", "local multiscale", "exponential", "mixed", "content", "no blocks"]
STEMS = {
    "tokens": {"stem": "tokens", "vocab_size": 11},
    "strided tokens": {"stem": "tokens", "vocab_size": 11, "strides": (3,)},
    "features": {"stem": "features", "in_channels": 2},
    "strided features": {"stem": "features", "in_channels": 2, "strides": (2, 3)},
    "waveform": {"stem": "waveform", "strides": (2, 2)},
    "stereo": {"stem": "waveform", "in_channels": 2, "strides": (4,)},
    "spectrum": {"stem": "spectrum", "in_channels": 2, "strides": (4, 2)},
    "ngrams": {"stem": "ngrams", "buckets": 99, "orders": (1, 3)},
    "binary ngrams": {"stem": "ngrams", "buckets": 40, "tf": "binary"},
    "ngrams by logarithms": {"stem": "ngrams", "buckets": 40, "tf": "log"},
    "strided ngrams": {"stem": "ngrams", "buckets": 99, "strides": (3,)},
}

pieces = st.lists(st.integers(1, 20), min_size=1, max_size=6)

LEAKS = pytest.mark.filterwarnings("ignore:norm='batch'")  # which causal modules say of it


def encoder(stem="features", seed=0, **options):
    torch.manual_seed(seed)
    options = {"block_norm": "rms", "norm": "rms", "causal": True, **SMALL, **STEMS[stem], **options}
    return LambdaEncoder(num_classes=3, **options).double().eval()


def language_model(seed=0, **options):
    torch.manual_seed(seed)
    return LambdaLM(**{"vocab_size": 11, **SMALL, **options}).double().eval()


def draw(stem, batch, length):
    options = STEMS[stem]
    if options["stem"] in ("tokens", "ngrams"):
        return torch.randint(11, (batch, length))
    shape = (batch, length, options["in_channels"]) if "in_channels" in options else (batch, length)
    return torch.randn(shape, dtype=torch.float64)


def in_pieces(model, x, lengths):
    """Outputs of each step, and the state after all of them."""
    with torch.no_grad():
        state, outputs = model.init_state(x.shape[0]), []
        for piece in x.split(lengths, 1):
            output, state = model.step(piece, state)
            outputs.append(output)
    return outputs, state


@settings(deadline=None, max_examples=40)
@given(lengths=pieces, position=st.sampled_from(sorted(POSITIONS)), seed=st.integers(0, 99))
def test_a_language_model_streams(lengths, position, seed):
    model = language_model(seed, **POSITIONS[position])
    tokens = torch.randint(11, (2, sum(lengths)))
    outputs, state = in_pieces(model, tokens, lengths)
    torch.testing.assert_close(torch.cat(outputs, 1), model(tokens).detach(), rtol=1e-9, atol=1e-9)
    assert state.seen == sum(lengths)


@pytest.mark.parametrize("position", POSITIONS)
def test_token_by_token(position):
    model, tokens = language_model(**POSITIONS[position]), torch.randint(11, (3, 14))
    state = model.init_state(3)
    for place, expected in enumerate(model(tokens).unbind(1)):
        logits, state = model.step(tokens[:, place], state)
        assert logits.shape == (3, 11)
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(
    lengths=pieces,
    stem=st.sampled_from(sorted(STEMS)),
    pool=st.sampled_from(POOLS),
    position=st.sampled_from(sorted(POSITIONS)),
    seed=st.integers(0, 99),
)
def test_an_encoder_streams(lengths, stem, pool, position, seed):
    model = encoder(stem, seed, pool=pool, **POSITIONS[position])
    if pool == "attention":
        torch.nn.init.normal_(model.pool.query)
    x = draw(stem, 2, sum(lengths))
    outputs, state = in_pieces(model, x, lengths)
    for output, length in zip(outputs, torch.tensor(lengths).cumsum(0).tolist(), strict=True):
        torch.testing.assert_close(output, model(x[:, :length]).detach(), rtol=1e-9, atol=1e-9)  # logits so far
    assert state.seen == sum(lengths)


@LEAKS
@pytest.mark.parametrize("norm", ["batch", "layer", "rms", "none"])
def test_any_norm_streams_in_evaluation(norm):
    model = encoder("waveform", block_norm=norm, norm=norm).train()
    x = draw("waveform", 3, 50)
    model(x)  # moves the running statistics of batch norms
    outputs, _ = in_pieces(model.eval(), x, [7, 1, 42])
    torch.testing.assert_close(outputs[-1], model(x).detach(), rtol=1e-9, atol=1e-9)


def test_samples_without_a_frame_change_nothing():
    model = encoder("stereo")
    x = draw("stereo", 1, 8)
    state = model.init_state(1)
    first, state = model.step(x[:, :1], state)  # a frame ends at each fourth sample, from the first on
    for sample in (1, 2, 3):
        logits, state = model.step(x[:, sample : sample + 1], state)
        assert torch.equal(logits, first)
    assert not torch.equal(model.step(x[:, 4:5], state)[0], first)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("build", [language_model, encoder])
def test_the_size_of_a_state_is_constant_where_the_model_says_so(build, position):
    model = build(**POSITIONS[position])
    assert model.constant_state == (position in CONSTANT)
    x = torch.randint(11, (1, 90)) if build is language_model else draw("features", 1, 90)
    sizes = [
        state_bytes(in_pieces(model, x[:, :length], [length // 3, length - length // 3])[1]) for length in (45, 90)
    ]
    assert (sizes[0] == sizes[1]) == model.constant_state
    assert sizes[0] <= sizes[1]


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("pool", POOLS)
def test_a_state_is_not_changed(stem, pool):
    model = encoder(stem, pool=pool)
    _, state = in_pieces(model, draw(stem, 2, 11), [11])
    before, x = copy.deepcopy(state), draw(stem, 2, 6)
    first, second = model.step(x, state), model.step(x, state)
    assert torch.equal(first[0], second[0])
    assert state_bytes(state) == state_bytes(before)
    torch.testing.assert_close(flat(state), flat(before), rtol=0, atol=0)


def flat(state):
    """Tensors of a state, in order."""
    if isinstance(state, torch.Tensor):
        return [state]
    if isinstance(state, tuple):
        return [tensor for part in state for tensor in flat(part)]
    return [tensor for part in vars(state).values() for tensor in flat(part)] if hasattr(state, "__dict__") else []


def test_mixing_and_block_stream():
    torch.manual_seed(0)
    mixing = LambdaMixing(LambdaLayer1d(8, heads=2, scope=5, causal=True, norm="layer"), "layer")
    x = torch.randn(2, 12, 8)
    for module in (mixing, Block(mixing, 8)):
        module.eval()
        outputs, _ = in_pieces(module, x, [5, 1, 6])
        torch.testing.assert_close(torch.cat(outputs, 1), module(x).detach(), rtol=1e-5, atol=1e-5)
        single, _ = module.step(x[:, 0], module.init_state(2))
        torch.testing.assert_close(single, module(x)[:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_running_sums_do_not_saturate(pool):
    # In float32 a count that has reached 2^24 stays there.
    model = encoder("features", pool=pool).float().pool
    _, state = model.step(torch.zeros(1, 1, 8), model.init_state(1, torch.empty(())))
    state = type(state)(2**24, state.value, state.weight * 2**24, state.top)
    for _ in range(16):
        pooled, state = model.step(torch.ones(1, 2**10, 8), state)
    torch.testing.assert_close(pooled, torch.full((1, 8), 2**14 / (2**24 + 2**14)))


def test_what_does_not_stream_says_why():
    with pytest.raises(ValueError, match=r"causal=False: only a causal encoder streams; construct it with causal=True"):
        encoder(causal=False).init_state(2)
    with pytest.raises(ValueError, match=r"batch_size=0: expected at least 1"):
        encoder().init_state(0)
    with pytest.raises(ValueError, match=r"batch_size=0: expected at least 1"):
        language_model().init_state(0)
    assert not encoder(causal=False).constant_state


@LEAKS
@pytest.mark.parametrize("options", [{"block_norm": "batch"}, {"norm": "batch"}])
@pytest.mark.parametrize("stem", ["features", "waveform"])
def test_batch_norms_do_not_stream_in_training(stem, options):
    model = encoder(stem, **options).train()
    with pytest.raises(ValueError, match=r"norm='batch' in training mode needs the whole batch: call eval\(\)"):
        model.step(draw(stem, 2, 4), model.init_state(2))


@pytest.mark.parametrize("stem", STEMS)
def test_bad_pieces(stem):
    model = encoder(stem, scope=None, max_length=9)
    state = model.init_state(2)
    with pytest.raises(ValueError, match=r"x has batch 3 but the state has 2: go on with one batch"):
        model.step(draw(stem, 3, 4), state)
    with pytest.raises(ValueError, match=r"N at least 1"):
        model.step(draw(stem, 2, 0), state)
    _, state = model.step(draw(stem, 2, 6), state)
    with pytest.raises(ValueError, match=r"x has 10 positions, longer than max_length=9: .*max_length=10"):
        model.step(draw(stem, 2, 4), state)


def test_bad_tokens():
    model = language_model(scope=None, max_length=5)
    state = model.init_state(1)
    with pytest.raises(TypeError, match=r"tokens is torch.float32: expected token ids"):
        model.step(torch.zeros(1), state)
    with pytest.raises(ValueError, match=r"x holds token ids from 12 to 12: expected 0 ≤ id < vocab_size=11"):
        model.step(torch.tensor([12]), state)
    with pytest.raises(ValueError, match=r"x has 6 positions, longer than max_length=5"):
        model.step(torch.zeros(1, 6, dtype=torch.int64), state)
    with pytest.raises(ValueError, match=r"x has batch 2 but the state has 1"):
        model.step(torch.tensor([1, 2]), state)

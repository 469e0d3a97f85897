import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lambda_seq.layers import LambdaLayer1d
from lambda_seq.models import LambdaEncoder, create_model, list_models
from lambda_seq.models.sequence.blocks import Block, FeedForward, LambdaMixing
from lambda_seq.models.sequence.pooling import POOLS
from tests.models.sequence.bad_options import OF_BLOCKS

SMALL = {"dim": 8, "depth": 2, "heads": 2, "dim_key": 3, "scope": 5, "num_classes": 3, "ff_ratio": 1.5}
STEMS = {
    "tokens": {"vocab_size": 11},
    "features": {"in_channels": 2},
    "waveform": {"in_channels": 2, "strides": (2, 2)},
    "spectrum": {"in_channels": 2, "strides": (4,)},
    "ngrams": {"vocab_size": 11, "buckets": 500, "orders": (1, 2, 3)},
}
IDS = ("tokens", "ngrams")  # stems that take them
SOUNDS = ("waveform", "spectrum")


def build(stem="features", seed=0, **options):
    torch.manual_seed(seed)
    return LambdaEncoder(stem=stem, **{**SMALL, **STEMS[stem], **options}).double()


def draw(stem, batch, length):
    if stem in IDS:
        return torch.randint(STEMS[stem]["vocab_size"], (batch, length))
    return torch.randn(batch, length, STEMS[stem]["in_channels"], dtype=torch.float64)


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def check_padding(stem, lengths, extra, **options):
    """Logits and every gradient of ragged rows, padded by `extra` or by as little as they need, are the same.

    To 1e-10, or to what weights that are rounded otherwise come to: a batch norm of two values that are almost the same
    multiplies the rounding in front of it by hundreds, and one behind another does so again.
    """
    longest = max(lengths)
    torch.manual_seed(1)
    x = draw(stem, len(lengths), longest)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]

    def trained(more, rounding=0.0):
        rows = torch.cat([x, draw(stem, len(lengths), more)], 1)  # whatever stands at padding
        real = torch.cat([mask, torch.zeros(len(lengths), more, dtype=torch.bool)], 1)
        if stem not in IDS:
            rows = rows.masked_fill(~real[..., None], float("nan")).requires_grad_()
        model = build(stem, **options).train()
        with torch.no_grad():
            for weight in model.parameters() if rounding else ():
                weight.mul_(1 + rounding * torch.randn_like(weight))
        logits = model(rows, real)
        (logits * torch.linspace(-1, 2, logits.numel(), dtype=torch.float64).view_as(logits)).sum().backward()
        found = {"logits": logits, **gradients(model), **dict(model.named_buffers())}
        if stem not in IDS:
            assert not rows.grad[~real].any()
            found["x.grad"] = rows.grad[:, :longest]
        return found

    found, rounded = trained(extra), trained(0, rounding=2**-52)
    for name, expected in trained(0).items():
        moved = (rounded[name] - expected).abs().max().item()  # by one bit of each weight, about
        close = {"rtol": 1e-9, "atol": 1e-10 + 100 * moved}
        torch.testing.assert_close(found[name], expected, **close, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("norm", ["layer", "batch", "rms", "none"])
def test_padding_changes_nothing_in_training(stem, norm):
    check_padding(stem, [9, 4, 1], 6, block_norm=norm, norm=norm)


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("pool", POOLS)
def test_padding_changes_nothing_in_any_pool(stem, pool):
    check_padding(stem, [7, 10], 3, pool=pool)


@settings(deadline=None, max_examples=20)
@given(
    stem=st.sampled_from(sorted(STEMS)),
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=3).filter(lambda lengths: max(lengths) > 1),
    extra=st.integers(1, 9),
    options=st.fixed_dictionaries(
        {
            "causal": st.booleans(),
            "scope": st.sampled_from([3, None, [3, None]]),
            "key_norm": st.sampled_from(["softmax", "l2", "none"]),
            "dim_intra": st.integers(1, 2),
        }
    ),
)
def test_padding_changes_nothing_whatever_the_options(stem, lengths, extra, options):
    check_padding(stem, lengths, extra, max_length=32, **options)


@pytest.mark.parametrize("stem", ["tokens", "features", "ngrams"])
@pytest.mark.parametrize("causal", [False, True])
def test_padding_changes_nothing_behind_strides(stem, causal):
    check_padding(stem, [13, 6, 1], 8, strides=(3, 2), causal=causal)


POSITIONS = {
    "multiscale": {"position": "multiscale", "scope": None},
    "local multiscale": {"position": "multiscale"},
    "exponential": {"position": "exponential", "scope": None},
    "one for each block": {"position": ["table", "exponential"], "scope": [5, None]},
    "none in one block": {"position": [False, True]},
}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("position", POSITIONS)
def test_other_position_embeddings(position, causal):
    options = {**POSITIONS[position], "causal": causal}
    check_padding("features", [9, 4, 1], 6, **options)
    model = build(**options)
    assert model.max_length is None
    for length in (1, 7, 90):  # any length
        assert torch.isfinite(model(draw("features", 2, length))).all()
    model(draw("features", 3, 12)).square().sum().backward()
    assert all(gradient is not None for gradient in gradients(model).values())


def test_bytes_are_shortened_before_the_blocks():
    model = build("tokens", strides=(4,), scope=None, max_length=40)
    assert model.blocks[0].mixing.layer.position.taps == (19,)  # ⌈40 / 4⌉ frames, 2 · 10 − 1 offsets
    features, mask = model.features(draw("tokens", 2, 37), torch.ones(2, 37, dtype=torch.bool))
    assert features.shape == (2, 10, 8)
    assert mask.shape == (2, 10)
    assert model.vocab_size == 11
    assert build("features").vocab_size is None


@pytest.mark.parametrize("stem", STEMS)
def test_a_batch_is_its_rows_in_eval_mode(stem):
    model, x = build(stem).eval(), draw(stem, 3, 13)
    lengths = [13, 6, 1]
    mask = torch.arange(13) < torch.tensor(lengths)[:, None]
    together = model(x, mask)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(together[row : row + 1], model(x[row : row + 1, :length]))
    order = [2, 0, 1]
    torch.testing.assert_close(model(x[order], mask[order]), together[order])


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("stem", STEMS)
def test_a_row_without_a_real_position_is_finite(stem, pool):
    for rows in (1, 2):
        model, x = build(stem, pool=pool).train(), draw(stem, rows, 9)
        mask = torch.zeros(rows, 9, dtype=torch.bool)
        mask[1:] = True
        logits = model(x, mask)
        logits.sum().backward()
        assert torch.isfinite(logits).all()
        assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())
        torch.testing.assert_close(logits[0], model.head.bias)


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_causal_features_see_no_later_input(stem, mode):
    model = build(stem, causal=True, norm="rms", block_norm="layer", scope=[4, None], max_length=24).train(
        mode == "train"
    )
    x = draw(stem, 1, 24)
    features, _ = model.features(x)
    cut = 12  # the first sample that changes: frames from there on may, earlier ones may not
    changed = x.clone()
    changed[:, cut:] = draw(stem, 1, 24 - cut)
    if stem in IDS:
        changed[:, cut] = (x[:, cut] + 1) % STEMS[stem]["vocab_size"]
    later, _ = model.features(changed)
    frame = cut // model.stem.stride
    torch.testing.assert_close(later[:, :frame], features[:, :frame], rtol=0, atol=1e-12)
    assert not torch.allclose(later[:, frame], features[:, frame])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stem": "tokens"},
        {"stem": "ngrams", "pool": "sqrt"},
        {"depth": 0, "block_norm": "none"},
        {"stem": "waveform", "block_norm": "rms"},
        {"stem": "waveform", "block_norm": "none"},
        {"content": False},
        {"position": False},
        {"dim_intra": 2},
        {"scope": None, "max_length": 12},
        {"causal": True, "pool": "last"},
        {"pool": "attention", "key_norm": "l2"},
        {"query_norm": "softmax", "pool": "max"},
        {"ff": "gated", "layer_scale": 0.1, "query_bias": 1.0},
        {"mixing_dropout": 0.2, "position_dropout": 0.2},
    ],
    ids=str,
)
def test_every_parameter_learns(options):
    # A batch norm behind the queries, keys and values would take the constant that norm1's bias adds.
    model = build(**{"norm": "rms", "block_norm": "layer", **options})
    model(draw(model.input_kind, 3, 12)).square().sum().backward()
    for name, gradient in gradients(model).items():
        assert gradient is not None, name
        assert gradient.any(), name


def test_switched_off_parts_own_nothing():
    whole, position = dict(build().named_parameters()), dict(build(content=False).named_parameters())
    projections = [name for name in position if "project" in name]
    assert projections
    assert all(position[name].numel() < whole[name].numel() for name in projections)  # no keys
    assert not any("position" in name for name, _ in build(position=False).named_parameters())


@pytest.mark.parametrize("length", [1, 2, 17])
@pytest.mark.parametrize("stem", STEMS)
def test_features_have_a_vector_per_frame(stem, length):
    model, mask = build(stem).eval(), torch.ones(2, length, dtype=torch.bool)
    features, real = model.features(draw(stem, 2, length), mask)
    assert features.shape == (2, -(-length // model.stem.stride), 8)
    assert real.shape == features.shape[:2]


def test_scope_per_block_and_max_length_in_samples():
    model = build("waveform", scope=[3, None], max_length=30)
    layers = [block.mixing.layer for block in model.blocks]
    assert [layer.position.taps for layer in layers] == [(3,), (15,)]  # ⌈30 / 4⌉ frames, 2 · 8 − 1 offsets
    assert model(draw("waveform", 1, 30)).shape == (1, 3)
    with pytest.raises(ValueError, match=r"x has 31 positions, longer than max_length=30: .*max_length=31"):
        model(draw("waveform", 1, 31))
    assert build(scope=5, max_length=4).eval()(draw("features", 1, 9)).shape == (1, 3)


@pytest.mark.parametrize("depth", [1, 12])
@pytest.mark.parametrize(
    "options", [{}, {"init": "paper"}, {"norm": "rms", "block_norm": "layer", "dim_key": 64}], ids=str
)
def test_the_residual_stream_keeps_its_scale(depth, options):
    torch.manual_seed(0)
    model = LambdaEncoder(dim=64, depth=depth, **options)
    stream, _ = model.stem(torch.randint(257, (4, 48)))
    assert stream.var().item() == pytest.approx(1, abs=0.2)
    for block in model.blocks:
        stream = block(stream)
    assert 1 < stream.var().item() < 2


@pytest.mark.parametrize("stem", STEMS)
def test_without_blocks_nothing_mixes_positions(stem):
    model = build(stem, depth=0, block_norm="none", pool="sqrt", strides=(1,) if stem in SOUNDS else None)
    x, mask = draw(stem, 2, 7), torch.arange(7) < torch.tensor([[7], [4]])
    frames, _ = model.stem(x, mask)
    means = torch.stack([frames[0].sum(0) / 7**0.5, frames[1, :4].sum(0) / 2])
    torch.testing.assert_close(model(x, mask), model.head(means))
    assert not [name for name, _ in model.named_parameters() if not name.startswith(("stem.", "head."))]
    assert (model.max_length, model.constant_state) == (None, False)
    assert build(stem, depth=0, causal=True).constant_state
    assert build(stem, depth=0, scope=None).eval()(draw(stem, 1, 50)).shape == (1, 3)


@pytest.mark.parametrize("stem", ["tokens", "waveform"])
def test_the_stem_may_go_around_the_blocks(stem):
    x, mask = draw(stem, 2, 60), torch.ones(2, 60, dtype=torch.bool)
    mask[1, 41:] = False
    model = build(stem, stem_skip=0.0, end_norm="layer", pool="sqrt").eval()
    plain = build(stem, depth=0, block_norm="layer", end_norm="none", pool="sqrt").eval()
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if name in plain.state_dict()})
    torch.testing.assert_close(model(x, mask), plain(x, mask), rtol=0, atol=0)
    model.skip.weight.data.uniform_(0.1, 2)
    frames, real = model.stem(x, mask)
    mixed = model.norm(model.blocks(frames, real), real)
    torch.testing.assert_close(model.features(x, mask)[0], frames + model.skip.weight * mixed)


def test_a_stream_goes_around_the_blocks_too():
    model = build("tokens", causal=True, stem_skip=0.5, end_norm="rms").eval()
    x = draw("tokens", 2, 30)
    state = model.init_state(2)
    for piece in x.split([7, 1, 22], 1):
        found, state = model.step(piece, state)
    torch.testing.assert_close(found, model(x), rtol=1e-4, atol=1e-5)


def test_block_is_two_residual_branches():
    torch.manual_seed(0)
    block = Block(LambdaMixing(LambdaLayer1d(8, heads=2)), 8).eval()
    x = torch.randn(2, 5, 8)
    mixed = x + block.mixing(block.norm1(x))
    torch.testing.assert_close(block(x), mixed + block.feed_forward(block.norm2(mixed)))
    assert FeedForward(8, 2.5, 0.0).inner.out_features == 20


def test_dropout_and_stochastic_depth():
    model = build(dropout=0.3, stochastic_depth=0.4, depth=3)
    assert [block.drop[1].rate for block in model.blocks] == pytest.approx([0, 0.2, 0.4])
    x = draw("features", 4, 9)
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *OF_BLOCKS,
        ({"num_classes": 0}, r"num_classes=0: expected at least 1"),
        ({"scope": 4}, r"scope=4: expected an odd number of positions, .*use 3 or 5"),
        ({"strides": (2, 0)}, r"strides=\(2, 0\): expected each at least 1"),
        ({"pool": "sum"}, r"pool='sum': expected one of"),
        ({"vocab_size": 9}, r"vocab_size=9 does not apply to stem='features'"),
        ({"buckets": 9}, r"buckets=9 does not apply to stem='features': leave it out, or use stem='ngrams'"),
    ],
    ids=str,
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_registered_names_run():
    for name in list_models("lambda_encoder*"):
        with torch.device("meta"):
            model = create_model(name, num_classes=4)
        x = torch.zeros(2, 33, dtype=torch.int64, device="meta")
        assert model(x, torch.ones(2, 33, dtype=torch.bool, device="meta")).shape == (2, 4)
        assert (model.num_classes, model.input_kind) == (4, "tokens")


@pytest.mark.parametrize("stem", STEMS)
def test_bfloat16_autocast(stem):
    model = build(stem).float().train()
    x = draw(stem, 2, 12)
    x = x if stem in IDS else x.float()
    mask = torch.arange(12) < torch.tensor([[12], [5]])
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x, mask)
    logits.float().square().sum().backward()
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())
    torch.testing.assert_close(logits.float(), build(stem).float().train()(x, mask), rtol=0.1, atol=0.1)


PACKABLE = [stem for stem in STEMS if stem not in SOUNDS]
SPANS = [(0, 0, 4), (0, 4, 5), (0, 5, 14), (1, 3, 8), (1, 9, 14), (3, 0, 14)]  # row, begin, end of each document


def documents_of(spans, shape=(4, 14)):
    ids = torch.full(shape, -1)
    for number, (row, begin, end) in enumerate(spans):
        ids[row, begin:end] = number
    return ids


def apart(x, spans=SPANS):
    """The documents of rows as a padded batch of their own, and its mask."""
    longest = max(end - begin for _, begin, end in spans)
    batch = x.new_zeros(len(spans), longest, *x.shape[2:])
    mask = torch.zeros(len(spans), longest, dtype=torch.bool)
    for number, (row, begin, end) in enumerate(spans):
        batch[number, : end - begin] = x[row, begin:end]
        mask[number, : end - begin] = True
    return batch, mask


def check_packing(stem, **options):
    """Logits, every gradient and every buffer of packed documents, and of the documents in a row each, in training."""
    torch.manual_seed(1)
    x, results = draw(stem, 4, 14), []
    weights = torch.linspace(-1, 2, 3 * len(SPANS), dtype=torch.float64).view(-1, 3)
    for packed in (True, False):
        rows = x if stem in IDS else x.clone().requires_grad_()
        model = build(stem, **options).train()
        logits = model(rows, None, documents_of(SPANS)) if packed else model(*apart(rows))
        (logits * weights).sum().backward()
        results.append({"logits": logits, "x.grad": rows.grad, **gradients(model), **dict(model.named_buffers())})
    for name, expected in results[1].items():
        torch.testing.assert_close(results[0][name], expected, rtol=1e-9, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.filterwarnings("ignore:norm='batch'")  # which causal encoders say of it
@pytest.mark.parametrize("stem", PACKABLE)
@pytest.mark.parametrize("norm", ["layer", "batch", "rms", "none"])
@pytest.mark.parametrize("causal", [False, True])
def test_packed_documents_are_as_if_alone_in_training(stem, norm, causal):
    check_packing(stem, block_norm=norm, norm=norm, causal=causal)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("key_norm", ["softmax", "l2", "none"])
def test_packed_documents_are_as_if_alone_in_any_pool(pool, key_norm):
    check_packing("features", pool=pool, key_norm=key_norm)


@pytest.mark.parametrize(
    "options",
    [
        {"scope": None, "max_length": 14},
        {"position": "multiscale", "scope": None},
        {"position": ["exponential", "table"], "scope": [None, 3]},
        {"position": False},
        {"content": False, "dim_intra": 2},
    ],
    ids=str,
)
def test_packed_documents_are_as_if_alone_whatever_the_positions(options):
    check_packing("tokens", **options)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_no_document_sees_another(norm, causal):
    model = build(block_norm=norm, norm=norm, causal=causal, scope=None, max_length=14).train()
    x = draw("features", 4, 14).requires_grad_()
    documents = documents_of(SPANS)
    logits = model(x, None, documents)
    for number in range(len(SPANS)):
        (gradient,) = torch.autograd.grad(logits[number].sum(), x, retain_graph=True)
        assert not gradient[documents != number].any()
        assert gradient[documents == number].any()


def test_documents_without_a_real_position_have_no_logits():
    model, x = build("tokens").eval(), draw("tokens", 2, 6)
    documents = torch.tensor([[0, 0, 0, 1, 1, 1], [2] * 6])
    mask = documents != 1
    torch.testing.assert_close(model(x, mask, documents), torch.cat([model(x[:1, :3]), model(x[1:])]))
    assert model(x, torch.zeros_like(mask), documents).shape == (0, 3)
    features, real = model.features(x, mask, documents)
    assert torch.equal(real, mask)
    assert features.shape == (2, 6, 8)


def test_the_longest_document_counts_for_max_length():
    model = build("tokens", scope=None, max_length=5)
    x = draw("tokens", 1, 9)
    assert model(x, None, torch.arange(9)[None] // 5).shape == (2, 3)
    with pytest.raises(ValueError, match=r"x has 6 positions, longer than max_length=5"):
        model(x, None, torch.arange(9)[None] // 6)


@pytest.mark.parametrize(
    ("stem", "options"),
    [
        *(("waveform", {}), ("spectrum", {})),
        *(("tokens", {"strides": (1,)}), ("tokens", {"strides": (4,)}), ("ngrams", {"strides": (2,)})),
    ],
)
def test_documents_behind_convolutions_are_refused(stem, options):
    with pytest.raises(ValueError, match=r"documents: the stem's convolutions, .*give each document a row of its own"):
        build(stem, **options)(draw(stem, 2, 8), None, torch.zeros(2, 8, dtype=torch.int64))


@pytest.mark.parametrize("stem", IDS)
def test_documents_that_do_not_fit_the_input(stem):
    with pytest.raises(ValueError, match=r"documents has shape \(2, 7\): expected \(2, 8\), \(B, N\)"):
        build(stem)(draw(stem, 2, 8), None, torch.zeros(2, 7, dtype=torch.int64))

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lambda_seq.models import LambdaLM, accepted_options, count_flops, create_model, list_models
from tests.models.sequence.bad_options import OF_BLOCKS

SMALL = {"vocab_size": 11, "dim": 8, "depth": 2, "heads": 2, "dim_key": 3, "scope": 5, "ff_ratio": 1.5}
POSITIONS = {
    "local": {},
    "global table": {"scope": None, "max_length": 40},
    "multiscale": {"scope": None, "position": "multiscale"},
    "local multiscale": {"scope": 9, "position": "multiscale"},
    "exponential": {"scope": None, "position": "exponential"},
    "mixed": {"scope": [3, None], "position": ["table", "exponential"]},
    "content": {"position": False},
}


def build(seed=0, **options):
    torch.manual_seed(seed)
    return LambdaLM(**{**SMALL, **options}).double()


def draw(batch, length, seed=1):
    return torch.randint(11, (batch, length), generator=torch.Generator().manual_seed(seed))


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def run(model, tokens, real=None, documents=None):
    """Logits at real positions, and the gradients of a loss that is a sum over them."""
    model.zero_grad()
    logits = model(tokens, real, documents)
    logits = logits.flatten(0, 1) if real is None else logits[real]
    logits.log_softmax(-1).square().sum().backward()
    return {"logits": logits.detach(), **{name: gradient.clone() for name, gradient in gradients(model).items()}}


def alone(model, rows):
    """The same for rows of which each is by itself: logits one after the other, gradients added."""
    found = [run(model, tokens) for tokens in rows]
    total = {name: sum(one[name] for one in found) for name in found[0] if name != "logits"}
    return {"logits": torch.cat([one["logits"] for one in found]), **total}


def assert_equal(found, expected):
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("position", POSITIONS)
def test_logits_for_each_position(position):
    model = build(**POSITIONS[position]).eval()
    assert model(draw(3, 17)).shape == (3, 17, 11)
    assert (model.num_classes, model.vocab_size, model.input_kind) == (11, 11, "tokens")
    torch.testing.assert_close(model.head(model.features(draw(2, 9))), model(draw(2, 9)))


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_no_gradient_reaches_a_later_position(position, mode):
    model = build(**POSITIONS[position]).train(mode == "train")
    vectors, _ = model.stem(draw(2, 24))
    vectors = vectors.detach().requires_grad_()
    outputs = model.norm(model.blocks(vectors * model.scale, None))
    weights = torch.randn(8, dtype=torch.float64)  # of an output that a norm does not hold constant
    for position in (0, 7, 23):
        (gradient,) = torch.autograd.grad((outputs[:, position] @ weights).sum(), vectors, retain_graph=True)
        assert not gradient[:, position + 1 :].any()
        assert gradient[:, position].any()


@pytest.mark.parametrize("position", POSITIONS)
def test_a_later_token_changes_no_earlier_logits(position):
    model, tokens = build(**POSITIONS[position]).eval(), draw(1, 24)
    changed = tokens.clone()
    changed[:, 12] = (tokens[:, 12] + 1) % 11
    torch.testing.assert_close(model(changed)[:, :12], model(tokens)[:, :12], rtol=0, atol=1e-12)
    assert not torch.allclose(model(changed)[:, 12], model(tokens)[:, 12])


@settings(deadline=None, max_examples=20)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    before=st.integers(0, 5),
    after=st.integers(0, 5),
    position=st.sampled_from(sorted(POSITIONS)),
    key_norm=st.sampled_from(["softmax", "l2", "none"]),
)
def test_padded_equals_alone(lengths, before, after, position, key_norm):
    model = build(**{**POSITIONS[position], "key_norm": key_norm}).train()
    rows = [draw(1, length, seed=length) for length in lengths]
    width = before + max(lengths) + after
    padded, real = draw(len(rows), width), torch.zeros(len(rows), width, dtype=torch.bool)
    for row, tokens in enumerate(rows):
        padded[row, before : before + tokens.shape[1]] = tokens
        real[row, before : before + tokens.shape[1]] = True
    assert_equal(run(model, padded, real), alone(model, rows))


@settings(deadline=None, max_examples=20)
@given(
    lengths=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=2),
    after=st.integers(0, 4),
    position=st.sampled_from(sorted(POSITIONS)),
)
def test_packed_equals_separate(lengths, after, position):
    model = build(**POSITIONS[position]).train()
    width = max(map(sum, lengths)) + after
    tokens, real = draw(len(lengths), width), torch.zeros(len(lengths), width, dtype=torch.bool)
    documents, rows = torch.zeros(len(lengths), width, dtype=torch.int64), []
    for row, counts in enumerate(lengths):
        start = 0
        for number, count in enumerate(counts):
            part = slice(start, start + count)
            documents[row, part], real[row, part] = number, True
            rows.append(tokens[row : row + 1, part])
            start += count
    assert_equal(run(model, tokens, real, documents), alone(model, rows))


@pytest.mark.parametrize("position", ["local", "multiscale", "exponential", "mixed", "content", "local multiscale"])
def test_runs_beyond_any_length_it_was_made_for(position):
    model = build(**{**POSITIONS[position], "max_length": 6}).eval()
    assert model.max_length is None
    long = draw(1, 70)
    assert torch.isfinite(model(long)).all()
    torch.testing.assert_close(model(long)[:, :20], model(long[:, :20]))  # each length is the same function


def test_a_global_table_has_a_longest_input():
    model = build(scope=[3, None], max_length=30)
    assert model.max_length == 30
    assert model(draw(1, 30)).shape == (1, 30, 11)
    with pytest.raises(ValueError, match=r"x has 31 positions, longer than max_length=30: .*max_length=31"):
        model(draw(1, 31))


def test_the_output_shares_the_embedding_unless_told_otherwise():
    tied, free = build(), build(tie=False)
    assert tied.head.weight is tied.stem.embedding.weight
    assert free.head.weight is not free.stem.embedding.weight
    count = [sum(parameter.numel() for parameter in model.parameters()) for model in (tied, free)]
    assert count[1] - count[0] == 11 * 8
    assert count_flops(tied, draw(1, 12)) == count_flops(free, draw(1, 12))


@pytest.mark.parametrize("tie", [True, False])
def test_scales_at_the_start(tie):
    torch.manual_seed(0)
    model = LambdaLM(vocab_size=257, dim=64, depth=6, tie=tie)
    stream = model.stem(torch.randint(257, (4, 64)))[0] * model.scale
    assert stream.var().item() == pytest.approx(1, abs=0.2)
    assert 1 < model.blocks(stream).var().item() < 2.5
    tokens = torch.randint(257, (4, 65))
    loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    # A shared output expects each token again at first, by about √(dim / 2), and unlearns it within some steps.
    assert loss.item() < math.log(257) + (2 if tie else 1)


def test_it_learns():
    torch.manual_seed(0)
    model = LambdaLM(**{**SMALL, "dim": 16})
    tokens = torch.tensor([[1, 2, 3, 1, 4, 5, 1, 6, 7, 8] * 4])  # what follows a 1 depends on what was before it
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(tokens[:, :-1])[0, 4:], tokens[0, 5:])
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tie": False},
        {"block_norm": "layer", "norm": "layer"},
        {"block_norm": "none", "norm": "none"},
        {"content": False},
        {"dim_intra": 2, "query_norm": "softmax"},
        {"key_norm": "l2"},
        *(options for options in POSITIONS.values() if options),
    ],
    ids=str,
)
def test_every_parameter_learns(options):
    model = build(**options)
    model(draw(3, 20)).square().sum().backward()
    for name, gradient in gradients(model).items():
        assert gradient is not None, name
        assert gradient.any(), name


def test_dropout_and_stochastic_depth():
    model = build(dropout=0.3, stochastic_depth=0.4, depth=3)
    assert [block.drop[1].rate for block in model.blocks] == pytest.approx([0, 0.2, 0.4])
    tokens = draw(4, 9)
    assert not torch.equal(model.train()(tokens), model(tokens))
    assert torch.equal(model.eval()(tokens), model(tokens))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *OF_BLOCKS,
        ({"vocab_size": 0}, r"vocab_size=0: expected at least 1"),
        (
            {"block_norm": "batch"},
            r"block_norm='batch': batch statistics average .* future, .*use 'rms', 'layer' or 'none'",
        ),
        ({"norm": "batch"}, r"norm='batch': batch statistics average over the future"),
    ],
    ids=str,
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize(
    ("tokens", "error", "message"),
    [
        (torch.zeros(1, 4), TypeError, r"x is torch.float32: expected token ids, torch.int64"),
        (torch.tensor([1, 2]), ValueError, r"x has shape \(2,\): expected \(B, N\), N at least 1"),
        (torch.zeros(2, 0, dtype=torch.int64), ValueError, r"x has shape \(2, 0\)"),
        (torch.tensor([[3, 11]]), ValueError, r"x holds token ids from 3 to 11: expected 0 ≤ id < vocab_size=11"),
    ],
)
def test_bad_inputs(tokens, error, message):
    with pytest.raises(error, match=message):
        build()(tokens)


def test_registered_names_run():
    names = list_models("lambda_lm*")
    assert {"lambda_lm", "lambda_lm_tiny", "lambda_lm_small", "lambda_lm_base"} <= set(names)
    for name in names:
        with torch.device("meta"):
            model = create_model(name, vocab_size=300)
        assert model(torch.zeros(2, 33, dtype=torch.int64, device="meta")).shape == (2, 33, 300)
        assert accepted_options(name) >= set(SMALL)


@pytest.mark.parametrize("position", POSITIONS)
def test_a_model_is_built_again_from_its_options(position):
    model = create_model("lambda_lm_tiny", **{**SMALL, **POSITIONS[position]}).eval()
    again = create_model(model.name, **model.options).eval()
    again.load_state_dict(model.state_dict())
    tokens = draw(2, 13)
    assert torch.equal(again(tokens), model(tokens))


def test_bfloat16_autocast():
    model, tokens = build().float(), draw(2, 12)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(tokens)
    logits.float().square().sum().backward()
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())
    torch.testing.assert_close(logits.float(), build().float()(tokens), rtol=0.1, atol=0.1)

"""What blocks of sequence networks can be made of: gated feed-forwards, scaled branches, dropped channels."""

import copy
import pickle

import pytest
import torch

from lambda_seq import from_pretrained, param_groups
from lambda_seq.models import LambdaEncoder, LambdaLM
from lambda_seq.models.sequence.blocks import FeedForward

SMALL = {"stem": "features", "in_channels": 2, "num_classes": 3}
SMALL |= {"dim": 8, "depth": 2, "heads": 2, "dim_key": 3, "scope": 5, "ff_ratio": 1.5}


def build(seed=0, **options):
    torch.manual_seed(seed)
    return LambdaEncoder(**{**SMALL, **options}).double()


def draw(batch, length):
    return torch.randn(batch, length, 2, dtype=torch.float64)


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_a_gated_feed_forward():
    torch.manual_seed(0)
    feed = FeedForward(8, 1.5, 0.0, "gated").double()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    value, gate = (x @ feed.inner.weight.T + feed.inner.bias).split(12, -1)
    cumulative = (1 + torch.erf(gate / 2**0.5)) / 2  # Φ, and gelu(x) = x Φ(x)
    expected = (value * gate * cumulative) @ feed.out.weight.T + feed.out.bias
    torch.testing.assert_close(feed(x), expected)
    matrices = [
        sum(weight.numel() for weight in FeedForward(12, *given).parameters() if weight.ndim == 2)
        for given in ((2, 0.0), (4 / 3, 0.0, "gated"))
    ]
    assert matrices[0] == matrices[1]
    assert all(block.feed_forward.gated for block in build(ff="gated").blocks)


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_layer_scale_begins_at_its_value(value):
    plain, scaled = build(), build(layer_scale=value)
    names = scaled.state_dict().keys() - plain.state_dict().keys()
    assert names == {f"blocks.{block}.scale{branch}.weight" for block in range(2) for branch in (1, 2)}
    scaled.load_state_dict(plain.state_dict(), strict=False)
    x = draw(2, 9)
    stream, _ = scaled.stem(x)
    block, as_before = scaled.blocks[0].eval(), plain.blocks[0].eval()
    mixed = stream + value * as_before.mixing(as_before.norm1(stream))
    torch.testing.assert_close(block(stream), mixed + value * as_before.feed_forward(as_before.norm2(mixed)))
    scaled.train()(x).square().sum().backward()
    assert all(gradients(scaled)[name].any() for name in names)


def test_mixing_dropout_is_of_whole_channels_of_a_sequence():
    model = build(mixing_dropout=0.4, norm="rms")
    block, seen = model.blocks[0].train(), []
    block.drop_channels.register_forward_hook(lambda module, given, found: seen.append((given[0], found)))
    torch.manual_seed(0)
    for _ in range(40):
        block(torch.randn(3, 5, 8, dtype=torch.float64))
    rates = []
    for branch, dropped in seen:
        kept = (dropped != 0).all(1)  # (B, C)
        assert torch.equal(kept, (dropped != 0).any(1))
        torch.testing.assert_close(dropped, branch * kept[:, None] / 0.6)
        rates.append(1 - kept.double().mean())
    assert torch.stack(rates).mean().item() == pytest.approx(0.4, abs=0.06)
    x = draw(4, 9)
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), build(norm="rms").eval()(x))


@pytest.mark.parametrize("options", [{"mixing_dropout": 0.4}, {"position_dropout": 0.4}], ids=str)
def test_padding_changes_nothing_though_channels_or_offsets_are_dropped(options):
    """Neither is drawn by position: unlike `dropout`, equal and not in distribution alone."""
    x, mask = draw(2, 12), torch.ones(2, 12, dtype=torch.bool)
    mask[:, 8:] = False
    found = []
    for rows, real in ((x, mask), (x[:, :8], None)):
        model = build(**options).train()
        torch.manual_seed(3)
        found.append(model(rows, real))
    torch.testing.assert_close(*found)


AS_BEFORE = {"ff": "gelu", "layer_scale": None, "query_bias": None, "mixing_dropout": 0.0, "position_dropout": 0.0}


def test_what_helps_to_learn_is_off_unless_asked_for():
    model = build(depth=1)
    parts = {name.removeprefix("blocks.0.") for name in model.state_dict() if name.startswith("blocks.")}
    batch = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {f"mixing.layer.{norm}.{part}" for norm in ("norm_query", "norm_value") for part in batch}
    expected |= {"mixing.layer.project.weight", "mixing.layer.position.weight", "mixing.out.weight", "mixing.out.bias"}
    expected |= {f"mixing.norm.{part}" for part in batch}
    expected |= {f"{norm}.{part}" for norm in ("norm1", "norm2") for part in ("weight", "bias")}
    expected |= {f"feed_forward.{linear}.{part}" for linear in ("inner", "out") for part in ("weight", "bias")}
    assert parts == expected
    x, found = draw(2, 9), []
    for options in ({}, AS_BEFORE):
        model = build(**options).train()
        torch.manual_seed(5)
        found.append(model(x))
    assert torch.equal(*found)


def weights_of_all(shared):
    """The state dict of the same network whose blocks have a mixing each, all alike."""
    weights = dict(shared.state_dict())
    for name, tensor in shared.state_dict().items():
        if name.startswith("blocks.0.mixing."):
            weights |= {name.replace(".0.", f".{block}.", 1): tensor for block in range(1, len(shared.blocks))}
    return weights


def test_shared_blocks_have_one_mixing():
    shared, apart = build(share_blocks=True, depth=3), build(depth=3, norm="rms", block_norm="layer")
    apart.load_state_dict(weights_of_all(shared))  # strictly: nothing is missing, and nothing is there twice
    assert {name.split(".")[1] for name in shared.state_dict() if ".mixing." in name} == {"0"}
    for model in (shared, pickle.loads(pickle.dumps(shared)), copy.deepcopy(shared).float().to("cpu").double()):
        x = draw(3, 9)
        model.zero_grad()
        apart.zero_grad()
        found, expected = model.train()(x), apart.train()(x)
        torch.testing.assert_close(found, expected)
        found.square().sum().backward()
        expected.square().sum().backward()
        theirs = gradients(apart)
        for name, gradient in gradients(model).items():
            if name.startswith("blocks.0.mixing."):
                alike = [theirs[name.replace(".0.", f".{block}.", 1)] for block in range(3)]
                torch.testing.assert_close(gradient, sum(alike))
            else:
                torch.testing.assert_close(gradient, theirs[name])
    changed = copy.deepcopy(shared).eval()
    with torch.no_grad():
        changed.blocks[0].mixing.out.weight.zero_()
    assert not changed.blocks[2].mixing.out.weight.any()  # the copy's own
    assert shared.blocks[2].mixing.out.weight.any()
    groups = [len(group["params"]) for group in param_groups(shared, positions={"lr": 0.1})]
    assert sum(groups) == len(list(shared.parameters()))
    assert groups[2] == 1


def test_shared_blocks_are_saved_once_and_stream(tmp_path):
    torch.manual_seed(0)
    options = {"dim": 8, "depth": 3, "heads": 2, "scope": 5, "share_blocks": True, "layer_scale": 0.5, "ff": "gated"}
    model = LambdaLM(vocab_size=11, query_bias=1.0, **options).eval()
    model.save_pretrained(tmp_path)
    again = from_pretrained(tmp_path)
    tokens = torch.randint(11, (2, 12))
    expected = model(tokens)
    assert torch.equal(again(tokens), expected)
    assert again.blocks[1].mixing is again.blocks[0].mixing
    state, found = again.init_state(2), []
    for piece in tokens.split([1, 4, 1, 6], 1):
        logits, state = again.step(piece, state)
        found.append(logits)
    torch.testing.assert_close(torch.cat(found, 1), expected)

"""Causal modules are causal in training, whatever norm nobody chose; batch norms say that they are not."""

import pickle

import pytest
import torch

from lambda_seq import LambdaEncoder, LambdaLayer1d, create_model
from lambda_seq.layers import MaskedBatchNorm, RMSNorm
from lambda_seq.models.sequence.blocks import Block, LambdaMixing
from lambda_seq.models.sequence.stems import FeatureStem

POSITIONS = {
    "local": {"scope": 4},
    "global table": {"scope": None, "max_length": 12},
    "multiscale": {"scope": None, "position": "multiscale"},
    "exponential": {"scope": None, "position": "exponential"},
    "content": {"position": False},
    "position": {"content": False, "dim_intra": 2},
}
SMALL = {"dim": 8, "depth": 2, "heads": 2, "dim_key": 3, "stem": "features", "in_channels": 3}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def assert_causal(function, x, stride=1):
    """No gradient of any output reaches a later input, while some reaches earlier ones."""
    x = x.clone().requires_grad_()
    outputs = function(x)
    weights = torch.randn(outputs.shape[-1], dtype=x.dtype)  # of an output that a norm does not hold constant
    for place in range(outputs.shape[1]):
        (gradient,) = torch.autograd.grad((outputs[:, place] @ weights).sum(), x, retain_graph=True)
        assert not gradient[:, stride * place + 1 :].any(), place
        assert gradient[:, stride * place].any(), place


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("norm", [None, "rms", "layer", "none"])
@pytest.mark.parametrize("key_norm", ["softmax", "l2", "none"])
def test_a_causal_layer_in_training(position, norm, key_norm):
    layer = LambdaLayer1d(8, heads=2, causal=True, norm=norm, key_norm=key_norm, **POSITIONS[position]).double()
    mask = torch.rand(2, 12) > 0.2
    x = torch.randn(2, 12, 8, dtype=torch.float64)
    assert_causal(layer.train(), x)
    assert_causal(lambda x: layer(x, mask) + x, x)


@pytest.mark.parametrize(("algorithm", "most"), [("fft", 1e-6), ("banded", 0.0), ("dense", 0.0), ("toeplitz", 0.0)])
def test_algorithms_on_long_sequences(algorithm, most):
    layer = LambdaLayer1d(8, heads=2, causal=True, scope=None, max_length=600, algorithm=algorithm).train()
    x = torch.randn(1, 600, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x)[:, 300].sum(), x)
    assert gradient[:, 301:].abs().max() <= most * gradient.abs().max()  # a transform rounds all positions alike


@pytest.mark.parametrize("position", [name for name in POSITIONS if name != "position"])
@pytest.mark.parametrize("strides", [None, (2,), (1, 3)])
def test_a_causal_encoder_in_training(position, strides):
    model = LambdaEncoder(**{**SMALL, "causal": True, "strides": strides, **POSITIONS[position]}).double().train()
    x = torch.randn(2, 12, 3, dtype=torch.float64)
    assert_causal(lambda x: model.features(x)[0], x, model.stem.stride)


def test_a_mixing_behind_a_causal_layer():
    mixing = LambdaMixing(LambdaLayer1d(8, heads=2, scope=3, causal=True)).double().train()
    assert isinstance(mixing.norm, RMSNorm)
    assert_causal(mixing, torch.randn(2, 7, 8, dtype=torch.float64))
    assert isinstance(LambdaMixing(LambdaLayer1d(8, heads=2)).norm, MaskedBatchNorm)


def test_layers_that_are_not_causal_keep_batch_norms():
    assert isinstance(LambdaLayer1d(8).norm_query, MaskedBatchNorm)
    assert isinstance(create_model("lambda_encoder_tiny").blocks[0].mixing.norm, MaskedBatchNorm)


@pytest.mark.parametrize(
    "build",
    [
        lambda: LambdaLayer1d(8, causal=True, norm="batch"),
        lambda: LambdaMixing(LambdaLayer1d(8, causal=True), "batch"),
        lambda: Block(LambdaMixing(LambdaLayer1d(8, causal=True)), 8, norm="batch"),
        lambda: FeatureStem(8, 3, strides=(2,), norm="batch", causal=True),
        lambda: LambdaEncoder(**SMALL, causal=True, norm="batch", block_norm="layer"),
        lambda: LambdaEncoder(**SMALL, causal=True, block_norm="batch"),
    ],
)
def test_batch_norms_that_were_asked_for_are_told_of(build):
    with pytest.warns(UserWarning, match=r"norm='batch' \(or block_norm\) with causal=True: in training, batch stat"):
        build()


# Weights from before, when "batch" was the default of causal layers too


def older(build):
    with pytest.warns(UserWarning, match="with causal=True"):
        model = build("batch")
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return model.double().eval()


KEPT = r"the weights are of causal layers with batch norms, once their default, which are kept: .*'rms'"


@pytest.mark.parametrize(
    "build",
    [
        lambda norm: LambdaLayer1d(8, causal=True, norm=norm),
        lambda norm: LambdaMixing(LambdaLayer1d(8, causal=True, norm=norm), norm),
        lambda norm: torch.nn.Sequential(torch.nn.Identity(), LambdaLayer1d(8, causal=True, norm=norm)),
    ],
)
def test_weights_of_batch_norms_load_into_default_layers(build):
    before = older(build)
    layer = pickle.loads(pickle.dumps(build(None))).double().eval()
    with pytest.warns(UserWarning, match=KEPT):
        layer.load_state_dict(before.state_dict())
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    assert torch.equal(layer(x), before(x))
    layer.load_state_dict(before.state_dict())  # which is nothing new to it


def test_weights_of_batch_norms_do_not_load_into_chosen_norms():
    before = older(lambda norm: LambdaLayer1d(8, causal=True, norm=norm))
    with pytest.raises(RuntimeError, match=r"Unexpected key.*norm_query.running_mean"):
        LambdaLayer1d(8, causal=True, norm="rms").load_state_dict(before.state_dict())


@pytest.mark.filterwarnings("ignore:norm='batch'")
def test_a_folder_from_before_loads_and_can_be_saved_again(tmp_path):
    before = older(lambda norm: create_model("lambda_encoder_tiny", causal=True, norm=norm, block_norm="layer"))
    before.options.pop("norm")  # as it was written when it was the default
    x = torch.randint(257, (2, 9))
    for name in ("first", "second"):
        before.save_pretrained(tmp_path / name)
        with pytest.warns(UserWarning, match=KEPT):
            loaded = LambdaEncoder.from_pretrained(tmp_path / name)
        assert torch.equal(loaded(x), before(x))
        before = loaded

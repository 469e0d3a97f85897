"""The layer of pip's lambda-networks: golden outputs everywhere, and the package itself where it is installed.

`golden.json` was made by `python tests/interop/interop_peers.py golden`, with the versions that it names.
"""

import importlib.util
import json
import sys

import interop_peers as peers
import pytest
import torch
from torch import nn

from lambda_seq import LambdaLayer1d, LambdaLayer2d
from lambda_seq.interop import lambda_networks
from lambda_seq.layers.biased import BiasedLambdaLayer2d

GOLDEN = json.loads(peers.GOLDEN.read_text())["lambda_networks"]
installed = pytest.mark.skipif(
    importlib.util.find_spec("lambda_networks") is None,
    reason="lambda-networks is not installed: pip install lambda-networks",
)
quiet = pytest.mark.filterwarnings("ignore:torch.meshgrid")  # when the package makes a global layer


def golden_layer(name):
    """Our layer with the formula's weights of theirs."""
    options, shape = peers.LAMBDA_NETWORKS_LAYERS[name]
    size = options.get("n")
    kind = LambdaLayer2d if size else BiasedLambdaLayer2d
    layer = kind(
        options["dim"],
        options.get("dim_out"),
        heads=options["heads"],
        dim_key=options["dim_k"],
        dim_intra=options.get("dim_u", 1),
        scope=options.get("r"),
        max_size=(size, size) if size else None,
    ).double()
    weights = peers.formula(lambda_networks.export_state_dict(layer))
    layer.load_state_dict(lambda_networks.convert_state_dict(weights))
    return layer, shape


@pytest.mark.parametrize("name", GOLDEN)
def test_layers_have_its_outputs(name):
    layer, shape = golden_layer(name)
    for mode, expected in GOLDEN[name].items():
        found = peers.shown(layer.train(mode == "train")(peers.picture(shape)))
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", GOLDEN)
def test_layers_go_back(name):
    layer, _ = golden_layer(name)
    weights = lambda_networks.export_state_dict(layer)
    for entry, tensor in lambda_networks.convert_state_dict(weights).items():
        assert torch.equal(tensor, layer.state_dict()[entry])


# The package itself


@installed
@quiet
def test_both_ways_against_the_package():
    found = peers.compare_layers(lambda_networks, peers.lambda_networks_layer, peers.LAMBDA_NETWORKS_LAYERS)
    assert len(found) == 16
    for what, distance in found.items():
        assert distance < 1e-5, what


@installed
@quiet
@pytest.mark.parametrize("name", peers.LAMBDA_NETWORKS_LAYERS)
def test_gradients_and_statistics_against_the_package(name):
    options, shape = peers.LAMBDA_NETWORKS_LAYERS[name]
    torch.manual_seed(0)
    theirs = peers.random_statistics(peers.lambda_networks_layer(**options)).double()
    ours = lambda_networks.convert_layer(theirs)
    assert next(ours.parameters()).dtype == torch.float64
    x = torch.randn(shape, dtype=torch.float64)
    for layer in (ours, theirs):
        layer(x).square().sum().backward()
    grads = {weight: parameter.grad for weight, parameter in theirs.named_parameters()}
    grads = lambda_networks.convert_state_dict(theirs.state_dict() | grads)
    for weight, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, grads[weight], rtol=1e-9, atol=1e-9)
    for weight, statistic in lambda_networks.convert_state_dict(theirs.state_dict()).items():
        if "running" in weight:
            torch.testing.assert_close(ours.state_dict()[weight], statistic, rtol=1e-12, atol=1e-12)


@installed
def test_constants_of_norms_and_the_mode_go_along():
    theirs = peers.lambda_networks_layer(dim=8, dim_k=4, r=3).eval()
    theirs.norm_q.eps, theirs.norm_v.momentum = 1e-2, 0.3
    ours = lambda_networks.convert_layer(theirs)
    back = lambda_networks.export_layer(ours)
    for layer, query, value in ((ours, "norm_query", "norm_value"), (back, "norm_q", "norm_v")):
        assert getattr(layer, query).eps == 1e-2
        assert getattr(layer, value).momentum == 0.3
        assert not layer.training


@installed
def test_a_layer_of_any_size_serves_where_the_package_takes_one():
    layer, _ = golden_layer("global")
    assert layer(torch.randn(2, 8, 3, 5).double()).shape == (2, 8, 3, 5)


# Refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"to_q.weight": None}, r"no layer of lambda-networks: to_q\.weight is missing"),
        ({"qkv.weight": torch.ones(1)}, r"qkv\.weight is unknown"),
        ({"pos_conv.bias": None}, r"pos_conv\.bias is missing"),
        (
            {"pos_emb": torch.ones(4, 4, 2, 1)},
            r"pos_emb is an embedding for each pair of positions, shape \(4, 4, 2, 1\)",
        ),
        ({"to_k.weight": torch.ones(3, 8)}, r"to_k\.weight has shape \(3, 8\): expected 4 dimensions"),
        ({"to_k.weight": torch.ones(3, 8, 1, 1)}, r"shapes of the keys do not fit: queries \(16, 8\), keys \(3, 8\)"),
        ({"norm_v.bias": torch.ones(3)}, r"shapes of the norms of values do not fit"),
        ({"pos_conv.weight": torch.ones(4, 1, 1, 2, 2)}, r"shapes of the position table do not fit"),
    ],
)
def test_weights_of_something_else(change, message):
    weights = lambda_networks.export_state_dict(LambdaLayer2d(8, dim_key=4, scope=3)) | change
    with pytest.raises(ValueError, match=message):
        lambda_networks.convert_state_dict({name: tensor for name, tensor in weights.items() if tensor is not None})


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        (lambda: LambdaLayer1d(8, scope=3), TypeError, "layer is LambdaLayer1d: expected a LambdaLayer2d"),
        (lambda: nn.Linear(1, 1), TypeError, "layer is Linear: expected a LambdaLayer2d"),
        (lambda: LambdaLayer2d(8, scope=(3, 1)), ValueError, "position table of 3 × 1 offsets: .* square ones only"),
        (lambda: LambdaLayer2d(8, scope=None, max_size=(3, 4)), ValueError, "5 × 7 offsets: .* square ones only"),
        (lambda: LambdaLayer2d(8, scope=3, query_norm="softmax"), ValueError, "query_norm='none' only"),
        (lambda: LambdaLayer2d(8, position="exponential", scope=None), ValueError, "has a ExponentialPosition"),
    ],
)
def test_layers_that_the_package_has_not(layer, error, message):
    with pytest.raises(error, match=message):
        lambda_networks.export_layer(layer())


def test_a_package_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "lambda_networks", None)
    with pytest.raises(
        ImportError, match=r"lambda-networks is not installed, .*: pip install lambda-networks, or take"
    ):
        lambda_networks.export_layer(LambdaLayer2d(8, scope=3))

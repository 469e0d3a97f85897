"""Networks that are allocated without values: every module draws what it would have been constructed with."""

import copy
import pickle

import pytest
import torch
from torch import nn

from lambda_seq import LambdaLayer2d, create_model
from lambda_seq.layers.biased import BiasedLambdaLayer2d
from lambda_seq.models import list_models

SMALL_RESNET = {"width": 16, "num_classes": 5, "stem": "small"}
NETWORKS = {
    "lambda_encoder": {"pool": "attention", "block_norm": "batch"},
    "lambda_encoder_tiny": {"stem": "spectrum", "causal": True, "position": "exponential", "scope": None},
    "lambda_encoder_small": {"stem": "features", "position": "multiscale", "scope": None, "depth": 2},
    "lambda_encoder_base": {
        "stem": "ngrams",
        "buckets": 500,
        "orders": [1, 2, 3],
        "dim": 32,
        "depth": 1,
        "stem_skip": 0.01,
    },
    "lambda_lm": {"query_bias": 1.0},
    "lambda_lm_tiny": {"tie": False, "scope": None, "max_length": 40},
    "lambda_lm_small": {"share_blocks": True, "layer_scale": 0.1, "ff": "gated", "depth": 2},
    "lambda_resnet_tiny": {"se": 0.25, "init": "paper", "query_bias": 1.0},
    "resnet_tiny": {},
    "resnet26_small": {"width": 16, "stem": "imagenet", "zero_init_last": False},
    "resnet50_attention": {**SMALL_RESNET, "blocks": (1, 1), "placement": "GE", "image_size": 32},
    "resnet50_axial": {**SMALL_RESNET, "blocks": (1, 1), "placement": "AS", "image_size": 32},
    "lambda_resnet50": {**SMALL_RESNET, "blocks": (1, 1), "placement": "LK", "stem": "resnet_d", "dim_intra": 2},
    "lambda_resnet26t": {"width": 16},
    "lambda_resnet26rpt_256": {"width": 16, "image_size": 64},
}


def emptied(build):
    """A network from the meta device, NaN everywhere, reset module by module, parents first."""
    with torch.device("meta"):
        model = build()
    model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(float("nan") if tensor.is_floating_point() else -1)
    torch.manual_seed(1)
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return model


def assert_alike(found, fresh):
    for (name, tensor), expected in zip(found.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert tensor.isfinite().all(), name
        if not tensor.is_floating_point() or expected.numel() < 2 or expected.std() == 0:
            assert torch.equal(tensor, expected), name
            continue
        if expected.numel() > 30:  # of fewer there is not much to say
            error = 6 / expected.numel() ** 0.5  # standard errors of a mean, and more than of a deviation
            assert (tensor.mean() - expected.mean()).abs() <= 1.5 * error * expected.std(), name
            assert (tensor.std() / expected.std()).log().abs() <= error, name


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_was_empty_is_as_a_fresh_one(name):
    torch.manual_seed(0)
    fresh = create_model(name, **NETWORKS[name])
    model = emptied(lambda: create_model(name, **NETWORKS[name]))
    assert_alike(model, fresh)
    for part in copy.deepcopy(model), pickle.loads(pickle.dumps(model)):  # which reset their own weights
        part.load_state_dict(fresh.state_dict())
        for module in part.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        assert_alike(part, fresh)
        assert_alike(model, fresh)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*list_models("lambda_*"), *list_models("resnet*")])  # those of examples are not ours
def test_all_networks_of_the_registry(name):
    options = {"width": 16} if "resnet" in name and "tiny" not in name else {}
    options |= {"image_size": 64} if "256" in name or "global" in name or "att" in name or "axial" in name else {}
    torch.manual_seed(0)
    assert_alike(emptied(lambda: create_model(name, **options)), create_model(name, **options))


@pytest.mark.parametrize("build", [lambda: BiasedLambdaLayer2d(32, scope=5), lambda: LambdaLayer2d(32, scope=5)])
def test_layers_alone(build):
    torch.manual_seed(0)
    assert_alike(emptied(build), build())


def test_shared_weights_stay_shared():
    model = emptied(lambda: create_model("lambda_lm_tiny"))
    assert model.head.weight is model.stem.embedding.weight
    assert len(list(model.parameters())) == len(list(create_model("lambda_lm_tiny").parameters()))
    model = model.to("meta").to_empty(device="cpu")
    assert model.head.weight is model.stem.embedding.weight
    free = emptied(lambda: create_model("lambda_lm_tiny", tie=False))
    assert free.head.weight is not free.stem.embedding.weight
    with torch.device("meta"):
        inner = nn.Sequential(create_model("lambda_lm_tiny"))
    inner.to_empty(device="cpu")
    assert inner[0].head.weight is inner[0].stem.embedding.weight
    shared = emptied(lambda: create_model("lambda_resnet_tiny", blocks=(2, 2), share_positions=True))
    tables = [block.mix.layer.position for block in shared.stages[1]]
    assert tables[0] is tables[1]

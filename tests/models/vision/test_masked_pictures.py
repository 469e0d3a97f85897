"""Pictures that are padded in a batch give what they give alone."""

import pytest
import torch

from lambda_seq import create_model
from lambda_seq.models import LambdaResNet

TINY = {"blocks": (1, 1, 1, 1), "width": 8, "scope": 3, "dim_key": 4, "zero_init_last": False}
TIERED = {"blocks": (1, 1, 1, 1), "width": 8, "scope": 3, "placement": ("C", "C", "L", "L"), "zero_init_last": False}
SIZES = [(45, 38), (64, 21), (7, 64), (1, 3)]
NETWORKS = {
    "lambda": ("lambda_resnet50", TINY),
    "resnet_d": ("lambda_resnet50", {**TINY, "stem": "resnet_d", "placement": "CLKL", "se": 0.25}),
    "small": ("lambda_resnet50", {**TINY, "stem": "small", "blocks": (1, 1, 1), "placement": "CLL"}),
    "global": ("lambda_resnet50", {**TINY, "scope": None, "image_size": 64, "placement": "CCLL"}),
    "tiered": ("lambda_resnet26t", TIERED),
    "silu": ("lambda_resnet50ts", {**TIERED, "placement": ("L", "C", "L", "C")}),
}


def build(name, **options):
    torch.manual_seed(0)
    named, given = NETWORKS[name]
    model = create_model(named, **{**given, "features_only": True, **options}).double()
    for module in model.modules():  # running statistics and biases that padding would show
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.bias.data.normal_()
    return model.eval()


def padded(size=(64, 64), fill=float("nan")):
    """Pictures of SIZES alone, and in one batch with its mask."""
    torch.manual_seed(1)
    alone = [torch.randn(1, 3, *one, dtype=torch.float64) for one in SIZES]
    batch = torch.full((len(SIZES), 3, *size), fill, dtype=torch.float64)
    mask = torch.zeros(len(SIZES), *size, dtype=torch.bool)
    for row, x in enumerate(alone):
        batch[row, :, : x.shape[2], : x.shape[3]] = x[0]
        mask[row, : x.shape[2], : x.shape[3]] = True
    return alone, batch, mask


@pytest.mark.parametrize("name", NETWORKS)
def test_features_in_a_batch_are_those_alone(name):
    model, (alone, batch, mask) = build(name), padded()
    together = model(batch, mask)
    for row, x in enumerate(alone):
        for found, expected in zip(together, model(x), strict=True):
            height, width = expected.shape[2:]
            assert (found[row, :, :height, :width] - expected[0]).abs().max() < 1e-9
            assert not found[row, :, height:].any()
            assert not found[row, :, :, width:].any()


def test_without_the_mask_they_are_not():
    model, (alone, batch, _) = build("lambda"), padded(fill=0.0)
    expected = model(alone[0])[0]
    assert (model(batch)[0][0, :, : expected.shape[2], : expected.shape[3]] - expected[0]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["lambda", "resnet_d", "tiered"])
def test_training_statistics_and_gradients_count_real_pixels(name):
    networks = [build(name).train() for _ in range(2)]
    for model, size in zip(networks, ((64, 64), (96, 128)), strict=True):
        _, batch, mask = padded(size)
        sum(map(torch.sum, (found.square() for found in model(batch, mask)))).backward()
    for (key, one), other in zip(networks[0].named_parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-8, atol=1e-8, msg=key)
    for one, other in zip(networks[0].buffers(), networks[1].buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_mask_of_all_pixels_changes_nothing_in_training():
    (one, other), x = (build("resnet_d").train() for _ in range(2)), torch.randn(3, 3, 40, 33, dtype=torch.float64)
    for found, expected in zip(one(x, torch.ones(3, 40, 33, dtype=torch.bool)), other(x), strict=True):
        torch.testing.assert_close(found, expected)
    for found, expected in zip(one.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["resnet_d", "silu"])
def test_logits_in_a_batch_are_those_alone(name):
    model, (alone, batch, mask) = build(name, features_only=False, num_classes=5), padded()
    together = model(batch, mask)
    for row, x in enumerate(alone):
        torch.testing.assert_close(together[row : row + 1], model(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["lambda", "tiered"])
def test_feature_info_as_of_timm(name):
    model = build(name, out_indices=(1, 3))
    assert model.feature_info.channels() == model.channels == [64, 256]
    assert model.feature_info.reduction() == model.strides == [8, 32]
    assert model.feature_info.channels(-1) == 256
    assert model.feature_info.reduction([0]) == [8]
    assert model.feature_info.module_name() == ["stages.1", "stages.3"]
    assert model.feature_info.out_indices == (1, 3)
    assert model.feature_info[0]["num_chs"] == 64
    assert model.feature_info.get_dicts(["reduction"]) == [{"reduction": 8}, {"reduction": 32}]
    maps = model(torch.randn(1, 3, 64, 96, dtype=torch.float64))
    assert [tuple(found.shape[1:]) for found in maps] == [(64, 8, 12), (256, 2, 3)]


def test_attention_takes_no_mask():
    model = LambdaResNet(**{**TINY, "placement": "CCEE"}, features_only=True)
    with pytest.raises(ValueError, match="mask: LinearAttention takes none; use lambda layers or convolutions"):
        model(torch.zeros(1, 3, 32, 32), torch.ones(1, 32, 32, dtype=torch.bool))


def test_bad_masks():
    model = build("lambda").float()
    with pytest.raises(ValueError, match="mask"):
        model(torch.zeros(1, 3, 32, 32), torch.ones(1, 8, 8, dtype=torch.bool))
    with pytest.raises(TypeError, match="mask"):
        model(torch.zeros(1, 3, 32, 32), torch.ones(1, 32, 32))

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lambda_seq.models import LambdaResNet, create_model
from lambda_seq.models.vision.bottleneck import Bottleneck, Convolution, Lambda, SqueezeExcitation
from lambda_seq.models.vision.resnet import parse_placement

SMALL = {"blocks": (1, 2), "width": 8, "stem": "small", "num_classes": 5, "in_channels": 2, "scope": 3, "dim_key": 4}


def build(**options):
    torch.manual_seed(0)
    return LambdaResNet(**{**SMALL, **options})


@pytest.mark.parametrize("stem", ["imagenet", "resnet_d", "small"])
@pytest.mark.parametrize("size", [(1, 1), (7, 10), (33, 9)])
def test_any_size(stem, size):
    model = build(stem=stem).eval()
    x = torch.randn(2, 2, *size, requires_grad=True)
    logits = model(x)
    logits.square().sum().backward()
    assert logits.shape == (2, 5)
    assert torch.isfinite(x.grad).all()
    stride = 2 if stem == "small" else 8
    assert model.features(x).shape == (2, 4 * 16, -(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.parametrize("count", [1, 3])
def test_training_at_small_batches(count):
    model = build().train()
    model(torch.randn(count, 2, 9, 5)).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"placement": "C"},
        {"placement": "CL"},
        {"content": False},
        {"position": False},
        {"dim_intra": 2},
        {"scope": None, "image_size": (9, 5)},
        {"key_norm": "l2"},
        {"query_norm": "softmax", "norm": "none"},
        {"stem": "resnet_d", "se": (0.25, 0)},
    ],
    ids=str,
)
def test_every_parameter_learns(options):
    model = build(zero_init_last=False, **options)
    model(torch.randn(4, 2, 9, 5)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_switched_off_parts_own_nothing():
    whole, content, position = (
        {name: parameter.numel() for name, parameter in build(**options).named_parameters()}
        for options in ({}, {"position": False}, {"content": False})
    )
    assert not any("position" in name for name in content)
    projections = [name for name in position if "project" in name]
    assert projections
    assert all(position[name] < whole[name] for name in projections)  # no keys


def test_blocks_start_as_the_identity():
    block = build().stages[1][1]
    x = torch.randn(2, 64, 4, 4).relu()
    torch.testing.assert_close(block.train()(x), x)
    block = build(zero_init_last=False).stages[1][1]
    assert not torch.allclose(block.train()(x), x)


def test_permuting_the_batch_permutes_the_output():
    model, x, order = build().eval(), torch.randn(4, 2, 7, 6), [2, 0, 3, 1]
    torch.testing.assert_close(model(x)[order], model(x[order]))


def test_a_lambda_with_stride_runs_at_full_resolution_and_averages_real_pixels():
    class Ones(nn.Module):
        def forward(self, x):
            assert x.shape[2:] == (5, 6)
            return torch.ones_like(x)

    out = Lambda(Ones(), 2)(torch.randn(1, 3, 5, 6))
    torch.testing.assert_close(out, torch.ones(1, 3, 3, 3))


def test_stride_sits_on_the_mixer():
    model = build(placement="CC")
    first = model.stages[1][0]
    assert first.conv1.stride == (1, 1)
    assert first.mix.stride == (2, 2)
    assert first.mix.kernel_size == (3, 3)
    assert all(block.mix.stride == (1, 1) for block in (model.stages[0][0], model.stages[1][1]))


def test_squeeze_excitation_scales_channels():
    module = SqueezeExcitation(8, 0.25)
    assert module.squeeze.out_features == 2
    x = torch.randn(3, 8, 4, 5)
    scale = module(x) / x
    torch.testing.assert_close(scale, scale[:, :, :1, :1].expand_as(scale))
    assert ((scale > 0) & (scale < 1)).all()


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.data())
def test_placement_by_blocks(blocks, data):
    entries = [data.draw(st.text("CL", min_size=count, max_size=count)) for count in blocks]
    if len(entries) > 1:
        assert parse_placement(entries, blocks) == entries
    letters = "".join(entry[0] for entry in entries)
    expected = [letter * count for letter, count in zip(letters, blocks, strict=True)]
    assert parse_placement(letters, blocks) == expected
    assert parse_placement(list(letters), blocks) == expected
    assert parse_placement("L", blocks) == ["L" * count for count in blocks]


def test_placement_chooses_the_mixers():
    model = build(blocks=(1, 3), placement=["C", "LCL"])
    mixers = [type(block.mix) for stage in model.stages for block in stage]
    assert mixers == [Convolution, Lambda, Convolution, Lambda]


def test_global_tables_fit_each_stage():
    model = build(blocks=(1, 1, 1), stem="imagenet", scope=None, image_size=(33, 18))
    sizes = [stage[0].mix.layer.position.max_size for stage in model.stages]
    # A lambda runs in front of its stage's stride.
    assert sizes == [(9, 5), (9, 5), (5, 3)]
    assert model.eval()(torch.randn(1, 2, 33, 18)).shape == (1, 5)
    with pytest.raises(ValueError, match=r"x has size \(10, 5\) but the global position table covers \(9, 5\)"):
        model(torch.randn(1, 2, 37, 18))


def test_stochastic_depth_grows_and_dropout_drops():
    model = build(blocks=(1, 2), stochastic_depth=0.2, dropout=0.5)
    rates = [module.drop.rate for module in model.modules() if isinstance(module, Bottleneck)]
    assert rates == pytest.approx([0, 0.1, 0.2])
    torch.manual_seed(0)
    model.train()
    assert (model.dropout(torch.ones(1000)) == 0).float().mean().item() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"placement": "LLL"}, r"placement='LLL' has 3 entries: expected 1, or one for each of the 2 stages"),
        ({"placement": "LX"}, r"placement='LX', stage 1: 'X': expected letters out of 'C' \(convolution\), 'L'"),
        (
            {"placement": ["C", "CLL"]},
            r"placement=\['C', 'CLL'\], stage 1: 'CLL' has 3 letters: expected 1, or .* 2 bl",
        ),
        ({"placement": ""}, r"placement='' has 0 entries"),
        ({"blocks": ()}, r"blocks=\(\): expected at least one stage"),
        ({"blocks": (1, 0)}, r"blocks=\(1, 0\): expected at least one stage, and one block in each"),
        ({"stem": "big"}, r"stem='big': expected one of 'imagenet', 'resnet_d', 'small'"),
        ({"heads": 3}, r"heads=3 does not divide dim_out=8: expected a divisor"),
        ({"scope": 4}, r"scope=\(4, 4\): expected an odd number of positions"),
        ({"scope": (3, 3, 3)}, r"scope=\(3, 3, 3\): expected an int or a pair"),
        ({"scope": None}, r"scope=None is global and its tables need the largest picture: give image_size=\(H, W\)"),
        ({"num_classes": 0}, r"num_classes=0: expected at least 1"),
        ({"se": (0.5,)}, r"se=\(0.5,\): expected a ratio from 0 to 1, or one for each of the 2 stages"),
        ({"se": 16}, r"se=16: expected a ratio from 0 to 1"),
        ({"dropout": 1.0}, r"dropout=1.0: expected a rate of at least 0 and below 1"),
        ({"stochastic_depth": -0.1}, r"stochastic_depth=-0.1: expected a rate"),
        ({"key_norm": "soft"}, r"key_norm='soft': expected one of 'softmax'"),
    ],
    ids=str,
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(2, 8, 8), ValueError, r"x has shape \(2, 8, 8\): expected pictures \(B, C, H, W\)"),
        (torch.zeros(1, 3, 8, 8), ValueError, r"x has shape \(1, 3, 8, 8\): .* C = in_channels=2"),
        (torch.zeros(1, 2, 8, 8, dtype=torch.uint8), TypeError, r"x is torch.uint8: .* use x.float\(\)"),
        ([[1.0]], TypeError, r"x is list: expected a floating point tensor"),
    ],
    ids=["rank", "channels", "dtype", "type"],
)
def test_bad_input(x, error, message):
    with pytest.raises(error, match=message):
        build()(x)


def test_created_by_name_with_the_options_of_a_task():
    model = create_model(
        "lambda_resnet50",
        num_classes=10,
        in_channels=1,
        stem="small",
        placement="CL",
        width=8,
        blocks=(1, 1),
        heads=2,
        scope=5,
    )
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    assert (model.num_classes, model.input_kind) == (10, "image")


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_bfloat16_autocast_and_channels_last(memory_format):
    model, x = build().train(), torch.randn(4, 2, 9, 5)
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.to(memory_format=memory_format)(x.to(memory_format=memory_format))
    logits.float().square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.1)

"""The layer with a bias and the networks of timm, as networks of ours."""

import pytest
import torch
from torch import nn

from lambda_seq import LambdaLayer2d, create_model, from_pretrained
from lambda_seq.layers.biased import BiasedLambdaLayer2d
from lambda_seq.models import TieredLambdaResNet, count_flops
from lambda_seq.models.vision.bottleneck import Lambda

SMALL = {"blocks": (1, 2), "placement": ("C", "CL"), "width": 8, "num_classes": 5, "in_channels": 2, "scope": 3}


def build(**options):
    torch.manual_seed(0)
    return TieredLambdaResNet(**{**SMALL, **options})


def biased(**options):
    torch.manual_seed(0)
    layer = BiasedLambdaLayer2d(8, dim_key=4, scope=3, **options).double()
    nn.init.normal_(layer.position_bias)
    return layer


# The layer


def test_the_bias_is_added_to_the_position_lambdas():
    layer = biased(heads=2, dim_out=6)
    plain = LambdaLayer2d(8, 6, heads=2, dim_key=4, scope=3).double()
    plain.load_state_dict(layer.state_dict(), strict=False)
    x = torch.randn(2, 8, 4, 5).double()
    kept = []
    plain.norm_query.register_forward_hook(lambda module, given, output: kept.append(output))
    expected = plain(x)
    query = kept[0].unflatten(-1, (2, 4))  # (B, H, W, heads, K)
    added = torch.einsum("bhwnk,k->bnhw", query, layer.position_bias)[:, :, None].expand(2, 2, 3, 4, 5).flatten(1, 2)
    torch.testing.assert_close(layer(x), expected + added, rtol=1e-12, atol=1e-12)


def test_without_a_bias_it_is_the_layer():
    layer, plain = BiasedLambdaLayer2d(8, scope=3), LambdaLayer2d(8, scope=3)
    plain.load_state_dict({name: tensor for name, tensor in layer.state_dict().items() if name != "position_bias"})
    x = torch.randn(2, 8, 4, 5)
    assert torch.equal(layer(x), plain(x))


def test_padding_changes_nothing():
    layer = biased()
    x = torch.randn(2, 8, 4, 5).double()
    wide = nn.functional.pad(x, (0, 2, 0, 1), value=9.0)
    mask = torch.zeros(2, 5, 7, dtype=torch.bool)
    mask[:, :4, :5] = True
    torch.testing.assert_close(layer(wide, mask)[:, :, :4, :5], layer(x), rtol=1e-10, atol=1e-10)
    mask[1] = False
    assert not layer(wide, mask)[1].any()
    assert layer(wide, mask)[0].any()


def test_gradients():
    layer = biased().eval()
    for module in layer.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.bias)
            nn.init.uniform_(module.running_var, 0.5, 2)
    x = torch.randn(1, 8, 3, 2).double().requires_grad_()
    torch.autograd.gradcheck(
        lambda x, bias: torch.func.functional_call(layer, {"position_bias": bias}, x),
        (x, layer.position_bias.detach().requires_grad_()),
    )


def test_errors_are_those_of_the_layer():
    with pytest.raises(ValueError, match=r"x has shape \(2, 7, 4, 5\): expected \(B, dim, H, W\) with dim=8"):
        biased()(torch.randn(2, 7, 4, 5))
    with pytest.raises(ValueError, match=r"x has shape \(2, 8, 4\): expected \(B, dim, H, W\)"):
        biased()(torch.randn(2, 8, 4))
    with pytest.raises(TypeError, match=r"mask is torch\.float32"):
        biased()(torch.randn(2, 8, 4, 5), torch.ones(2, 4, 5))


# Networks


@pytest.mark.parametrize("size", [(1, 1), (33, 9), (64, 48)])
@pytest.mark.parametrize(
    "options", [{}, {"scope": None, "image_size": 64, "activation": "silu"}], ids=["local", "global"]
)
def test_any_size(size, options):
    model = build(placement="L", **options).eval()
    x = torch.randn(2, 2, *size, requires_grad=True)
    logits = model(x)
    logits.square().sum().backward()
    assert logits.shape == (2, 5)
    assert x.grad.isfinite().all()
    assert model.features(x).shape == (2, 64, -(-size[0] // 8), -(-size[1] // 8))


@pytest.mark.parametrize("options", [{}, {"activation": "silu"}, {"scope": None, "image_size": (32, 16)}], ids=str)
def test_every_parameter_learns(options):
    model = build(zero_init_last=False, stochastic_depth=0.1, **options)
    model(torch.randn(8, 2, 32, 16)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_a_stride_is_a_mean_of_four_behind_the_lambda():
    model = build(placement="L")
    mixers = [module for module in model.modules() if isinstance(module, Lambda)]
    x = torch.randn(1, 16, 4, 6)
    y = mixers[1](x)
    torch.testing.assert_close(y, mixers[1].layer(x).unflatten(-2, (2, 2)).unflatten(-1, (3, 2)).mean((-3, -1)))
    assert mixers[0](x[:, :8]).shape == (1, 8, 4, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes=0: expected at least 1"),
        ({"width": 12}, "width=12: expected a multiple of 8"),
        ({"activation": "gelu"}, "activation='gelu': expected one of 'relu', 'silu'"),
        ({"dropout": 1.0}, "dropout=1.0: expected a rate"),
        ({"placement": "CLL"}, r"placement='CLL' has 3 entries"),
        ({"scope": None}, r"scope=None is global .*give image_size=\(H, W\)"),
        ({"scope": 4}, "scope=.*expected an odd number"),
        ({"image_size": (3, 4, 5)}, r"image_size=\(3, 4, 5\): expected an int or a pair"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_errors_of_pictures():
    with pytest.raises(ValueError, match=r"x has shape \(1, 3, 8, 8\): expected pictures .*in_channels=2"):
        build()(torch.randn(1, 3, 8, 8))
    with pytest.raises(TypeError, match=r"x is torch\.uint8: expected a floating point tensor"):
        build()(torch.zeros(1, 2, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("name", "giga"), [("lambda_resnet26t", 3.00), ("lambda_resnet26rpt_256", 3.14), ("lambda_resnet50ts", 5.03)]
)
def test_multiply_adds(name, giga):
    """timm's tables say 3.02 and 5.07 at 256² for the first and the last: they count more than products."""
    with torch.device("meta"):
        model = create_model(name)
    assert round(count_flops(model, torch.empty(1, 3, 256, 256, device="meta")) / 2e9, 2) == giga


def test_saving(tmp_path):
    torch.manual_seed(0)
    model = create_model("lambda_resnet50ts", width=8, num_classes=3, zero_init_last=False).eval()
    model.save_pretrained(tmp_path)
    again = from_pretrained(tmp_path)
    x = torch.randn(1, 3, 40, 40)
    assert torch.equal(again(x), model(x))


def test_resizing(tmp_path):
    torch.manual_seed(0)
    model = create_model("lambda_resnet26rpt_256", width=8, num_classes=3, image_size=64, zero_init_last=False).eval()
    x = torch.randn(1, 3, 64, 64)
    before = model(x)
    model.resize(64)
    assert torch.equal(model(x), before)
    model.resize((96, 128))
    assert model(torch.randn(1, 3, 96, 128)).isfinite().all()
    model.save_pretrained(tmp_path)
    assert torch.equal(from_pretrained(tmp_path)(x), model(x))
    fresh = create_model("lambda_resnet26rpt_256", width=8, num_classes=3, image_size=(96, 128))
    assert {name: p.shape for name, p in model.named_parameters()} == {n: p.shape for n, p in fresh.named_parameters()}
    with pytest.raises(TypeError, match="image_size=None"):
        model.resize(None)
    with pytest.raises(ValueError, match="image_size=0"):
        model.resize(0)

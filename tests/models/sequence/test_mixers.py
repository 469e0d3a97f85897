"""The layers of the comparison in one network: every letter, any size, one place where it is chosen."""

import pytest
import torch
from torch import nn

from lambda_seq import from_pretrained
from lambda_seq.layers import LambdaLayer2d, resize_positions
from lambda_seq.layers.attention import AxialAttention, LinearAttention, LocalAttention, RelativeAttention
from lambda_seq.models import LambdaResNet, create_model
from lambda_seq.models.sequence.mixers import MIXERS
from lambda_seq.models.vision.bottleneck import Convolution, Lambda, Pooled

SMALL = {"blocks": (1, 2), "width": 8, "stem": "small", "num_classes": 5, "in_channels": 2, "scope": 3, "dim_key": 4}
ATTENTION = {"attention_heads": 2, "attention_scope": 3, "image_size": (9, 10)}
LAYERS = {
    "L": LambdaLayer2d,
    "K": LambdaLayer2d,
    "E": LinearAttention,
    "G": RelativeAttention,
    "A": AxialAttention,
    "S": LocalAttention,
}


def build(placement, **options):
    torch.manual_seed(0)
    return LambdaResNet(**{**SMALL, **ATTENTION, "placement": placement, **options})


def blocks(model):
    return [block for stage in model.stages for block in stage]


def test_every_letter_has_a_layer():
    assert set(LAYERS) | {"C"} == set(MIXERS)
    for letter, kind in LAYERS.items():
        mixers = [block.mix for block in blocks(build(letter))]
        assert all(isinstance(mixer, Pooled) and isinstance(mixer.layer, kind) for mixer in mixers)
        assert [type(mixer.pool) for mixer in mixers] == [nn.Identity, nn.AvgPool2d, nn.Identity]
    assert all(isinstance(block.mix, Convolution) for block in blocks(build("C")))


@pytest.mark.parametrize("letter", MIXERS)
@pytest.mark.parametrize("size", [(1, 1), (9, 10), (4, 7)])
def test_any_size(letter, size):
    model = build(letter).eval()
    x = torch.randn(2, 2, *size, requires_grad=True)
    model(x).square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert model.features(x).shape == (2, 64, -(-size[0] // 2), -(-size[1] // 2))


@pytest.mark.parametrize("letter", MIXERS)
def test_every_parameter_learns(letter):
    model = build(letter, zero_init_last=False)
    model(torch.randn(4, 2, 9, 10)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("letter", MIXERS)
def test_in_training_under_bfloat16(letter):
    model = build(letter)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(torch.randn(4, 2, 9, 10)).float().square().sum()
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("letter", LAYERS)
def test_a_stride_is_an_average_pool_behind(letter):
    mixer = build(letter, norm="none").stages[1][0].mix.eval()
    x = torch.randn(1, 16, 9, 10)
    expected = nn.functional.avg_pool2d(mixer.layer(x), 3, 2, 1, count_include_pad=False)
    torch.testing.assert_close(mixer(x), expected)


def test_mixers_side_by_side():
    model = build(["C", "GASELKC"], blocks=(1, 7)).eval()
    assert model(torch.randn(1, 2, 9, 10)).shape == (1, 5)
    kinds = [type(getattr(block.mix, "layer", block.mix)) for block in blocks(model)]
    expected = [Convolution, RelativeAttention, AxialAttention, LocalAttention, LinearAttention]
    assert kinds == [*expected, LambdaLayer2d, LambdaLayer2d, Convolution]


def test_the_lambda_convolution_is_a_local_lambda_layer():
    convolution, layer = build("K", scope=9).eval(), build("L", scope=3).eval()
    assert {block.mix.layer.algorithm for block in blocks(convolution)} == {"convolution"}
    layer.load_state_dict(convolution.state_dict())
    x = torch.randn(2, 2, 9, 10)
    torch.testing.assert_close(convolution(x), layer(x), rtol=1e-4, atol=1e-5)


def test_sharing_positions_within_a_stage():
    apart, shared = build("L", blocks=(2, 3)), build("L", blocks=(2, 3), share_positions=True)
    tables = [[id(block.mix.layer.position) for block in stage] for stage in shared.stages]
    assert [len(set(stage)) for stage in tables] == [1, 1]
    assert tables[0][0] != tables[1][0]
    count = [sum(parameter.numel() for parameter in model.parameters()) for model in (apart, shared)]
    assert count[0] - count[1] == 3 * 4 * 3 * 3
    shared.load_state_dict(shared.state_dict())
    shared(torch.randn(2, 2, 9, 10)).sum().backward()
    assert all(parameter.grad is not None for parameter in shared.parameters())


def test_layers_of_different_scope_do_not_share():
    shared = build(["L", "LKLK"], blocks=(1, 4), share_positions=True, attention_scope=5)
    taps = [block.mix.layer.position.taps for block in shared.stages[1]]
    assert taps == [(3, 3), (5, 5), (3, 3), (5, 5)]
    first, second, third, fourth = (block.mix.layer.position for block in shared.stages[1])
    assert first is third
    assert second is fourth
    content = build("L", share_positions=True, position=False)
    assert all(block.mix.layer.position is None for block in blocks(content))


@pytest.mark.parametrize("placement", ["L", "G", "A", ["G", "AL"]], ids=str)
@pytest.mark.parametrize("share", [False, True])
def test_resize(placement, share):
    model = build(placement, scope=None, share_positions=share, image_size=(6, 5)).eval()
    x = torch.randn(1, 2, 9, 10)
    with pytest.raises(ValueError, match="cover"):
        model(x)
    model.resize((9, 10))
    assert model.image_size == (9, 10)
    fresh = build(placement, scope=None, share_positions=share)  # of the size at once
    assert [tuple(p.shape) for p in model.parameters()] == [tuple(p.shape) for p in fresh.parameters()]
    logits = model(x)
    assert torch.isfinite(logits).all()

    small = build(placement, scope=None, share_positions=share, image_size=(6, 5))
    fresh.load_state_dict(resize_positions(small.state_dict(), fresh))
    torch.testing.assert_close(fresh.eval()(x), logits)


@pytest.mark.parametrize("letter", "LGA")
def test_resizing_to_the_same_size_changes_nothing(letter):
    model = build(letter, scope=None).eval()
    x = torch.randn(1, 2, 9, 10)
    before = model(x)
    model.resize((9, 10))
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("letter", "CLKES")
def test_networks_of_local_scope_stay_as_they_are(letter):
    model = build(letter).eval()
    before = [id(parameter) for parameter in model.parameters()]
    model.resize(32)
    assert [id(parameter) for parameter in model.parameters()] == before
    assert model(torch.randn(1, 2, 32, 31)).shape == (1, 5)


def test_a_resized_model_is_saved_with_its_size(tmp_path):
    model = create_model("resnet_tiny", placement="GA", attention_heads=2, image_size=8).eval()
    model.resize((10, 12))
    x = torch.randn(1, 3, 10, 12)
    loaded = from_pretrained(model.save_pretrained(tmp_path / "model"))
    assert loaded.options["image_size"] == [10, 12]
    torch.testing.assert_close(loaded(x), model(x))


@pytest.mark.parametrize(
    ("placement", "options", "message"),
    [
        (
            "X",
            {},
            r"'X': expected letters out of 'C' \(convolution\), 'L' \(lambda layer\), 'K' \(lambda convolution\)",
        ),
        ("G", {"image_size": None}, r"image_size=None with 'G' \(global self-attention\).* give image_size=\(H, W\)"),
        ("CA", {"image_size": None}, r"image_size=None with 'A' \(axial self-attention\)"),
        ("L", {"image_size": None, "scope": None}, r"scope=None is global .* give image_size=\(H, W\), or a local"),
        ("L", {"image_size": 0}, r"image_size=0: expected at least one pixel"),
        ("E", {"attention_heads": 3}, r"heads=3 does not divide dim=8"),
        ("S", {"attention_heads": 8}, r"heads=8 of dim=8 have depth 1: expected an even one"),
        ("S", {"attention_scope": 4}, r"scope=\(4, 4\): expected an odd number of pixels"),
        ("K", {"attention_scope": 4}, r"scope=\(4, 4\): expected an odd number of positions"),
        ("C", {"attention_scope": (1, 2, 3)}, r"attention_scope=\(1, 2, 3\): expected an int or a pair"),
    ],
)
def test_bad_options(placement, options, message):
    with pytest.raises(ValueError, match=message):
        build(placement, **options)


@pytest.mark.parametrize("size", [0, (4, 0), (4, 4, 4)])
def test_no_such_size(size):
    with pytest.raises(ValueError, match="image_size="):
        build("G").resize(size)


def test_the_error_of_a_larger_picture_says_what_to_do():
    with pytest.raises(
        ValueError, match=r"x has size \(12, 12\) but .*max_size=\(9, 10\).*image_size and model.resize"
    ):
        build("G")(torch.zeros(1, 2, 12, 12))


def test_lambda_networks_keep_the_names_of_their_weights():
    names = set(build("CL").state_dict())
    assert {"stages.0.0.mix.weight", "stages.1.0.mix.layer.position.weight", "head.weight"} <= names
    assert isinstance(build("CL").stages[1][0].mix, Lambda)

"""Feature maps for dense prediction."""

import pytest
import torch

from lambda_seq import create_model, from_pretrained
from lambda_seq.models import LambdaResNet

SMALL = {"blocks": (1, 1, 1, 1), "width": 8, "num_classes": 5, "scope": 3, "dim_key": 4}


def build(**options):
    torch.manual_seed(0)
    return LambdaResNet(**{**SMALL, **options}).eval()


@pytest.mark.parametrize("size", [(64, 64), (33, 70), (1, 5)])
@pytest.mark.parametrize("stem", ["imagenet", "resnet_d", "small"])
def test_channels_and_strides(stem, size):
    model = build(features_only=True, stem=stem)
    maps = model(torch.randn(2, 3, *size))
    least = 1 if stem == "small" else 4
    assert model.strides == [least, 2 * least, 4 * least, 8 * least]
    assert model.channels == [32, 64, 128, 256]
    for found, channels, stride in zip(maps, model.channels, model.strides, strict=True):
        assert found.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))


def test_the_registered_networks():
    with torch.device("meta"):
        model = create_model("lambda_resnet50", features_only=True)
        maps = model(torch.empty(1, 3, 224, 200))
    assert model.channels == [256, 512, 1024, 2048]
    assert model.strides == [4, 8, 16, 32]
    assert [tuple(found.shape[2:]) for found in maps] == [(56, 50), (28, 25), (14, 13), (7, 7)]
    assert not any(name.startswith("head") for name in model.state_dict())


def test_a_classifier_has_the_same_pyramid():
    model, backbone, x = build(), build(features_only=True), torch.randn(1, 3, 40, 31)
    missing = backbone.load_state_dict(model.state_dict(), strict=False)
    assert missing.missing_keys == []
    assert missing.unexpected_keys == ["head.weight", "head.bias"]
    for mine, other in zip(model.pyramid(x), backbone(x), strict=True):
        torch.testing.assert_close(mine, other)
    torch.testing.assert_close(model.pyramid(x)[-1], model.features(x))
    torch.testing.assert_close(model(x), model.head(model.features(x).mean((2, 3))))


@pytest.mark.parametrize(("wanted", "stages"), [((1, 3), [1, 3]), ((0,), [0]), ((-2, -1), [2, 3]), ([1, 2], [1, 2])])
def test_chosen_stages(wanted, stages):
    model, x = build(features_only=True, out_indices=wanted), torch.randn(1, 3, 32, 32)
    every = build(features_only=True)(x)
    found = model(x)
    assert len(found) == len(stages)
    assert model.strides == [4 * 2**stage for stage in stages]
    for mine, stage, channels in zip(found, stages, model.channels, strict=True):
        torch.testing.assert_close(mine, every[stage])
        assert mine.shape[1] == channels


def test_stages_behind_the_last_map_do_not_run():
    model = build(features_only=True, out_indices=(0, 1))
    model.stages[2].register_forward_hook(lambda *_: pytest.fail("c4 ran"))
    assert len(model(torch.randn(1, 3, 32, 32))) == 2


def test_gradients_reach_the_picture_from_every_map():
    model, x = build(features_only=True), torch.randn(1, 3, 32, 32, requires_grad=True)
    for found in model(x):
        assert torch.autograd.grad(found.sum(), x, retain_graph=True)[0].any()


def test_saved_and_loaded(tmp_path):
    model = create_model("lambda_resnet_tiny", features_only=True, out_indices=[1]).eval()
    loaded = from_pretrained(model.save_pretrained(tmp_path / "model"))
    x = torch.randn(1, 3, 17, 12)
    (found,), (expected,) = loaded(x), model(x)
    torch.testing.assert_close(found, expected)
    assert (loaded.channels, loaded.strides) == (model.channels, model.strides) == ([128], [2])


@pytest.mark.parametrize("wanted", [(), (4,), (-5,), (1, 0), (1, 1)])
def test_bad_stages(wanted):
    with pytest.raises(ValueError, match=r"out_indices=.*: expected stages in rising order, 0 to 3"):
        build(features_only=True, out_indices=wanted)


def test_stages_are_numbers():
    with pytest.raises(TypeError, match=r"out_indices\[1\]='c5': expected an integer"):
        build(out_indices=(0, "c5"))


def test_bad_input():
    with pytest.raises(ValueError, match=r"expected pictures \(B, C, H, W\) with C = in_channels=3"):
        build(features_only=True)(torch.zeros(1, 2, 8, 8))

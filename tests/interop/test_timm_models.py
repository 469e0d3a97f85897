"""Our residual networks through timm's `create_model`, `features_only` and training tools."""

import copy

import pytest
import torch
from safetensors.torch import save_file

import lambda_seq
from lambda_seq import create_model, list_models

timm = pytest.importorskip("timm", reason="timm is not installed: pip install timm")
from timm.data import resolve_data_config  # noqa: E402
from timm.optim import create_optimizer_v2  # noqa: E402
from timm.utils import ModelEmaV3  # noqa: E402

from lambda_seq.interop.timm_models import PREFIX, names  # noqa: E402

SMALL = {"width": 8, "heads": 2, "scope": 3, "zero_init_last": False}
TIERED = {"width": 16, "zero_init_last": False}


def both(name="lambda_resnet_tiny", theirs=None, **ours):
    """A network of timm's registry and ours, with the same weights."""
    torch.manual_seed(0)
    model = timm.create_model(PREFIX + name, **{**ours, **(theirs or {})}).eval()
    return model, model.state_dict()


def x(size=16, channels=3):
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))


def test_all_networks_of_images_are_registered_and_none_of_timms_is_lost():
    assert {PREFIX + name for name in names()} == set(timm.list_models(f"{PREFIX}*"))
    images = {name for name in list_models() if "resnet" in name}
    assert set(names()) == images
    assert type(timm.create_model("lambda_resnet26t")).__module__.startswith("timm.")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lambda_resnet_tiny", SMALL),
        ("lambda_resnet26_small", SMALL),
        ("resnet_tiny", {"width": 8}),
        ("lambda_resnet50_ccll", {"width": 8, "heads": 2, "scope": 3}),
        ("lambda_resnet101_hybrid", {**SMALL, "blocks": (1, 1, 1, 1), "placement": "CCLL"}),
        ("lambda_resnet26t", TIERED),
    ],
)
def test_outputs_are_ours(name, options):
    model, weights = both(name, {"num_classes": 5, "in_chans": 2}, **options)
    ours = create_model(name, num_classes=5, in_channels=2, **options)
    ours.load_state_dict(weights)  # the same names
    with torch.no_grad():
        expected = ours.eval()(x(32, 2))
        assert torch.equal(model(x(32, 2)), expected)
        torch.testing.assert_close(model.forward_head(model.forward_features(x(32, 2))), expected)
    assert expected.shape == (2, 5)
    assert (model.num_classes, model.in_chans) == (5, 2)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in ours.parameters())


@pytest.mark.parametrize(("name", "options"), [("lambda_resnet26_small", SMALL), ("lambda_resnet26t", TIERED)])
@pytest.mark.parametrize(("indices", "stages"), [(None, [0, 1, 2, 3]), ((1, 2), [1, 2]), (2, [2, 3]), ((-3,), [1])])
def test_features_only_gives_our_maps(name, options, indices, stages):
    asked = {} if indices is None else {"out_indices": indices}
    torch.manual_seed(0)
    model = timm.create_model(PREFIX + name, features_only=True, **asked, **options).eval()
    ours = create_model(name, features_only=True, out_indices=stages, **options).eval()
    ours.load_state_dict(model.model.state_dict(), strict=False)
    with torch.no_grad():
        found, expected = model(x(32)), ours(x(32))
    assert len(found) == len(expected) == len(stages)
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))
    assert model.feature_info.channels() == ours.channels
    assert model.feature_info.reduction() == ours.strides
    assert not any(name.startswith("model.head.") for name in model.state_dict())


def test_a_network_of_two_stages_gives_two_maps():
    model = timm.create_model(PREFIX + "lambda_resnet_tiny", features_only=True, **SMALL)
    assert [tuple(one.shape) for one in model(x())] == [(2, 32, 16, 16), (2, 64, 8, 8)]


def test_intermediates_and_the_last_map():
    model, _ = both(**SMALL)
    with torch.no_grad():
        last, maps = model.forward_intermediates(x())
        assert torch.equal(last, maps[-1])
        assert torch.equal(last, model.forward_features(x()))
        (first,) = model.forward_intermediates(x(), indices=[0], intermediates_only=True)
    assert torch.equal(first, maps[0])
    with pytest.raises(ValueError, match="output_fmt='NLC': expected 'NCHW'"):
        model.forward_intermediates(x(), output_fmt="NLC")
    with pytest.raises(ValueError, match=r"out_indices=\[5\]: expected stages from 0 to 1"):
        model.forward_intermediates(x(), indices=[5])


def test_without_a_classifier_and_with_another():
    model, _ = both(theirs={"num_classes": 0}, **SMALL)
    with torch.no_grad():
        assert model(x()).shape == (2, model.num_features) == (2, 64)
        assert torch.equal(model(x()), model.forward_head(model.forward_features(x()), pre_logits=True))
    model.reset_classifier(7)
    assert model(x()).shape == (2, 7)
    assert model.get_classifier().out_features == model.num_classes == 7
    model, _ = both(theirs={"num_classes": 0, "global_pool": ""}, **SMALL)
    assert model(x()).shape == (2, 64, 8, 8)


def test_files_folders_and_pictures(tmp_path):
    model, weights = both(**SMALL)
    save_file({name: one.contiguous() for name, one in weights.items()}, tmp_path / "w.safetensors")
    again = timm.create_model(PREFIX + "lambda_resnet_tiny", checkpoint_path=str(tmp_path / "w.safetensors"), **SMALL)
    assert torch.equal(again.eval()(x()), model(x()))
    model.save_pretrained(tmp_path / "ours")
    ours = lambda_seq.from_pretrained(tmp_path / "ours")
    assert ours.name == "lambda_resnet_tiny"
    assert torch.equal(ours(x()), model(x()))
    assert resolve_data_config(model=model)["input_size"] == (3, 32, 32)
    with pytest.raises(ValueError, match="pretrained=True: there are no trained weights"):
        timm.create_model(PREFIX + "lambda_resnet50", pretrained=True)


def test_timm_trains_it():
    torch.manual_seed(0)
    model = timm.create_model(PREFIX + "lambda_resnet_tiny", num_classes=2, drop_rate=0.1, drop_path_rate=0.1, **SMALL)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-2, weight_decay=0.05, layer_decay=0.9)
    averaged = ModelEmaV3(model)
    held = {id(p) for group in optimizer.param_groups if not group["weight_decay"] for p in group["params"]}
    positions = [p for name, p in model.named_parameters() if name in model.no_weight_decay()]
    assert positions
    assert all(id(parameter) in held for parameter in positions)
    pictures, labels = x(), torch.tensor([0, 1])
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(pictures), labels)
        loss.backward()
        optimizer.step()
        averaged.update(model)
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert torch.equal(copy.deepcopy(model).eval()(pictures), model.eval()(pictures))
    assert len(lambda_seq.param_groups(model)[1]["params"]) > len(positions)
    with pytest.raises(ValueError, match="grad_checkpointing=True"):
        model.set_grad_checkpointing()
    model.set_grad_checkpointing(False)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"window_size": 7}, TypeError, "lambda_resnet_tiny has no option 'window_size'"),
        ({"global_pool": "max"}, ValueError, "global_pool='max' with num_classes=10: expected 'avg'"),
        ({"global_pool": ""}, ValueError, "expected 'avg', or '' with num_classes=0"),
        ({"scope": 4}, ValueError, r"scope=\(4, 4\)"),
    ],
)
def test_what_does_not_fit(options, error, message):
    with pytest.raises(error, match=message):
        timm.create_model(PREFIX + "lambda_resnet_tiny", **options)

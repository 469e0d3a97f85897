"""Models that were saved when options of networks had other names."""

import json
import re

import pytest
import torch

from lambda_seq import create_model, from_pretrained
from lambda_seq.models import Model
from lambda_seq.models.hub.older import current_options
from lambda_seq.models.registry import class_name
from tests.saved_models import draw

# Name of the network, its options then, and by today's names: what `norm` meant only the weights tell
CASES = {
    "other norms": (
        "lambda_encoder_tiny",
        {"lambda_norm": "rms", "norm": "batch", "position_init": "paper"},
        {"norm": "rms", "block_norm": "batch", "init": "paper"},
    ),
    "of lambdas": ("lambda_encoder_tiny", {"lambda_norm": "none"}, {"norm": "none", "block_norm": "layer"}),
    "of blocks": ("lambda_encoder_tiny", {"norm": "rms"}, {"block_norm": "rms"}),
    "no norm": ("lambda_encoder_tiny", {"norm": "none"}, {"block_norm": "none"}),
    "of causal blocks": (
        "lambda_encoder_tiny",
        {"norm": "layer", "causal": True},
        {"block_norm": "layer", "causal": True},
    ),
    "init": ("lambda_encoder_tiny", {"position_init": "paper"}, {"init": "paper", "block_norm": "layer"}),
    "of a language model": ("lambda_lm_tiny", {"lambda_norm": "layer"}, {"norm": "layer", "block_norm": "rms"}),
    "of its blocks": ("lambda_lm_tiny", {"norm": "layer"}, {"block_norm": "layer"}),
    "of pictures": (
        "lambda_resnet_tiny",
        {"lambda_norm": "rms", "position_init": "paper"},
        {"norm": "rms", "init": "paper"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_folder_with_names_of_then_loads(tmp_path, case):
    name, then, now = CASES[case]
    model = create_model(name, **now).eval()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    others = {option: value for option, value in config["options"].items() if option not in now}
    config["options"] = {**others, **then}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = from_pretrained(tmp_path)
    x = draw(model)
    assert torch.equal(loaded(x), model(x))
    assert set(loaded.options) == set(model.options)
    assert loaded.options.items() >= now.items()
    loaded.save_pretrained(tmp_path)  # by today's names
    assert torch.equal(from_pretrained(tmp_path)(x), model(x))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm": "batch"},
        {"norm": "rms"},
        {"norm": "rms", "causal": True},
        {"norm": "none"},
        {"norm": "layer", "block_norm": "rms"},
        {"block_norm": "batch", "init": "paper"},
    ],
    ids=str,
)
def test_options_of_today_stay(options):
    model = create_model("lambda_encoder_tiny", **options)
    assert current_options("lambda_encoder_tiny", options, model.state_dict()) == options
    wrapped = [f"network.{name}" for name in model.state_dict()]
    assert current_options("lambda_encoder_tiny", options, wrapped) == options


def test_a_network_of_ones_own_keeps_its_options():
    class Other(Model):
        def __init__(self, *, lambda_norm: str, norm: str) -> None:
            super().__init__()

    options = {"lambda_norm": "rms", "norm": "layer"}
    assert current_options(class_name(Other), options, ["blocks.0.norm1.weight"]) == options


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("lambda_encoder", "lambda_norm", "it is called 'norm' now, and what was 'norm' is 'block_norm'. It accepts "),
        ("lambda_lm", "position_init", "it is called 'init' now. It accepts "),
        ("lambda_resnet50", "lambda_norm", "it is called 'norm' now. It accepts "),
    ],
)
def test_names_of_then_are_told_from_todays(name, option, message):
    with pytest.raises(TypeError, match=re.escape(f"{name} has no option {option!r}: {message}")):
        create_model(name, **{option: "rms"})

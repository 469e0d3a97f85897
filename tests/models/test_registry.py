import subprocess
import sys

import pytest
import torch

from lambda_seq.models import LambdaEncoder, LambdaResNet, accepted_options, create_model, list_models, register_model
from lambda_seq.models import registry as registry_module
from lambda_seq.models.model import Model

TINY = {"lambda_resnet_tiny": LambdaResNet, "lambda_encoder_tiny": LambdaEncoder}


class Toy(Model):
    def __init__(self, *, num_classes: int = 3, color: str = "red") -> None:
        super().__init__()
        self.num_classes, self.input_kind, self.color = num_classes, "features", color


@pytest.fixture
def _scratch(monkeypatch):
    monkeypatch.setattr(registry_module, "_ENTRIES", dict(registry_module._ENTRIES))


@pytest.mark.usefixtures("_scratch")
def test_registered_names_build_with_defaults_and_overrides():
    register_model("toy_blue", color="blue")(register_model("toy")(Toy))
    assert list_models("toy*") == ["toy", "toy_blue"]
    assert create_model("toy").color == "red"
    assert create_model("toy_blue").color == "blue"
    assert create_model("toy_blue", color="green", num_classes=5).color == "green"
    assert accepted_options("toy_blue") == {"num_classes", "color"}


@pytest.mark.usefixtures("_scratch")
def test_names_are_unique_and_defaults_are_checked():
    register_model("toy")(Toy)
    with pytest.raises(ValueError, match=r"name='toy' is registered already: choose another"):
        register_model("toy")
    with pytest.raises(TypeError, match=r"toy2 has no option 'colour': did you mean 'color'\?"):
        register_model("toy2", colour="blue")(Toy)
    assert "toy2" not in list_models()


@pytest.mark.parametrize("name", TINY)
def test_created_models_know_their_recipe(name):
    model = create_model(name, num_classes=7)
    assert isinstance(model, TINY[name])
    assert model.num_classes == 7
    assert model.name == name
    again = create_model(model.name, **model.options)
    assert {key: tensor.shape for key, tensor in again.state_dict().items()} == {
        key: tensor.shape for key, tensor in model.state_dict().items()
    }
    assert TINY[name](num_classes=7).name is None


def test_defaults_are_not_changed_by_what_a_user_does_with_the_options():
    create_model("lambda_resnet_tiny").options["width"] = 1
    assert create_model("lambda_resnet_tiny").options["width"] == 16


def test_list_models_takes_patterns():
    assert "lambda_resnet50" in list_models()
    assert set(list_models("resnet101*")) == {"resnet101", "resnet101_se"}
    assert list_models("nothing*") == []
    assert list_models() == sorted(list_models())


def test_unknown_model_names_the_closest():
    with pytest.raises(ValueError, match=r"name='lambda_resent50' is no model: did you mean 'lambda_resnet50'"):
        create_model("lambda_resent50")
    with pytest.raises(ValueError, match=r"name='xyz' is no model: expected one of .*'lambda_encoder'"):
        accepted_options("xyz")


def test_unknown_option_names_the_accepted():
    with pytest.raises(
        TypeError, match=r"lambda_encoder has no option 'haeds': did you mean 'heads'\? It accepts algorithm,"
    ):
        create_model("lambda_encoder", haeds=2)
    with pytest.raises(TypeError, match=r"lambda_resnet50 has no option 'vocab_size': It accepts .*width"):
        create_model("lambda_resnet50", vocab_size=257)
    assert "vocab_size" not in accepted_options("lambda_resnet50")
    assert {"vocab_size", "num_classes", "in_channels"} <= accepted_options("lambda_encoder")


@pytest.mark.parametrize("name", TINY)
def test_state_dict_round_trip(name):
    x = {"image": torch.randn(3, 3, 8, 8), "tokens": torch.randint(257, (3, 9))}
    torch.manual_seed(0)
    model = create_model(name)
    model(x[model.input_kind])  # moves the running statistics of batch norms
    other = create_model(name)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.eval()(x[model.input_kind]), model.eval()(x[model.input_kind]))


def test_models_import_neither_training_nor_plotting():
    code = (
        "import sys, lambda_seq.models; print([m for m in ('lightning', 'datasets', 'matplotlib') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"scope": "None"}, "scope='None': expected an integer"),
        ({"strides": "null"}, "strides='null': expected a list of integers"),
        ({"strides": 4}, "strides=4: expected a list of integers"),
        ({"dim": "64"}, "dim='64': expected an integer"),
    ],
)
def test_options_of_another_type(option, message):
    with pytest.raises(TypeError, match=message):
        create_model("lambda_encoder", **option)

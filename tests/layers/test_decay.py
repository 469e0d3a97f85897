"""What decays: matrices, and nothing that a module has declared."""

import copy

import pytest
import torch
from torch import nn

from lambda_seq import LambdaLayer1d, LambdaLayer2d, create_model, param_groups
from lambda_seq.layers import POSITIONS, PositionEmbedding
from lambda_seq.layers.biased import BiasedLambdaLayer2d
from lambda_seq.models import list_models
from lambda_seq.models.sequence.mixers import MIXERS
from lambda_seq.tasks.optimization import decay_groups


def names(model, groups=None):
    """Names of the parameters that decay, and of those that do not."""
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    return [{known[id(parameter)] for parameter in group["params"]} for group in groups or param_groups(model)]


POSITIONAL = ("position", "positions", "row", "column", "query", "position_bias", "embeddings")


def check(model):
    decaying, free = names(model)
    assert decaying | free == dict(model.named_parameters()).keys()
    assert not decaying & free
    for name in decaying:
        *path, last = name.split(".")
        assert not {*path, last} & set(POSITIONAL), name
        assert last in ("weight",), name
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            assert name in free, name
    assert any(name.endswith(("project.weight", "conv1.weight", "head.weight")) for name in decaying)


@pytest.mark.parametrize("kind", POSITIONS)
@pytest.mark.parametrize("causal", [False, True])
def test_no_embedding_of_a_sequence_decays(kind, causal):
    layer = LambdaLayer1d(8, scope=None, max_length=20, position=kind, causal=causal)
    check(layer)
    assert all(name.startswith(("position.", "norm_")) for name in names(layer)[1])
    assert names(layer)[0] == {"project.weight"}


@pytest.mark.parametrize("kind", POSITIONS)
def test_no_embedding_of_an_image_decays(kind):
    assert names(LambdaLayer2d(8, scope=None, max_size=6, position=kind))[0] == {"project.weight"}
    assert names(BiasedLambdaLayer2d(8, scope=3))[0] == {"project.weight"}


@pytest.mark.parametrize("letter", MIXERS)
def test_no_table_of_any_mixer_decays(letter):
    check(create_model("lambda_resnet_tiny", placement=letter, image_size=8, se=0.5))


@pytest.mark.parametrize("name", [name for name in list_models() if name.endswith("_tiny")])
@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_networks(name, pool):
    options = {"pool": pool, "position": "exponential", "scope": None} if "encoder" in name else {}
    check(create_model(name, **options))


def test_a_position_module_of_ones_own_is_declared_by_the_layer():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(1, 16)

        def forward(self, size):
            return self.inner(torch.arange(1.0 - size[0], size[0])[:, None]).T[None]

    layer = LambdaLayer1d(8, position=Own())
    assert {"position.inner.weight", "position.inner.bias"} <= names(layer)[1]
    layer(torch.randn(2, 5, 8))

    class Derived(PositionEmbedding, Own):
        pass

    assert "0.inner.weight" in names(nn.Sequential(Derived()))[1]


def eager(model):
    return torch.compile(model, backend="eager")


class Marked(nn.Module):
    no_weight_decay = ("token", "table.weight", "small")

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.table, self.small = nn.Embedding(5, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        self.other = nn.Linear(4, 4)


def test_modules_of_ones_own_declare_by_an_attribute():
    for build in (lambda m: m, copy.deepcopy, lambda m: m.double(), lambda m: m.to("meta"), eager):
        model = build(nn.Sequential(Marked()))
        assert {name.removeprefix("_orig_mod.") for name in names(model)[0]} == {"0.other.weight"}
    late = nn.Linear(4, 4)
    late.no_weight_decay = True
    assert names(nn.Sequential(late, nn.Linear(4, 4)))[0] == {"1.weight"}


def test_a_method_as_networks_of_timm_have_it():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.pos_embed, self.head = nn.Parameter(torch.zeros(1, 3, 4)), nn.Linear(4, 2)

        def no_weight_decay(self):
            return {"pos_embed", "dist_token"}

    assert names(Net())[0] == {"head.weight"}


def test_shared_parameters_are_in_one_group():
    model = Marked()
    model.other.weight = model.table.weight  # declared by one of two
    assert names(model)[0] == set()
    language_model = create_model("lambda_lm_tiny")
    groups = param_groups(language_model)
    everything = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(everything) == len(set(everything)) == len(list(language_model.parameters()))
    assert "stem.embedding.weight" in names(language_model)[0]  # which is the head's matrix
    shared = create_model("lambda_resnet_tiny", share_positions=True, blocks=(2, 2))
    check(shared)


def test_norms_of_any_shape_do_not_decay():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm((4, 5, 5)), nn.GroupNorm(2, 4), nn.BatchNorm2d(4))
    assert names(model)[0] == {"0.weight"}


def test_an_optimizer_takes_the_groups():
    layer = LambdaLayer1d(8, heads=2, scope=3)
    layer.project.requires_grad_(False)
    given = param_groups(layer, 0.3)
    optimizer = torch.optim.AdamW(given, weight_decay=0.1)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    assert [group["weight_decay"] for group in torch.optim.AdamW(param_groups(layer)).param_groups] == [0.01, 0.0]
    assert given[0]["params"] == []
    layer.project.requires_grad_(True)
    assert names(layer, decay_groups(layer)) == names(layer)


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        (lambda: LambdaLayer1d(8, scope=3), {"position.weight"}),
        (lambda: LambdaLayer1d(8, scope=3, position="multiscale"), {"position.weights.0"}),
        (lambda: BiasedLambdaLayer2d(8, scope=3), {"position.weight"}),  # the bias is none
        (lambda: LambdaLayer1d(8, position=nn.Linear(2, 3)), {"position.weight", "position.bias"}),
        (
            lambda: create_model("lambda_encoder_tiny", position=["exponential", False], scope=[None, 3]),
            {f"blocks.0.mixing.layer.position.{name}" for name in ("raw_rate", "raw_frequency", "weight")},
        ),
        (
            lambda: create_model("lambda_resnet_tiny", share_positions=True, blocks=(2, 2), placement="CL"),
            {"stages.1.0.mix.layer.position.weight"},
        ),
    ],
)
def test_position_embeddings_are_a_group_of_their_own(model, wanted):
    model = model()
    groups = param_groups(model, 0.3, positions={"lr": 0.5})
    decaying, free, positions = names(model, groups)
    assert positions == wanted
    assert [decaying | positions | free, free | positions] == [set(dict(model.named_parameters())), names(model)[1]]
    assert not positions & (decaying | free)
    assert {name: value for name, value in groups[2].items() if name != "params"} == {
        "lr": 0.5,
        "weight_decay": 0.0,
        "name": "positions",
    }
    optimizer = torch.optim.AdamW(param_groups(model, positions={"weight_decay": 0.2}), lr=0.1, weight_decay=0.3)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0, 0.2]
    assert [group["lr"] for group in optimizer.param_groups] == [0.1] * 3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (0.1, TypeError, "positions=0.1: expected options of a group"),
        ({"lr": -1.0}, ValueError, r"positions\['lr'\]=-1.0: expected at least 0"),
        ({"weight_decay": "0.1"}, TypeError, r"positions\['weight_decay'\]='0.1': expected a number"),
        ({"lr": 0.1}, ValueError, r"positions=\{'lr': 0.1\}: the model has no position embeddings"),
    ],
)
def test_groups_of_positions_that_mean_nothing(options, error, message):
    with pytest.raises(error, match=message):
        param_groups(LambdaLayer1d(8, position=False), positions=options)


@pytest.mark.parametrize(
    ("declared", "error", "message"),
    [
        ("token", TypeError, r"0.no_weight_decay='token': expected True, or a tuple of names"),
        (3, TypeError, r"0.no_weight_decay=3: expected True"),
        (("tokn",), ValueError, r"0.no_weight_decay names 'tokn', which it does not have"),
        (("tables.weight",), ValueError, r"0.no_weight_decay names 'tables.weight'"),
    ],
)
def test_declarations_that_mean_nothing(declared, error, message):
    model = Marked()
    model.no_weight_decay = declared
    with pytest.raises(error, match=message):
        param_groups(nn.Sequential(model))


@pytest.mark.parametrize(("decay", "error"), [(-0.1, ValueError), (float("nan"), ValueError), ("0.1", TypeError)])
def test_rates_that_are_none(decay, error):
    with pytest.raises(error, match="weight_decay="):
        param_groups(nn.Linear(2, 2), decay)

"""The one description of a lambda layer's options, and the constructors that take them."""

import inspect
import re
from typing import Unpack

import pytest
from jsonargparse import ArgumentParser
from torch import nn

from lambda_seq import LambdaEncoder, LambdaLayer1d, LambdaLayer2d, LambdaLM
from lambda_seq.layers.biased import BiasedLambdaLayer2d
from lambda_seq.layers.options import (
    ImageLayerOptions,
    LambdaOptions,
    SequenceOptions,
    complete,
    options_of,
    with_options,
)
from lambda_seq.models import LambdaResNet
from lambda_seq.models.sequence.options import BlockOptions, EncoderOptions
from lambda_seq.models.vision.options import ResNetOptions, TieredOptions
from lambda_seq.models.vision.tiered import TieredLambdaResNet

TAKEN = {
    LambdaLayer1d: SequenceOptions,
    LambdaLayer2d: ImageLayerOptions,
    BiasedLambdaLayer2d: ImageLayerOptions,
    LambdaEncoder: EncoderOptions,
    LambdaLM: BlockOptions,
    LambdaResNet: ResNetOptions,
}


@pytest.mark.parametrize("cls", [*TAKEN, TieredLambdaResNet])
def test_signatures_and_documentation_list_all_options(cls):
    parameters = inspect.signature(cls).parameters
    assert all(one.kind is not inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    for name, (hint, option) in options_of(TAKEN.get(cls, TieredOptions)).items():
        assert parameters[name].default == option.default
        assert parameters[name].annotation == hint
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        entry = re.sub(r"\s+", " ", f"{name}: {option.text}")
        assert entry in re.sub(r"\s+", " ", cls.__doc__)
    assert max(map(len, cls.__doc__.splitlines())) <= 120
    arguments = cls.__doc__.split("Args:")[1].split("\n\n")[0]
    assert re.findall(r"^ {8}(\w+):", arguments, re.MULTILINE) == list(parameters)


@pytest.mark.parametrize("cls", TAKEN)
def test_names_are_those_of_the_layer(cls):
    shared = set(options_of(LambdaOptions)) | {"scope", "position"}
    assert shared <= set(inspect.signature(cls).parameters)


@pytest.mark.parametrize("cls", TAKEN)
def test_command_lines_are_made_of_a_class(cls):
    parser = ArgumentParser()
    parser.add_class_arguments(cls, "network")
    given = ["--network.heads=2", "--network.scope=null", "--network.norm=rms"]
    given += ["--network.dim=8"] if "dim" in inspect.signature(cls).parameters else []
    found = parser.parse_args(given).network
    assert (found.heads, found.scope, found.norm, found.init) == (2, None, "rms", "scaled")
    assert "queries that share one lambda" in re.sub(r"\s+", " ", parser.format_help())


@pytest.mark.parametrize("cls", TAKEN)
def test_other_options_are_refused(cls):
    given = {"dim": 8} if "dim" in inspect.signature(cls).parameters else {}
    message = r"LambdaL?\w+.__init__\(\) got an unexpected keyword argument 'haeds': did you mean 'heads'\? It accepts "
    with pytest.raises(TypeError, match=message):
        cls(**given, haeds=2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'options'"):
        cls(**given, options={"heads": 2})


def test_completing_checks_and_adds_defaults():
    found = complete(SequenceOptions, {"heads": 2, "scope": None}, object())
    defaults = {name: option.default for name, (_, option) in options_of(SequenceOptions).items()}
    assert found == {**defaults, "heads": 2, "scope": None}
    for given, message in (
        ({"heads": 0}, "heads=0: expected at least 1"),
        ({"key_norm": "sum"}, "key_norm='sum': expected one of 'softmax', 'l2', 'none'"),
        ({"norm": "group"}, "norm='group': expected one of 'batch', 'layer', 'rms', 'none'"),
        ({"algorithm": "slow"}, "algorithm='slow': expected one of 'auto'"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            complete(SequenceOptions, given, object())
    with pytest.raises(TypeError, match="content=1: expected True or False"):
        complete(SequenceOptions, {"content": 1}, object())


def test_a_class_of_ones_own_lists_them_too():
    @with_options
    class Mine(nn.Module):
        """A module.

        Args:
            dim: channels.
            **options: of `SequenceOptions`.
        """

        def __init__(self, dim: int, **options: Unpack[SequenceOptions]) -> None:
            super().__init__()
            self.layer = LambdaLayer1d(dim, **options)

    assert Mine(8, heads=2).layer.heads == 2
    assert list(inspect.signature(Mine).parameters) == ["dim", *options_of(SequenceOptions)]
    assert "max_length: for scope None only" in Mine.__doc__

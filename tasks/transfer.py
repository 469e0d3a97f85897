"""Weights to start from: those of another training, or of a saved model, for all of a network but its head."""

from __future__ import annotations

import inspect
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

import lambda_seq
from lambda_seq.layers import resize_positions
from lambda_seq.models import Model
from lambda_seq.tasks.data.reading.tokens import Tokens
from lambda_seq.tasks.facts import Facts
from lambda_seq.tasks.networks import described, network_of

NORMS = ("norm", "block_norm")  # None leaves the choice to the network
FREE = (  # options that change nothing of what is computed, beside those of the head
    *("dropout", "mixing_dropout", "position_dropout", "stochastic_depth", "init"),
    *("features_only", "out_indices"),  # which say what is put out
    *("max_length", "image_size", "vocab_size", "query_bias"),  # which weights show, where they depend on it
)
EXAMPLES = 3  # differences that an error names


class Source(NamedTuple):
    """A network's weights, all its options, and what its tokens mean; `named` is network and options in a line."""

    weights: dict[str, Tensor]
    options: dict[str, Any]
    fingerprint: str | None  # of the tokens, if it takes any and they are known
    named: str


def load_weights(network: Model, path: str, facts: Facts, named: str) -> None:
    """Copy into a network the weights at `path`, all but those of the head and of the pooling in front of it.

    Says how many were loaded. Global position tables of pictures of another size are rescaled, see
    `layers.resize_table`. If the network there is another one, in the shape of a weight or an option that changes
    what it computes, or if its tokens mean something else, nothing is loaded.

    Args:
        network: to load into; a network of the registry.
        path: a checkpoint of `lambda-seq fit`, of any task, a folder that `save_pretrained` wrote, or the name of a
            trained network.
        facts: of the data.
        named: the network and its options in a line, for errors.

    Raises:
        FileNotFoundError: nothing at `path`.
        ValueError: the file is no checkpoint, or its network is another one; says what differs.
    """
    source = read_source(path)
    if network.input_kind == "image":
        source = source._replace(weights=resize_positions(source.weights, network))
    own, weights = network.body(), network.body(source.weights)
    differing = _differences(source, network)
    if differing:
        raise ValueError(
            f"init_from={path!r}: the weights are of another network: {'; '.join(differing)}.\n"
            f"  there: {source.named}\n  configured: {named}\n"
            "Give the options that it was trained with, or other weights."
        )
    fingerprint = None if facts.tokens is None else facts.tokens.fingerprint
    if None not in (fingerprint, source.fingerprint) and fingerprint != source.fingerprint:
        raise ValueError(
            f"init_from={path!r}: the weights were trained on tokens of another tokenizer (fingerprint "
            f"{source.fingerprint}, the data's is {fingerprint}): give its tokenizer.json as --data.tokenizer, or "
            "other weights"
        )
    network.load_state_dict(weights, strict=False)
    parameters = dict(network.named_parameters())
    loaded = sum(parameter.numel() for name, parameter in parameters.items() if name in own)
    new = [name for name in network.state_dict() if name not in own]
    rank_zero_info(
        f"init_from={path!r}: loaded {len(own)} of {len(own) + len(new)} weights with {loaded:,} of "
        f"{sum(parameter.numel() for parameter in parameters.values()):,} parameters; new are {', '.join(new)}"
    )


def read_source(path: str) -> Source:
    """The network of a checkpoint, or of a saved folder.

    Raises:
        FileNotFoundError: nothing at `path`.
        ValueError: the file is no checkpoint of lambda_seq.
    """
    if Path(path).is_dir() or (not Path(path).exists() and path in lambda_seq.list_pretrained()):
        model = lambda_seq.from_pretrained(path)
        fingerprint = Tokens.of(model).fingerprint if model.input_kind == "tokens" else None
        options = ", ".join(f"{name}={value!r}" for name, value in sorted((model.options or {}).items()))
        return Source(model.state_dict(), _all_options(model), fingerprint, f"{model.name}({options})")
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"init_from={path!r}: there is no such file or folder; give a checkpoint of `lambda-seq fit`, a folder of "
            "save_pretrained, or one of lambda_seq.list_pretrained()"
        )
    checkpoint = torch.load(path, map_location="cpu", weights_only=True) if zipfile.is_zipfile(path) else {}
    hparams = checkpoint.get("hyper_parameters", {})
    if "network" not in hparams:
        raise ValueError(f"init_from={path!r} is no checkpoint of lambda_seq, or only a part of one; give another")
    facts = Facts.from_dict(hparams["facts"])
    with torch.device("meta"):  # no memory: its options are what is asked for
        model = network_of(checkpoint)
    weights = {
        name.removeprefix("network."): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith("network.")
    }
    fingerprint = None if facts.tokens is None else facts.tokens.fingerprint
    return Source(weights, _all_options(model), fingerprint, described(hparams))


def _all_options(model: Model) -> dict[str, Any]:
    """Options of a network, those included that were left at their defaults."""
    parameters = inspect.signature(type(model)).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters} | (model.options or {})


def _differences(source: Source, network: Model) -> list[str]:
    """What tells two networks apart: options if they do, otherwise weights."""
    theirs = {name: tuple(tensor.shape) for name, tensor in network.body(source.weights).items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in network.body().items()}
    options = _all_options(network)
    found = [
        f"{name} is {source.options.get(name)!r} there, {options.get(name)!r} here"
        for name in sorted(source.options.keys() & options.keys() - {*FREE, *network.answering})
        if _plain(source.options[name]) != _plain(options[name])
        and not (name in NORMS and None in (source.options[name], options[name]))
    ]
    if not found:
        found = [
            f"{name} is {theirs.get(name, 'missing')} there, {shapes.get(name, 'missing')} here"
            for name in sorted(theirs.keys() | shapes.keys())
            if theirs.get(name) != shapes.get(name)
        ]
    return found[:EXAMPLES] + ([f"and {len(found) - EXAMPLES} more"] if len(found) > EXAMPLES else [])


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value

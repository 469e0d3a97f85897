"""Which options are left to a recipe, and where their values come from: the data, a checkpoint, or weights."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only

from lambda_seq.models import Model, accepted_options
from lambda_seq.models.hub.older import current_options
from lambda_seq.tasks.callbacks.resuming import RECORD
from lambda_seq.tasks.checkpointing.options import class_at
from lambda_seq.tasks.classification import Classification
from lambda_seq.tasks.data import Data
from lambda_seq.tasks.old_names import renamed
from lambda_seq.tasks.recipes.registry import Choice, Recipe
from lambda_seq.tasks.recipes.rules import MONITOR
from lambda_seq.tasks.transfer import FREE, read_source

NETWORK, OPTIMIZER = "model.options.", "model.optimizer."
RATED = "torch.optim.AdamW"  # whose rates recipes choose
NOTHING = object()


def measured_choices(recipe: Recipe, data: Data, config: Any, given: Mapping[str, Any]) -> tuple[str, list[Choice]]:
    """What a recipe chooses for data, and what these are, in a line; a network to start from keeps its options.

    Args:
        recipe: of the command.
        data: the data module, as it was given.
        config: of the subcommand, parsed without any choice.
        given: options that were given, by their names.

    Raises:
        ValueError: data of another kind, or what reading them raises.
    """
    if not isinstance(data, recipe.data):
        raise ValueError(
            f"recipe={recipe.name!r} is for {recipe.data.__name__}, and data is {type(data).__name__}: give another "
            "recipe, or none: --recipe null"
        )
    start = value_of(config, "model.init_from")
    kept = _options_of_weights(recipe, start) if isinstance(start, str) else []
    # The other choices follow them as if they were given
    measured = replace(recipe.measure(data), given={one.option: one.value for one in kept} | dict(given))
    choices = [*kept, *recipe.choose(measured)]
    return measured.sentence, list(_left(recipe, choices, config, given))


def trained_choices(recipe: Recipe, checkpoint: str, config: Any, given: Mapping[str, Any]) -> list[Choice]:
    """Options that the run of a checkpoint had, whatever its data are now: of the network all, else those of a recipe.

    Args:
        recipe: of the command.
        checkpoint: a file.
        config: of the subcommand, parsed without any choice.
        given: options that were given, by their names.
    """
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    hparams = saved.get("hyper_parameters", {})
    if "network" not in hparams:  # of something else, which the task refuses
        return []
    options = current_options(hparams["network"], hparams.get("options") or {}, saved.get("state_dict", ()))
    kept = (renamed(saved.get(RECORD)) or {}).get("options", {})
    found = {name: kept[name] for name in recipe.options if name in kept and not name.startswith(NETWORK)}
    found |= {f"{NETWORK}{name}": value for name, value in options.items()}
    recipe = replace(recipe, anywhere=tuple(options))
    choices = [Choice(name, value, "as trained") for name, value in found.items()]
    return [one for one in _left(recipe, choices, config, given) if value_of(config, one.option) != one.value]


def says_all(checkpoint: str) -> bool:
    """Whether a checkpoint says the options of its run, as those of older versions do not."""
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    return RECORD in saved or "network" not in saved.get("hyper_parameters", {})


def as_words(choices: Iterable[Choice]) -> list[str]:
    """Choices as they are written on a command line."""
    return [f"--{option}={shown(value)}" for option, value, _ in choices]


@rank_zero_only
def say(heading: str, choices: Sequence[Choice] = ()) -> None:
    """What is known of the data, and each choice with its reason."""
    for line in (f"recipe {heading}", *(f"  {option} {shown(value)}: {why}" for option, value, why in choices)):
        print(line, file=sys.stderr)


def shown(value: Any) -> str:
    """A value as it is written on a command line."""
    return value if isinstance(value, str) else json.dumps(value)


def value_of(config: Any, option: str) -> Any:
    """The value of an option in a parsed configuration; `NOTHING` if it has no such option."""
    found = config
    for name in option.split("."):
        if hasattr(found, "get") and "init_args" in found:
            found = found["init_args"]
        if not hasattr(found, "get") or name not in found:
            return NOTHING
        found = found[name]
    return found


def _left(recipe: Recipe, choices: Iterable[Choice], config: Any, given: Mapping[str, Any]) -> Iterable[Choice]:
    """The choices whose options are not given, and are options of the classes that are; of each the first."""
    seen: set[str] = set()
    for choice in choices:
        option = choice.option
        covered = any(option == name or (option.startswith(f"{name}.") and name != "model.options") for name in given)
        if option not in seen and not covered and _applies(recipe, option, config):
            seen.add(option)
            yield choice


def _applies(recipe: Recipe, option: str, config: Any) -> bool:
    """Whether the task, its network and its optimizer have such an option."""
    if option.startswith(NETWORK):
        network, name = value_of(config, "model.network"), option.removeprefix(NETWORK)
        own = network in recipe.networks or name in recipe.anywhere
        return own and isinstance(network, str) and name in accepted_options(network)
    if option.startswith(OPTIMIZER):
        chosen = value_of(config, OPTIMIZER.rstrip("."))
        return hasattr(chosen, "get") and chosen.get("class_path") == RATED
    if option == MONITOR:
        return issubclass(class_at(config.model.class_path), Classification)
    return value_of(config, option) is not NOTHING


def _options_of_weights(recipe: Recipe, start: str) -> list[Choice]:
    """Options of the network that weights are of, so that they fit; those that change no weight stay free.

    Raises:
        FileNotFoundError, ValueError: there are no such weights.
    """
    options = read_source(start).options
    names = [name.removeprefix(NETWORK) for name in recipe.options if name.startswith(NETWORK)]
    kept = [name for name in names if name in options and name not in (*FREE, *Model.answering)]
    return [Choice(f"{NETWORK}{name}", _plain(options[name]), f"as in {start}") for name in kept]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value

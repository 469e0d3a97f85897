"""Help for one configuration: the options that people change, with their values there.

    lambda-seq fit --config text_classification --help

Options of data and model come first, then those of the training. Beside those named here it shows whatever the
configuration gives and its recipe chooses.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Sequence
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from lambda_seq.models import accepted_options
from lambda_seq.tasks.checkpointing.options import class_at, flattened
from lambda_seq.tasks.recipes.choosing import shown
from lambda_seq.tasks.recipes.registry import RECIPES

HELP = ("-h", "--help")
CONFIG = ("-c", "--config")
DATA = (
    *("path", "predict_path", "batch_size", "num_workers", "label_column", "text_column", "audio_column"),
    *("image_column", "tokenizer", "max_length", "part", "representation", "max_seconds", "crop_seconds", "image_size"),
    *("crop_scale", "flip", "augment", "as_sequence", "validation_fraction", "test_fraction"),
)
MODEL = ("network", "warmup", "label_smoothing", "mixup", "init_from", "compile")
NESTED = {"options": ("dim", "depth", "scope", "dropout"), "optimizer": ("lr", "weight_decay")}  # under names
TRAINER = ("max_epochs", "precision", "devices", "accumulate_grad_batches", "gradient_clip_val")
RUN = ("output_dir", "ckpt_path", "recipe", "baseline", "seed_everything", "threads")
PURPOSES = {
    "trainer.max_epochs": "times that training goes through the data",
    "trainer.precision": "32-true, bf16-mixed (less memory, faster on a GPU), 16-mixed",
    "trainer.devices": "how many GPUs, or processes; auto for all GPUs",
    "trainer.accumulate_grad_batches": "batches of a step: 4 with a quarter of batch_size learns alike",
    "trainer.gradient_clip_val": "greatest norm of the gradients",
    "output_dir": "folder of the run; default: outputs/CONFIG_NAME",
    "ckpt_path": "last goes on with a run that was stopped",
    "seed_everything": "of weights and of the order of rows",
}
BY_RECIPE = "(recipe)"


def asked(words: Sequence[str]) -> bool:
    """Whether a command line asks for help on a configuration."""
    named = any(word.partition("=")[0] in CONFIG for word in words)
    return named and not words[0].startswith("-") and any(word in HELP for word in words)


def without(words: Sequence[str]) -> list[str]:
    """The command line without its question."""
    return [word for word in words if word not in HELP]


def answer(parser: Any, parser_of: Callable[[str], Any], words: Sequence[str]) -> NoReturn:
    """Show the options of a configuration, and end.

    Args:
        parser: of the command line.
        parser_of: gives that of a command.
        words: the command line without its question.

    Raises:
        SystemExit: always.
    """
    config, given = parser.parse_args(words), parser.parse_args(words, defaults=False)
    command = config.subcommand
    print(short_help(config[command], flattened(given[command].as_dict()), parser_of(command), command))
    sys.exit(0)


def short_help(config: Any, given: Collection[str], parser: Any, command: str, width: int | None = None) -> str:
    """The options, a line each: name, value, purpose; those of network and optimizer in a paragraph.

    Args:
        config: of the command, parsed.
        given: names of the options that the configuration or the command line gives.
        parser: of the command.
        command: its name.
        width: of a line, in characters; default: of the terminal, from 100 on.
    """
    width = width or max(get_terminal_size().columns, 100)
    values = flattened(config.as_dict(), nothing=True)
    recipe = RECIPES.get(values.get("recipe") or "")
    chosen = {name for name in (recipe.options if recipe else ()) if name not in given}
    lines = [
        f"lambda-seq {command} --config {_named(config.config or [])}: options that are often changed, and their values"
    ]
    for group, often in (("data", DATA), ("model", MODEL)):
        if not config.get(group):
            continue
        owner = str(config[group].class_path).rpartition(".")[2]
        lines += ["", f"{group.capitalize()}: {owner}; all: lambda-seq {command} --{group}.help {owner}"]
        for name, purpose in purposes_of(config[group].class_path).items():
            whole = f"{group}.{name}"
            if group == "model" and name in NESTED:
                lines += _paragraph(whole, NESTED[name], values, {*given, *chosen}, chosen, width)
            elif name in often or whole in given or whole in chosen:
                lines.append(_line(whole, values.get(whole), purpose, whole in chosen, width))
    lines += ["", f"Training; all: lambda-seq {command} --help"]
    for name in (*(f"trainer.{name}" for name in TRAINER), *RUN):
        if name in values:
            lines.append(_line(name, values[name], _purpose(name, parser), name in chosen, width))
    lines += [
        "",
        f"Every option and its value: lambda-seq {command} --config {_named(config.config or [])} --print_config",
    ]
    if recipe and chosen:
        lines.append(
            f"{BY_RECIPE}: recipe {recipe.name} chooses it by the training data, and says so, unless you give it"
        )
    return "\n".join(lines)


def _named(configs: Sequence[Any]) -> str:
    """A configuration as it is named: the library's without folder and suffix."""
    return re.sub(r".*[/\\]tasks[/\\]configs[/\\](\w+)\.yaml$", r"\1", str(configs[-1])) if configs else "NAME"


def _paragraph(
    prefix: str, often: Sequence[str], values: dict[str, Any], wanted: set[str], chosen: set[str], width: int
) -> list[str]:
    """Options of network or optimizer that are given, chosen or often changed."""
    takes = None
    if prefix == "model.options":
        held = values.get(prefix)
        values = values | {
            f"{prefix}.{name}": value for name, value in (held if isinstance(held, dict) else {}).items()
        }
        takes = accepted_options(values["model.network"]) if values.get("model.network") else set()
    names = [f"{prefix}.{name}" for name in often]
    names += sorted(name for name in wanted if name.startswith(f"{prefix}.") and name not in names)
    said = []
    for name in names:
        short = name.removeprefix(f"{prefix}.")
        if short != "class_path" and (takes is None or short in takes):
            value = values.get(name)
            said.append(
                f"{short} {BY_RECIPE}" if name in chosen else short if value is None else f"{short} {shown(value)}"
            )
    begin = f"  --{prefix}."
    return wrap(", ".join(said), width, initial_indent=f"{begin}NAME: ", subsequent_indent=" " * (len(begin) + 6))


def purposes_of(path: str) -> dict[str, str]:
    """Options of a class, each with what its docstring says of it."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(class_at(path), skip={"facts"}, fail_untyped=False)
    # Private to argparse, which has no public way to ask what options are for
    found = {action.dest: str(action.help) for action in parser._actions}
    return {name: _first(text) for name, text in found.items() if name != "help" and not name.endswith(".help")}


def _purpose(name: str, parser: Any) -> str:
    if name in PURPOSES:
        return PURPOSES[name]
    # Private to argparse, which has no public way to ask what options are for
    return next((_first(str(action.help)) for action in parser._actions if action.dest == name), "")


def _first(text: str) -> str:
    """The first sentence, or the first part of a long one."""
    text = " ".join(text.split())
    return re.split(r"(?<=[a-z\d)])\. |; |\.$", text)[0]


def _line(name: str, value: Any, purpose: str, chosen: bool, width: int) -> str:
    """Name, value and purpose."""
    said = BY_RECIPE if chosen else "" if value in (None, "") else shown(value)
    return shorten(f"  --{name:31} {said:12} {purpose}", width)


def shorten(line: str, width: int) -> str:
    """A line of at most so many characters."""
    return line if len(line) <= width else f"{line[: width - 1].rstrip()}…"

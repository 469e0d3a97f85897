"""Configurations and checkpoints written when the tasks were a top-level package, `tasks`.

They name classes such as `tasks.classification.Classification`. A name like that means the class of today, unless the
user has a `tasks` from which it can be imported as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonargparse import get_loader, set_loader
from yaml import YAMLError

PARSER_MODE = "yaml, old names"  # of parsers that read such configurations
CLASS = re.compile(r"(tasks(?:\.[a-z_]\w*)*)\.([A-Z]\w*)")
MOVED = {  # modules that are in a folder now
    **dict.fromkeys(("averaging", "checkpoints", "curves", "finite", "predictions", "reports"), "callbacks."),
    **dict.fromkeys(("resuming", "samples", "throughput"), "callbacks."),
    "storage": "checkpointing.",
    **dict.fromkeys(("distributed", "sequence_parallel"), "strategies."),
}


def renamed(value: Any) -> Any:
    """The same values with classes of today, in lists and dictionaries of any depth."""
    if isinstance(value, dict):
        return {name: renamed(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(renamed(part) for part in value)
    return _class_of_today(value) if isinstance(value, str) and value.startswith("tasks.") else value


@cache
def _class_of_today(path: str) -> str:
    found = CLASS.fullmatch(path)
    if found is None or _is_of_the_user(*found.groups()):
        return path
    old, name = found.groups()
    old = old.removeprefix("tasks").removeprefix(".")
    new = MOVED.get(old, "") + old
    places = [f"lambda_seq.tasks.{new}" if new else "lambda_seq.tasks"]
    if old == "cli" or old.startswith("data."):  # data modules are in folders now
        places.append("lambda_seq.tasks.data")
    return next((f"{place}.{name}" for place in places if _has(place, name)), path)


def _is_of_the_user(module: str, name: str) -> bool:
    """Whether a `tasks` that is not of a checkout of this library has such a class."""
    spec = find_spec("tasks")
    if spec is None:
        return False
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    ours = any((place.parent / "lambda_seq" / "tasks").resolve() == place.resolve() for place in folders)
    return not ours and _has(module, name)


def _has(module: str, name: str) -> bool:
    try:
        return hasattr(import_module(module), name)
    except ModuleNotFoundError:
        return False


def renamed_words(words: Sequence[str]) -> list[str]:
    """A command line with classes of today: `--model tasks.classification.Classification`."""
    parts = [word.partition("=") if word.startswith("-") else ("", "", word) for word in words]
    return [f"{option}{equals}{renamed(value)}" for option, equals, value in parts]


def _load(text: str) -> Any:
    return renamed(get_loader("yaml")(text))


set_loader(PARSER_MODE, _load, (YAMLError,))

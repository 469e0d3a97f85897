"""Mistakes in a command line or a configuration, in one line that names the nearest right ones.

jsonargparse says what is wrong in a tree of all types that a value might have had. Of it, the line keeps the option,
the value, and what would be right; a message that is none of those known here stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from lambda_seq.tasks.checkpointing.options import class_at
from lambda_seq.tasks.inspection.guessing import COMMAND as INSPECT

KEY = re.compile(r'Parser key "([^"]*)"')
CLASS = re.compile(r"""Problem with given class_path '([^']*)'|Namespace\(class_path='([^']*)'""")
REFUSED = re.compile(r"(?:Option|does not accept option) '([^']*)'(?: is not accepted)?( before subcommand)?")
NO_CLASS = re.compile(r"Expected a dot import path string: (\S+)|module '([^']*)' has no attribute '([^']*)'")
NO_MODULE = re.compile(r"No module named '([^']*)'")
EXPECTED = re.compile(r"Expected a (?!path|dot)(?:<class '([^']*)'>|typing\.Literal\[(.*?)\](?=$|\.))", re.MULTILINE)
NARROWED = re.compile(r"Not of type (\w+)")  # a number within bounds
GIVEN = re.compile(r"(?:Given|Got) value: (.*)")
EARLY = re.compile(r"NestedArg\(key='([^']*)', val=")  # an option of a class that is not named yet
CHOICE = re.compile(r"argument subcommand: invalid choice: '([^']*)' \(choose from (.*)\)")
DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
MOST_LINES = 6  # of a message that becomes one
HELP = {"data": "--data.help", "model": "--model.help"}
KINDS = {"data": "lambda_seq.tasks.data.base.Data", "model": "lambda_seq.tasks.training.Training"}
PLAIN = {
    "NoneType": "null",
    "str": "text",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "PositiveInt": "a whole number above 0",
    "NonNegativeInt": "a whole number of at least 0",
    "PositiveFloat": "a number above 0",
    "NonNegativeFloat": "a number of at least 0",
}


@dataclass
class Found:
    """What a message is about.

    Attributes:
        key: the option, as far as it is known, such as "data" or "trainer.max_epochs".
        cls: the class whose option or value it is; "" for none.
    """

    key: str
    cls: str
    message: str
    words: Sequence[str] = field(default_factory=list)

    def place(self, name: str, value: str = "") -> str:
        """The option and a value as they were written: on the command line, or in a configuration."""
        option = f"--{name} {value}".rstrip()
        for word in self.words:
            written = word.partition("=")[0].rstrip("+")
            if written.startswith("--") and written[2:].replace(".init_args.", ".") == name:
                return option
        last = name.rpartition(".")[2]
        files = [Path(word.partition("=")[2] if word.startswith("-") else word) for word in self.words]
        for file in files:
            if file.suffix in (".yaml", ".yml") and file.is_file():
                text = file.read_text(encoding="utf-8", errors="replace")
                if re.search(rf"\b{re.escape(last)}\b", text):
                    return f"{file}: {name}{': ' if value else ''}{value}"
        return option


def in_a_line(message: str, parser: Any, words: Sequence[str] = ()) -> str:
    """What is wrong, and what would be right.

    Args:
        message: of jsonargparse.
        parser: of the subcommand, whose options there are.
        words: of the command line.
    """
    keys, classes = KEY.findall(message), ["".join(found) for found in CLASS.findall(message)]
    found = Found(".".join(keys), classes[-1] if classes else "", message, words)
    for read in (_unrecognised, _refused, _early, _unknown_class, _unknown_module, _wrong_value, _missing):
        line = read(found, parser)
        if line:
            return " ".join(line.split())
    return " ".join(message.split()) if message.count("\n") < MOST_LINES else message


def nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The names most alike, best first; those that end alike, as --batch_size and --data.batch_size, before others."""
    wanted, last = name.lower().lstrip("-"), name.lower().rpartition(".")[2].lstrip("-")
    scored = []
    for one in dict.fromkeys(known):
        plain, tail = one.lower().lstrip("-"), one.lower().rpartition(".")[2].lstrip("-")
        whole = SequenceMatcher(None, wanted, plain).ratio()
        # An option by the last part of its name is meant, whatever is in front
        alike = 0.9 * SequenceMatcher(None, last, tail).ratio() + 0.1 * whole
        scored.append((max(whole, alike) if "." in one else whole, one))
    best = max((score for score, _ in scored), default=0.0)
    return [one for score, one in sorted(scored, key=lambda pair: -pair[0]) if score >= max(0.6, best - 0.12)][:most]


def _meant(names: Sequence[str]) -> str:
    """The end of a sentence: what may have been meant."""
    *others, last = names or [""]
    return f"; did you mean {', '.join(others)}{' or ' if others else ''}{last}?" if last else "."


def _unrecognised(found: Found, parser: Any) -> str:
    """Words that belong to no option, and options that no parser has."""
    start = "unrecognized arguments: "
    if not found.message.startswith(start):
        return ""
    word = found.message.removeprefix(start).split()[0]
    name = word.partition("=")[0]
    if not word.startswith("-"):
        return f"{word}: belongs to no option; options begin with --, and lists are written --option [a,b]"
    known = list(_options(parser))
    if name in known:
        return f"{name}: options stand behind a command: lambda-seq fit {name} ..."
    near = nearest(name, known)
    return f"{name}: there is no such option{_meant(near)} All: lambda-seq {_command(parser)} --help"


def _refused(found: Found, parser: Any) -> str:
    """A name that a class, or a configuration, does not take."""
    match = REFUSED.search(found.message)
    if match is None:
        return ""
    name, before = match.groups()
    if before:
        return f"--config stands in front of the command: write lambda-seq fit --config NAME (option {name!r})"
    if not found.cls:
        known = [option.removeprefix("--") for option in _options(parser)]
        near = nearest(name.replace(".init_args.", "."), known)
        return f"{found.place(name)}: there is no such option{_meant(near)} All: lambda-seq {_command(parser)} --help"
    whole = f"{found.key}.{name}" if found.key else name
    prefix = f"{found.key}." if found.key else ""
    near = [f"{prefix}{one}" for one in nearest(name, parameters(found.cls))]
    place, owner = found.place(whole), found.cls.rpartition(".")[2]
    if place.startswith("--"):
        near = [f"--{one}" for one in near]
    asks = f" All: lambda-seq {_command(parser)} {HELP[found.key]} {owner}" if found.key in HELP else ""
    others = [cls.__name__ for cls in _known(found.key) if name in parameters(class_path(cls))]
    if others:
        return f"{place}: {owner} has no such option, but {' and '.join(others)} has.{asks}"
    return f"{place}: {owner} has no such option{_meant(near)}{asks}"


def _early(found: Found, parser: Any) -> str:
    """An option of a class that is named behind it, or not at all."""
    match = EARLY.search(found.message)
    if match is None or found.key not in KINDS:
        return ""
    option = f"--{found.key}.{match[1]}"
    if any(word.partition("=")[0] == "--config" for word in found.words):
        return f"{option} stands before --config, which names the {found.key} that it belongs to; give --config first"
    return (
        f"{option}: there is no {found.key} yet that it belongs to; name a configuration first, as in --config pixels"
    )


def _unknown_class(found: Found, parser: Any) -> str:
    """The name of a class that is nowhere."""
    match = NO_CLASS.search(found.message)
    if match is None:
        return ""
    name, module, attribute = match.groups()
    known = sorted(_names_of_classes(found.message))
    near = nearest(attribute or name, known)
    if module and not near:
        near = [f"{module}.{one}" for one in nearest(attribute, vars(import_module(module)))]
    given = name or f"{module}.{attribute}"
    key = found.key or found.message.partition(":")[0].removeprefix("--")
    near = near or nearest(given, (cls.__name__ for cls in _known(key.partition(".")[0])))
    return f"{found.place(key, given)}: there is no such class{_meant(near)} One of yours: my_module.MyClass"


def _unknown_module(found: Found, parser: Any) -> str:
    """A class of a module that is nowhere."""
    match = NO_MODULE.search(found.message)
    if match is None or not found.cls:
        return ""
    module = match[1]
    return (
        f"{found.place(found.key, found.cls)}: there is no module {module}; run the command in the folder that holds "
        f"{module.partition('.')[0]}.py, or put that folder into PYTHONPATH"
    )


def _wrong_value(found: Found, parser: Any) -> str:
    """A value of another type than the option has."""
    given = GIVEN.findall(found.message)
    leaf = found.message[found.message.rfind('Parser key "') :]  # of the innermost option
    kinds, narrowed = EXPECTED.findall(leaf), NARROWED.findall(leaf)
    if not given or not (kinds or narrowed) or not found.key:
        return ""
    if len(KEY.findall(found.message)) > 1 and len(kinds) > 1:  # the last is what its class could be
        kinds = kinds[:-1]
    choices = [part.strip(" '\"") for _, literal in kinds if literal for part in literal.split(",")]
    names = [*narrowed, *(kind.rpartition(".")[2] for kind, _ in kinds if kind)]
    types = [PLAIN.get(name, name) for name in names]
    types = [kind for kind in types if not (choices and kind == PLAIN["int"])]
    *others, last = dict.fromkeys([*choices, *types])
    wanted = f"{', '.join(others)} or {last}" if others else last
    near = nearest(given[0], choices, most=1)
    return f"{found.place(found.key, given[0])}: expected {wanted}{_meant(near).rstrip('.')}"


def _missing(found: Found, parser: Any) -> str:
    """A command that is none, or lacks something."""
    if match := CHOICE.match(found.message):
        commands = ["data" if name == INSPECT else name for name in re.findall(r"\w+", match[2])]
        near = nearest(match[1], commands)
        return f"{match[1]}: there is no such command{_meant(near)} Commands are {', '.join(commands)}"
    if found.message.startswith("the following arguments are required") and "data" in found.message:
        return (
            "neither data nor model: name a configuration, as in --config text_classification; lambda-seq configs "
            "lists them"
        )
    if found.message.startswith('expected "subcommand"'):
        return "no command: write lambda-seq fit --config NAME; lambda-seq --help lists the commands"
    if "expected one argument" in found.message and found.words and found.words[-1].startswith("--"):
        return f"{found.words[-1]}: a value is missing"
    return ""


@cache
def parameters(path: str) -> list[str]:
    """Options of a class, as the command line has them."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(class_at(path), skip={"facts"}, fail_untyped=False)
    return list(vars(parser.get_defaults().as_flat()))


def _options(parser: Any) -> Iterator[str]:
    """Options of a parser, and those of the data modules and tasks that are known."""
    yield from (f"--{name}" for name in vars(parser.get_defaults().as_flat()))
    yield from ("--config", "--help", "--print_config")
    for group in KINDS:
        for cls in _known(group):
            yield from (f"--{group}.{name}" for name in parameters(class_path(cls)))
    yield from ("--model.optimizer.lr", "--model.optimizer.weight_decay")


def class_path(cls: type) -> str:
    """Module and name of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def _known(group: str) -> list[type]:
    """Data modules, or tasks, that can be named."""
    return list(_below(class_at(KINDS[group]))) if group in KINDS else []


def _command(parser: Any) -> str:
    return str(getattr(parser, "subcommand", None) or "fit")


def _below(base: type) -> Iterator[type]:
    """Classes that derive from one and can be made, by their names."""
    derived: list[type] = base.__subclasses__()
    for cls in derived:
        if not getattr(cls, "__abstractmethods__", None) and not cls.__name__.startswith("_"):
            yield cls
        yield from _below(cls)


def _names_of_classes(message: str) -> set[str]:
    """Names of the classes that a value may name, by the types in a message."""
    types = " ".join(re.findall(r"Subtypes: \[(.*)\]", message)[-1:])
    names: set[str] = set()
    for path in DOTTED.findall(types):
        if path.startswith(("typing.", "collections.")):
            continue
        try:
            base = class_at(path)
        except (ImportError, AttributeError):
            continue
        if isinstance(base, type):
            names |= {cls.__name__ for cls in _below(base)}
    return names

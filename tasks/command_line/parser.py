"""The parser of the command line: its options, and one line for a mistake."""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from lambda_seq.tasks.command_line.mistakes import in_a_line

TRACEBACK = "LAMBDA_SEQ_TRACEBACK"


def with_null(word: str) -> str:
    """--name=[31, null] of --name=[31, None], as jsonargparse hands values on: as Python writes them."""
    name, equals, value = word.partition("=")
    if not equals or "None" not in value:
        return word
    try:
        return f"{name}={json.dumps(ast.literal_eval(value), ensure_ascii=False)}"
    except (ValueError, SyntaxError, TypeError):  # a word that has these letters
        return word


class Parser(LightningArgumentParser):
    """A parser whose models have no option `facts`, which the data say, and whose errors are one line."""

    def __init__(self, *given: Any, **options: Any) -> None:
        """As usual, but options have to be written out: a part of a name may be another tomorrow."""
        super().__init__(*given, **({"allow_abbrev": False} | options))

    def add_subclass_arguments(self, *given: Any, **options: Any) -> Any:
        """As usual, but for `facts`."""
        return super().add_subclass_arguments(*given, **({"skip": {"facts"}} | options))

    def dump(self, *given: Any, **options: Any) -> str:
        """As usual, but for what has been parsed, and so is not validated again."""
        return str(super().dump(*given, **({"skip_validation": True} | options)))

    def save(self, *given: Any, **options: Any) -> None:
        """As usual, but for what has been parsed, and so is not validated again."""
        super().save(*given, **({"skip_validation": True} | options))

    def parse_args(  # type: ignore[override]  # as jsonargparse has it, without the names
        self, args: Sequence[str] | None = None, *given: Any, again: bool = False, **options: Any
    ) -> Any:
        """As usual; again, what the user gave has been parsed, and all mistakes in it have been said."""
        if again:  # private to jsonargparse; the parser of the command, in this one, validates all the same
            options["_skip_validation"] = True
        if args is not None and not self.exit_on_error:  # an option within an option
            args = [with_null(word) for word in args]
        return super().parse_args(args, *given, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with what is wrong, and the nearest names, in one line; with LAMBDA_SEQ_TRACEBACK=1 as jsonargparse does.

        Raises:
            SystemExit: always, with status 2.
        """
        if os.environ.get(TRACEBACK) or not self.exit_on_error:
            super().error(message, ex)
        try:
            line = in_a_line(message, getattr(ex, "subcommand_parser", None) or self, sys.argv[1:])
        except Exception:  # what is wrong must be said, even if nothing better is found
            line = message
        print(f"error: {line}", file=sys.stderr)
        self.exit(2)

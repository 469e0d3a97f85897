"""How a command follows its recipe: its words, and behind them those of the choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback
from lightning.pytorch.cli import LightningArgumentParser

from lambda_seq.tasks.callbacks.agreeing import SameChoices
from lambda_seq.tasks.checkpointing.options import flattened
from lambda_seq.tasks.data import Data
from lambda_seq.tasks.recipes.choosing import as_words, measured_choices, say, says_all, trained_choices
from lambda_seq.tasks.recipes.registry import Choice, named
from lambda_seq.tasks.strategies.processes import pass_on, passed_on

PRINTS = "--print_config"


class Following:
    """A command line whose recipe, if it has one, chooses what is left to it.

    Choices are options like all others: they are put behind those that were given, and all are parsed again. So they
    are printed by --print_config, kept in the saved configuration and in checkpoints, and compared when a run goes on.

    Args:
        parser: of the command line.
        words: of the command line.

    Attributes:
        choices: once they are chosen.
        data: the data module that was measured.
    """

    def __init__(self, parser: LightningArgumentParser, words: Sequence[str]) -> None:
        self.parser, self.given = parser, list(words)
        self.choices: list[Choice] = []
        self.data: Data | None = None
        self._done = False

    @property
    def words(self) -> list[str]:
        """The command line with the choices."""
        return [*self.given, *as_words(self.choices)]

    @property
    def callbacks(self) -> list[Callback]:
        """What sees that all processes have the same choices."""
        return [SameChoices(as_words(self.choices))] if self.choices else []

    def put_aside(self) -> list[str]:
        """Take away what has a configuration printed, if a recipe is named, as the choices have to come first."""
        if not any(map(_prints, self.given)) or not _names_recipe(self.given):
            return []
        aside = list(filter(_prints, self.given))
        self.given = [word for word in self.given if not _prints(word)]
        return aside

    def choose(self, config: Any, check: Callable[[Any], None] | None = None) -> bool:
        """Let the recipe choose, unless it has; for a checkpoint what its run had, else for the training data.

        Args:
            config: what the words were parsed to; in its subcommand, `ckpt_path` is the file of a checkpoint or None.
            check: refuses what is wrong with the objects that the options without the choices make, before data are
                read.

        Returns:
            Whether the words are to be parsed again.

        Raises:
            ValueError: there is no such recipe, it is for other data, or these cannot be read.
        """
        options = config[config.subcommand]
        if self._done or options.recipe is None:
            return False
        recipe, self._done = named(options.recipe), True
        if (passed := passed_on()) is not None:
            self.choices = [Choice(*one) for one in passed]
            return True
        parsed = self.parser.parse_args(self.given, defaults=False, again=True)
        given = flattened(parsed[config.subcommand].as_dict(), nothing=True)
        source, trained = options.ckpt_path, []
        if source is not None:
            trained = trained_choices(recipe, source, options, given)
            say(f"{recipe.name}: its choices are those of {source}")
        if source is None or not says_all(source):
            made = self.parser.instantiate_classes(config)[config.subcommand]
            if check is not None:
                check(made)
            given |= {one.option: one.value for one in trained}
            sentence, chosen = measured_choices(recipe, made.data, options, given)
            self.choices, self.data = [*trained, *chosen], made.data
            say(f"{recipe.name}: {sentence}", chosen)
        else:
            self.choices = trained
        pass_on(self.choices)
        return True

    def hand_over(self, data: Data) -> None:
        """Give a data module what the measured one has read."""
        if self.data is not None:
            data.take_over(self.data)
            self.data = None


def _prints(word: str) -> bool:
    return word.partition("=")[0] == PRINTS


def _names_recipe(words: Sequence[str]) -> bool:
    """Whether one is named, by an option or in a configuration; without parsing, which prints and ends at once."""
    found, before = None, ""
    for word in words:
        option, equals, value = word.partition("=") if word.startswith("-") else (before, "=", word)
        if equals and option == "--recipe":
            found = value
        elif equals and option in ("--config", "-c") and Path(value).is_file():
            given = yaml.safe_load(Path(value).read_text(encoding="utf-8"))
            found = given.get("recipe", found) if isinstance(given, dict) else found
        before = word
    return found not in (None, "null", "None")

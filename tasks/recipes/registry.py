"""What a recipe is, and which there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NamedTuple

from lambda_seq.tasks.data import ClassificationData

RECIPES: dict[str, Recipe] = {}


class Choice(NamedTuple):
    """An option by its name on the command line, its value, and why it has that."""

    option: str
    value: Any
    why: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is known of the data when options are chosen.

    Attributes:
        rows: to train on.
        validation: rows to validate on, 0 for none.
        classes: training rows of each class, or label.
        target: what is known of a row: "classes", one of them; "labels", any of several; or "numbers".
        given: options that were given, by their names on the command line; what follows from them has to fit.
    """

    rows: int
    validation: int = 0
    classes: tuple[int, ...] = ()
    target: str = "classes"
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """Rows, their lengths and their classes, in a line."""
        raise NotImplementedError(f"{type(self).__name__} has no sentence")


@dataclass(frozen=True)
class Recipe:
    """How options are chosen for a kind of data.

    Attributes:
        name: what `--recipe` calls it.
        data: the data module whose data it is for.
        measure: looks at the training data of such a module.
        choose: the options for what was measured, whatever else is given; a pure function.
        options: all that it may choose. A run that goes on, and the test of a run, take these from its checkpoint.
        networks: whose sizes it chooses. A network of another name keeps what its name stands for.
        anywhere: options of the network that it chooses for others, too.
    """

    name: str
    data: type[ClassificationData]
    measure: Callable[[Any], Measured]
    choose: Callable[[Any], list[Choice]]
    options: tuple[str, ...]
    networks: tuple[str, ...]
    anywhere: tuple[str, ...] = ()


def register(recipe: Recipe) -> Recipe:
    """Let `--recipe` know it.

    Raises:
        ValueError: its name is taken.
    """
    if recipe.name in RECIPES:
        raise ValueError(f"recipe={recipe.name!r} is registered already: choose another name")
    RECIPES[recipe.name] = recipe
    return recipe


def named(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, n=1, cutoff=0.5)
        meant = f"did you mean {near[0]}? The " if near else "the "
        raise ValueError(
            f"recipe={name!r}: {meant}recipes are {', '.join(sorted(RECIPES))}; null chooses nothing: --recipe null"
        )
    return RECIPES[name]

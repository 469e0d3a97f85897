"""Networks by name: `create_model("lambda_resnet50", num_classes=10)`."""

from __future__ import annotations

import difflib
import fnmatch
import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from lambda_seq.layers.options import advice

if TYPE_CHECKING:
    from lambda_seq.models.model import Model


_CLASSES: dict[str, type[Model]] = {}  # by what saved models call them
_PACKAGE = f"{__name__.partition('.')[0]}."


def register_class(kind: type[Model]) -> None:
    """Let models be created by the name of their class, as those that were constructed directly are saved by."""
    _CLASSES[class_name(kind)] = kind


def class_name(kind: type) -> str:
    """What a saved model calls its class: "LambdaEncoder"; of classes of others with their module in front."""
    own = kind.__module__.startswith(_PACKAGE)
    return kind.__qualname__ if own else f"{kind.__module__}.{kind.__qualname__}"


class Entry(NamedTuple):
    """A class, or function, that builds a model, and the options that a name stands for."""

    builder: Callable[..., Model]
    defaults: dict[str, Any]


Builder = TypeVar("Builder", bound="Callable[..., Model]")

_ENTRIES: dict[str, Entry] = {}


def register_model(name: str, **defaults: Any) -> Callable[[Builder], Builder]:
    """Decorator that makes a model class (or function) available as `create_model(name)`.

    Can be stacked: each name is one set of options of the same class.

    Args:
        name: a name that is still free.
        defaults: options that the name stands for; `create_model(name, ...)` overrides any of them.

    Raises:
        ValueError: the name is taken.
        TypeError: the class has no such option.
    """
    if name in _ENTRIES:
        raise ValueError(f"name={name!r} is registered already: choose another, taken are {_listed(_ENTRIES)}")

    def register(builder: Builder) -> Builder:
        _check_options(name, defaults, _parameters(builder))
        _ENTRIES[name] = Entry(builder, defaults)
        return builder

    return register


def is_own(name: str) -> bool:
    """Whether the network of this name is one of this package."""
    return _entry(name).builder.__module__.startswith(_PACKAGE)


def check_options(name: str, options: Iterable[str]) -> None:
    """Raise TypeError unless `create_model(name, ...)` takes options of these names; ValueError for an unknown name."""
    _check_options(name, options, accepted_options(name))


def create_model(name: str, **options: Any) -> Model:
    """Build the network of this name, with random weights.

    Args:
        name: one of `list_models()`, or a class, such as "LambdaEncoder", as models that were constructed directly are
            saved by.
        options: keyword arguments of the network, in place of what the name stands for; `accepted_options(name)`
            lists them.

    Raises:
        ValueError: no network has this name, or an option's value does not fit.
        TypeError: the network has no such option.
    """
    entry = _entry(name)
    check_options(name, options)
    options = {**entry.defaults, **options}
    model = entry.builder(**options)
    model.name, model.options = (None if name in _CLASSES else name), options
    return model


def list_models(pattern: str = "*") -> list[str]:
    """Names of the registry that match a shell pattern, sorted: `list_models("lambda_resnet*")`."""
    return sorted(fnmatch.filter(_ENTRIES, pattern))


def accepted_options(name: str) -> set[str]:
    """Names of the options that `create_model(name, ...)` takes.

    Raises:
        ValueError: no network has this name.
    """
    return _parameters(_entry(name).builder)


def class_of(name: str) -> str:
    """The class, or function, that builds the network of this name.

    Raises:
        ValueError: no network has this name.
    """
    return _entry(name).builder.__qualname__


def advised(kind: str) -> str:
    """How to choose a network that takes "tokens", "features", "waveform" or "image", in words."""
    offers = (model.takes[kind] for model in _CLASSES.values() if kind in model.takes)
    return next(offers, f"a network that takes {kind}")


def _entry(name: str) -> Entry:
    if name in _CLASSES:
        return Entry(_CLASSES[name], {})
    if name not in _ENTRIES:
        close = difflib.get_close_matches(str(name), _ENTRIES, n=3)
        module, dot, _ = str(name).rpartition(".")
        if dot:
            raise ValueError(
                f"name={name!r} is no model here: import {module}, which defines the class, or load by the class's own "
                "from_pretrained"
            )
        hint = f"did you mean {_listed(close)}?" if close else f"expected one of {_listed(sorted(_ENTRIES))}"
        raise ValueError(f"name={name!r} is no model: {hint} list_models() gives all names")
    return _ENTRIES[name]


def _check_options(name: str, options: Iterable[str], accepted: set[str]) -> None:
    for option in options:
        if option not in accepted:
            raise TypeError(f"{name} has no option {option!r}: {advice(option, accepted)}")


def _parameters(builder: Callable[..., Model]) -> set[str]:
    parameters = inspect.signature(builder).parameters
    found = {name for name, parameter in parameters.items() if parameter.kind not in _VARIADIC}
    if isinstance(builder, type) and any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        for base in builder.__bases__:  # which a subclass passes the others on to
            if base in _CLASSES.values():
                found |= _parameters(base)
    return found


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))

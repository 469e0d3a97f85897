"""Networks by name: `create_model("lambda_resnet50", num_classes=10)`."""

from __future__ import annotations

import difflib
import fnmatch
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from lambda_seq.models.sharing import Pretrained


class Model(Pretrained):
    """What every network of the registry carries, beside its weights, for a checkpoint, a task or a saved folder.

    Attributes:
        num_classes: length of the last dimension of the output.
        input_kind: what `forward` takes: "image" (B, C, H, W), "tokens" (B, N), "waveform" (B, N) or (B, N, C),
            or "features" (B, N, C).
        vocab_size: number of token ids, of a network that takes tokens; None for others.
        name: the name it was created by; None when constructed directly.
        options: the options it was created with, those that the name stands for included, so that
            `create_model(name, **options)` builds it again; None when constructed directly.
        labels: names of the classes, in order; None where not known. They, the tokenizer and the preprocessing are
            there after `from_pretrained`, and what `save_pretrained` writes unless others are given.
        tokenizer: a `tokenizers.Tokenizer` that makes tokens of text; None for bytes, or where the input is no text.
        preprocessing: facts of the data that inference needs: mean, std, sampling rate, …
    """


class Entry(NamedTuple):
    """A class, or function, that builds a model, and the options that a name stands for."""

    builder: Callable[..., Model]
    defaults: dict[str, Any]


Builder = TypeVar("Builder", bound=Callable[..., Model])

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


def create_model(name: str, **options: Any) -> Model:
    """Build the network of this name, with random weights.

    Args:
        name: one of `list_models()`.
        options: keyword arguments of the network, in place of what the name stands for; `accepted_options(name)`
            lists them.

    Raises:
        ValueError: no network has this name, or an option's value does not fit.
        TypeError: the network has no such option.
    """
    entry = _entry(name)
    _check_options(name, options, accepted_options(name))
    options = {**entry.defaults, **options}
    model = entry.builder(**options)
    model.name, model.options = name, options
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


def _entry(name: str) -> Entry:
    if name not in _ENTRIES:
        close = difflib.get_close_matches(str(name), _ENTRIES, n=3)
        advice = f"did you mean {_listed(close)}?" if close else f"expected one of {_listed(sorted(_ENTRIES))}"
        raise ValueError(f"name={name!r} is no model: {advice} list_models() gives all names")
    return _ENTRIES[name]


def _check_options(name: str, options: Iterable[str], accepted: set[str]) -> None:
    for option in options:
        if option not in accepted:
            close = difflib.get_close_matches(option, accepted, n=1, cutoff=0.7)
            advice = f"did you mean {close[0]!r}? It" if close else "It"
            raise TypeError(f"{name} has no option {option!r}: {advice} accepts {', '.join(sorted(accepted))}")


def _parameters(builder: Callable[..., Model]) -> set[str]:
    return {
        name for name, parameter in inspect.signature(builder).parameters.items() if parameter.kind not in _VARIADIC
    }


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))

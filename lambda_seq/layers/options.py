"""A lambda layer's options: names, types, defaults, descriptions and checks, once for layers and networks.

A constructor takes them as keyword arguments, `**options: Unpack[SequenceOptions]`, which editors complete and type
checkers know; `with_options` writes them out in its signature and its documentation, and `complete` checks what is
given and adds the defaults of the rest.
"""

from __future__ import annotations

import difflib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Annotated, Any, TypedDict, TypeVar, get_args, get_type_hints

from torch import nn

from lambda_seq import functional as LF
from lambda_seq.layers import checks
from lambda_seq.layers.norm import NORMS
from lambda_seq.layers.positions.embedding import INITS
from lambda_seq.layers.positions.registry import described

QUERY_NORMS = ("none", "softmax")
RENAMED = {"lambda_norm": "norm", "position_init": "init"}  # of networks, once


Check = Callable[[str, Any], None]


@dataclass(frozen=True)
class Option:
    """What is to be said of an option beside its name and type.

    Attributes:
        default: its value where none is given.
        text: what it means.
        check: raises TypeError or ValueError, of name and value, for a value that never fits.
    """

    default: Any
    text: str
    check: Check = lambda name, value: None


def count(name: str, value: object) -> None:
    """Raise TypeError or ValueError unless it is at least 1."""
    checks.at_least_one(**{name: value})


def count_or_zero(name: str, value: object) -> None:
    """Raise TypeError or ValueError unless it is at least 0."""
    checks.at_least_zero(**{name: value})


def flag(name: str, value: object) -> None:
    """Raise TypeError unless it is True or False."""
    checks.flags(**{name: value})


def rate(name: str, value: object) -> None:
    """Raise TypeError or ValueError unless it is a probability below 1."""
    checks.probability(**{name: value})


def amount(name: str, value: Any) -> None:
    """Raise TypeError or ValueError unless it is a number of at least 0."""
    checks.numbers(**{name: value})
    if value is None or value < 0:
        raise ValueError(f"{name}={value}: expected a number of at least 0")


def among(*choices: str) -> Check:
    """A check that raises ValueError unless a value is one of the choices."""
    return partial(checks.one_of, choices=choices)


def optional(check: Check) -> Check:
    """A check that lets None pass."""
    return lambda name, value: None if value is None else check(name, value)


class HeadOptions(TypedDict, total=False):
    """The queries of a lambda layer."""

    heads: Annotated[int, Option(4, "queries that share one lambda; a divisor of the output channels.", count)]
    dim_key: Annotated[int, Option(16, "query and key depth K.", count)]


class LambdaOptions(HeadOptions, total=False):
    """What all lambda layers have, and all networks of them."""

    dim_intra: Annotated[int, Option(1, "intra-depth U, the number of lambdas summed.", count)]
    content: Annotated[bool, Option(True, "with the content lambda, which is global.", flag)]
    key_norm: Annotated[
        str,
        Option(
            "softmax",
            'keys over the context positions: "softmax", "l2" or "none".',
            among(*LF.KEY_NORMS),
        ),
    ]
    query_norm: Annotated[
        str,
        Option(
            "none",
            'queries over their depth: "none" or "softmax".',
            among(*QUERY_NORMS),
        ),
    ]
    query_bias: Annotated[
        float | None,
        Option(
            None,
            "a learned bias b of each head's queries, behind their norm: it adds λᵀb, a static convolution of the "
            "values and their summary, to the product with the input, λᵀq. Drawn with so many times the standard "
            "deviation that queries have at the start, such as 1.0. Norms with a bias begin with this one. None for "
            "none, or for norms whose bias begins at 0.",
            optional(amount),
        ),
    ]
    norm: Annotated[
        str | None,
        Option(
            None,
            'of queries and values, and of the layer\'s output in networks of sequences: "batch" (counts real '
            'positions only), "layer", "rms" or "none"; None for "batch", and for "rms" in causal layers, as batch '
            'statistics of training average over later positions. Causal layers take "batch" with a warning: they are '
            "causal in evaluation mode only.",
            optional(among(*NORMS)),
        ),
    ]
    init: Annotated[
        str, Option("scaled", 'of the position embedding: "scaled" or, of a table, "paper" (N(0, 1)).', among(*INITS))
    ]
    position_dropout: Annotated[
        float,
        Option(
            0.0,
            "of context offsets: the position embedding of a batch is zero at each offset with this probability, in "
            "training, and divided by the rest's.",
            rate,
        ),
    ]
    algorithm: Annotated[
        str,
        Option(
            "auto",
            'how `functional.lambda_layer` computes; "auto" lets `functional.plan` choose.',
            among(*LF.ALGORITHMS),
        ),
    ]


POSITION = f"embedding of the position lambda: {described()}; False for no position lambda."
CAUSAL = Option(
    False,
    'position n sees positions m ≤ n only; in training too, unless a norm is "batch". To the last bit, except that '
    'algorithm "fft", for long global scopes, has the rounding errors of all positions in each.',
    flag,
)


class LayerOptions(LambdaOptions, total=False):
    """What a layer has, and may share with others."""

    position: Annotated[
        bool | str | nn.Module,
        Option(
            True,
            f"{POSITION} A module replaces or shares one: it maps a size, (N,) or (H, W), to (U, K, *R), see "
            "`PositionEmbedding`.",
        ),
    ]


class SequenceOptions(LayerOptions, total=False):
    """A lambda layer for sequences, `LambdaLayer1d`."""

    scope: Annotated[
        int | None,
        Option(
            23,
            "context positions of the position lambda, odd (causal: any), centred on the query; None for all of them.",
        ),
    ]
    max_length: Annotated[
        int | None,
        Option(
            None,
            "for scope None only: largest N of a position table, of which shorter inputs use the middle; of the other "
            "embeddings, which take any N, what their scales cover (None: their default).",
        ),
    ]
    causal: Annotated[bool, CAUSAL]


class ImageOptions(LayerOptions, total=False):
    """Lambda layers for images, in networks too."""

    scope: Annotated[
        int | Sequence[int] | None,
        Option(23, "rows and columns of context of the position lambda, odd, an int or a pair; None for all of them."),
    ]


class ImageLayerOptions(ImageOptions, total=False):
    """A lambda layer for images, `LambdaLayer2d`."""

    max_size: Annotated[
        int | Sequence[int] | None,
        Option(
            None,
            "for scope None only: largest (H, W), or an int for both, of a position table, of which smaller inputs use "
            "the middle; of the other embeddings, which take any size, what their scales cover (None: their default).",
        ),
    ]


Options = TypeVar("Options", bound=Mapping[str, object])
Class = TypeVar("Class", bound=type)


@cache
def options_of(kind: Any) -> dict[str, tuple[Any, Option]]:
    """Type and description of each option of such a TypedDict."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: (hint.__origin__, hint.__metadata__[0]) for name, hint in hints.items()}


def complete(kind: type[Options], given: Options, owner: object) -> Options:
    """All options of this kind: those given, checked, and the defaults of the others.

    Args:
        kind: the TypedDict that describes them.
        given: keyword arguments of a constructor.
        owner: what is constructed, for errors.

    Raises:
        TypeError: an option that there is none of.
        TypeError, ValueError: a value that never fits.
    """
    known = options_of(kind)
    for name in given:
        if name not in known:
            named = {*inspect.signature(type(owner).__init__).parameters, *known} - {"self", "options"}
            raise TypeError(
                f"{type(owner).__name__}.__init__() got an unexpected keyword argument {name!r}: {advice(name, named)}"
            )
    full = {name: given.get(name, option.default) for name, (_, option) in known.items()}
    for name, (_, option) in known.items():
        option.check(name, full[name])
    return full  # type: ignore[return-value]


def part(kind: type[Options], options: Mapping[str, object]) -> Options:
    """Those of all the options that are of this kind."""
    return {name: options[name] for name in options_of(kind)}  # type: ignore[return-value]


def advice(name: str, known: Iterable[str]) -> str:
    """What may be meant by an option that there is none of, and which there are."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    hint = f"did you mean {close[0]!r}? " if close else ""
    if RENAMED.get(name) in known:
        further = ", and what was 'norm' is 'block_norm'" if name == "lambda_norm" and "block_norm" in known else ""
        hint = f"it is called {RENAMED[name]!r} now{further}. "
    return f"{hint}It accepts {', '.join(known)}"


def with_options(cls: Class) -> Class:
    """Decorator of a class whose `__init__` takes `**options: Unpack[kind]`: its signature and Args list them all.

    What it raises for them is added to its documentation, too.
    """
    init = cls.__init__  # type: ignore[misc]
    signature = inspect.signature(init)
    *parameters, last = signature.parameters.values()
    (kind,) = get_args(get_type_hints(init)[last.name])
    keyword = inspect.Parameter.KEYWORD_ONLY
    listed = [
        inspect.Parameter(name, keyword, default=option.default, annotation=annotation)
        for name, (annotation, option) in options_of(kind).items()
    ]
    init.__signature__ = signature.replace(parameters=[*parameters, *listed])
    if cls.__doc__:  # none under python -OO
        lines = [_line(name, option.text) for name, (_, option) in options_of(kind).items()]
        cls.__doc__ = re.sub(rf"^ *\*\*{last.name}:.*$", lambda _: "\n".join(lines), cls.__doc__, flags=re.MULTILINE)
        if "Raises:" not in cls.__doc__:
            cls.__doc__ = f"{cls.__doc__.rstrip()}\n\n{RAISES}\n    "
    return cls


RAISES = """    Raises:
        TypeError, ValueError: an option that does not fit, naming it, its value and what would."""


def _line(name: str, text: str) -> str:
    """An entry of Args."""
    return textwrap.fill(
        f"{name}: {text}", 120, initial_indent=" " * 8, subsequent_indent=" " * 12, break_on_hyphens=False
    )

"""Position embeddings by name."""

from __future__ import annotations

from collections.abc import Sequence

from lambda_seq.layers.positions.embedding import POSITIONS, PositionEmbedding, check_init, plain


def make_position(
    kind: str,
    intra: int,
    dim_key: int,
    *,
    dims: int,
    scope: Sequence[int] | None,
    max_size: Sequence[int] | None = None,
    causal: bool = False,
    init: str = "scaled",
) -> PositionEmbedding:
    """The position embedding of this kind.

    Args:
        kind: one of `POSITIONS`.
        intra: intra-depth U.
        dim_key: key depth K.
        dims: dimensions, 1 or 2.
        scope: offsets per dimension; None for global.
        max_size: for global scope: the largest input per dimension of a table, what the scales of the others cover.
        causal: offsets end at 0 (1D).
        init: "scaled" or, of a table, "paper".

    Raises:
        ValueError: an unknown kind, or an option that does not fit it.
    """
    if kind not in tuple(POSITIONS):
        raise ValueError(
            f"position={kind!r}: expected one of {', '.join(map(repr, POSITIONS))}, True for 'table', False for none, "
            "or a module"
        )
    check_init(init)
    made = POSITIONS[kind]
    if init != "scaled" and "init" not in made.takes:
        raise ValueError(f"init={init!r} with position={kind!r}: only position='table' has it; use init='scaled'")
    if scope is not None and "scope" not in made.takes:
        raise ValueError(
            f"position={kind!r} with scope={plain(scope)}: it reaches every offset, so the local scope, the default "
            "where none was given, does not apply; use scope=None, or position='multiscale'"
        )
    options = {"dims": dims, "scope": scope, "max_size": max_size, "causal": causal, "init": init}
    return made(intra, dim_key, **{name: options[name] for name in made.takes})


def needs_size(position: object, scope: object) -> bool:
    """Whether embeddings of this kind (True for "table") and scope need the largest input."""
    kind = "table" if position is True else position
    return scope is None and isinstance(kind, str) and kind in POSITIONS and POSITIONS[kind].sized


def without_size() -> str:
    """The kinds that run on any length with global scope, in words."""
    return " or ".join(repr(kind) for kind, found in POSITIONS.items() if not found.sized)


def described() -> str:
    """The kinds and what they are, in words."""
    return "; ".join(
        f'"{kind}"{" (or True)" if kind == "table" else ""}, {found.summary}' for kind, found in POSITIONS.items()
    )

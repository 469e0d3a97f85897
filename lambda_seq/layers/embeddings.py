"""Position embeddings by name."""

from __future__ import annotations

from collections.abc import Sequence

from lambda_seq.layers.exponential import ExponentialPosition
from lambda_seq.layers.multiscale import MultiScalePosition
from lambda_seq.layers.position import PositionEmbedding, RelativePositionTable, check_init, plain

POSITIONS = ("table", "multiscale", "exponential")


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
        kind: "table", "multiscale" or "exponential".
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
    if kind not in POSITIONS:
        raise ValueError(
            f"position={kind!r}: expected one of {', '.join(map(repr, POSITIONS))}, True for 'table', False for none, "
            "or a module"
        )
    check_init(init)
    if kind == "table":
        return RelativePositionTable(intra, dim_key, scope=scope, max_size=max_size, causal=causal, init=init)
    if init != "scaled":
        raise ValueError(f"init={init!r} with position={kind!r}: only position='table' has it; use init='scaled'")
    if kind == "multiscale":
        return MultiScalePosition(intra, dim_key, scope=scope, max_size=max_size, causal=causal, dims=dims)
    if scope is not None:
        raise ValueError(
            f"position='exponential' with scope={plain(scope)}: sums of exponentials reach every offset; "
            "use scope=None, or position='multiscale'"
        )
    return ExponentialPosition(intra, dim_key, max_size=max_size, causal=causal, dims=dims)

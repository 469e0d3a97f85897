"""The algorithms there are. Each is one file of this folder, which registers it at its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from lambda_seq.functional import algorithm, reference
from lambda_seq.functional.algorithm import Case, Registry, Shape, randoms
from lambda_seq.functional.position.operator import PositionOperator
from lambda_seq.functional.problem import origin, sized


class Algorithm(algorithm.Algorithm):
    """A way to compute the position lambda; the same function as every other one.

    Args:
        name: what `algorithm=` calls it, and the operator `lambda_seq::name`.
        summary: it in a few words, for the documentation of `algorithm=`.
        forward: query (B, H, Y, X, K), value (B, U, Y, X, V), embedding (U, K, RY, RX) without the offsets that no
            pair of positions has, and their `Sizes` -> output (B, H, Y, X, V), laid out in memory as (B, Y, X, H, V).
        backward: gradient of the output, then forward's arguments -> gradients of query, value (laid out like the
            output) and embedding (contiguous).
        count, supports, trusted: as of every algorithm.
        fuses: whether both passes take a content lambda (B, K, V), in float32, behind the sizes. Then the output is
            that of both lambdas, as is the gradient of query, and one for the content lambda comes last; `count` counts
            it where `Sizes.content` says so.

    Attributes:
        operator: of query, value, embedding and origin.
        operator_with_content: of query, value, embedding, a content lambda and origin.
    """

    def __init__(self, name: str, *others: Any, fuses: bool = False, **options: Any) -> None:
        super().__init__(name, *others, **options)
        self.fuses = fuses
        self.operator = PositionOperator(name, self.by_name)
        self.operator_with_content = PositionOperator(f"{name}_with_content", self.by_name, content=True)


def _case(shape: Shape, device: torch.device, dtype: torch.dtype) -> Case:
    """A problem to try an algorithm by."""
    s, first = shape, origin((shape.RY, shape.RX), False)
    lambdas = randoms(((s.B, s.K, s.V),), device, torch.promote_types(dtype, torch.float32)) if s.content else ()
    query, value, whole, grad = randoms(
        ((s.B, s.H, s.Y, s.X, s.K), (s.B, s.U, s.Y, s.X, s.V), (s.U, s.K, s.RY, s.RX), (s.B, s.H, s.Y, s.X, s.V)),
        device,
        dtype,
    )
    embedding, sizes = sized(query, value, whole, first)
    left, right, top, bottom = (
        count
        for axis, taps in ((1, s.RX), (0, s.RY))
        for before in (first[axis] - sizes.origin[axis],)
        for count in (before, taps - embedding.shape[2 + axis] - before)
    )

    def definition(query: Tensor, value: Tensor, embedding: Tensor, *lambdas: Tensor) -> tuple[Tensor]:
        # Offsets that no pair of positions has are clipped off the embedding, and have no gradient
        output = reference.position(query, value, F.pad(embedding, (left, right, top, bottom)), None, False)
        return (sum((torch.einsum("bkv,bhyxk->bhyxv", one, query) for one in lambdas), output),)

    names = ("output", *(f"gradient of {name}" for name in ("query", "value", "embedding", "content lambda")))
    sizes = sizes._replace(content=s.content)
    names = names if s.content else names[:-1]
    return Case(sizes, (query, value, embedding), sizes, (grad,), definition, names, tuple(lambdas))


# No powers of two, an image among them, scopes wider than the input, more values than one tile; and enough to do for a
# large GPU
REGISTRY: Registry[Algorithm] = Registry(
    "position",
    (
        Shape(2, 3, 1, 16, 20, 1, 203, 1, 31),
        Shape(1, 4, 2, 5, 9, 11, 13, 5, 27),
        Shape(1, 1, 1, 24, 64, 1, 300, 1, 63),
        Shape(2, 3, 1, 16, 20, 1, 203, 1, 31, content=True),
        Shape(2, 2, 1, 5, 9, 3, 5, 3, 3, content=True),
    ),
    Shape(4, 4, 1, 16, 64, 1, 16384, 1, 63),
    _case,
)
register = REGISTRY.register  # to `algorithm=`, `plan`, "auto", and the tests that all have to pass


class _Names(Sequence[str]):
    """What `algorithm=` may be; grows with the registry."""

    def _all(self) -> tuple[str, ...]:
        return ("auto", "naive", *REGISTRY)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return self._all()[index]

    def __len__(self) -> int:
        return 2 + len(REGISTRY)

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def __repr__(self) -> str:
        return repr(self._all())


ALGORITHMS: Sequence[str] = _Names()

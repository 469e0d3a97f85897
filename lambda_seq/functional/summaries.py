"""What all positions together come to, from which the content lambda is made: S, D and a, the fields of a `ScanState`.

    S = Σ_m p_m v_mᵀ    softmax: p = exp(k − a), D = Σ p, a = max k      l2: p = k, D = Σ k²      none: p = k, D = 0

With torch's operations these are a few plain lines, differentiated by autograd. Where "auto" may take a kernel, they
are one operator, `lambda_seq::summary`, which chooses when it runs, and computes again backward what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lambda_seq.functional.algorithm import Algorithm, Case, Registry, Shape, randoms
from lambda_seq.functional.applying import products, recorded
from lambda_seq.functional.calibration import kernels
from lambda_seq.functional.chunks import finite
from lambda_seq.functional.operators import Operator, plainly
from lambda_seq.functional.plan import fastest
from lambda_seq.functional.problem import Sizes
from lambda_seq.functional.scan import ScanState
from lambda_seq.functional.transforms import Once, folding
from lambda_seq.functional.work import Work

ROWS = 16  # positions; measured


def summary(key: Float[Tensor, "B U M K"], value: Float[Tensor, "B U M V"], key_norm: str) -> ScanState:
    """The state that a scan over all these positions ends with, without their outputs: many times faster.

    Sums, and the softmax, are in float32 at least, whatever the dtype.
    """
    if _by_operator(key):
        return ScanState(*SUMMARY.entry(key, value)(key, value, key_norm))
    return ScanState(*plain(key, value, key_norm))


def _by_operator(key: Tensor) -> bool:
    """Whether a kernel may be taken: a program that is recorded for a GPU asks when it runs."""
    if torch.compiler.is_compiling():
        return key.device.type != "cpu"
    return bool(SUMMARIES.keys() & kernels(key.device, key.dtype))


def plain(key: Tensor, value: Tensor, key_norm: str) -> tuple[Tensor, Tensor, Tensor]:
    """S, D and a by torch's operations.

    Not torch's softmax, which adds up a million positions one after another: 2e-5 off in float32, 3e-2 at 16 million.
    """
    key, value = _wide(key), _wide(value)
    norm, top = (key.new_zeros(*key.shape[:2], 1, key.shape[-1]) for _ in range(2))
    if key_norm == "softmax":
        top = greatest(key.detach())
        key = (key - finite(top)).exp_()
        norm = key.sum(2, keepdim=True)
    elif key_norm == "l2":
        norm = key.square().sum(2, keepdim=True)
    return products(key, value), norm, top


def plain_backward(
    grad_sums: Tensor, grad_norm: Tensor, _: Tensor, key: Tensor, value: Tensor, key_norm: str
) -> tuple[Tensor, Tensor]:
    """Gradients of key and value; the maximum is a reference that no output depends on."""
    weights, values = _wide(key), _wide(value)
    grad_weights = values @ grad_sums.mT  # (B, U, M, K)
    if key_norm == "softmax":
        weights = (weights - finite(greatest(weights))).exp_()
        grad_weights = grad_weights.add_(grad_norm).mul_(weights)
    elif key_norm == "l2":
        grad_weights = grad_weights.addcmul_(weights, 2 * grad_norm)
    return _laid_out(grad_weights.to(key.dtype)), _laid_out((weights @ grad_sums).to(value.dtype))


def greatest(key: Float[Tensor, "B U M K"]) -> Float[Tensor, "B U 1 K"]:
    """key.amax(2, keepdim=True), by parts: many times faster."""
    rest = key.shape[2] % ROWS
    if recorded() or rest == key.shape[2]:
        return key.amax(2, keepdim=True)
    rows = key[:, :, : key.shape[2] - rest].unflatten(2, (-1, ROWS)).amax(2)  # (B, U, ROWS, K)
    return torch.maximum(rows, key[:, :, -ROWS:]).amax(2, keepdim=True)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _laid_out(tensor: Float[Tensor, "B U M D"]) -> Float[Tensor, "B U M D"]:
    """The same, in memory as (B, M, U, D)."""
    return tensor.transpose(1, 2).contiguous().transpose(1, 2)


def sizes_of(key: Float[Tensor, "B U M K"], value: Float[Tensor, "B U M V"]) -> Sizes:
    """Sizes of a problem, as `Sizes.of_content` has them."""
    batch, intra, count, dim_key = key.shape
    return Sizes(batch, 0, intra, dim_key, value.shape[-1], 1, count, 0, 0, (0, 0))


# The operator


Choose = Callable[[Sizes, torch.device, torch.dtype, bool], Algorithm]
_ARGUMENTS = "Tensor key, Tensor value, str key_norm"


class SummaryOperator(Operator):
    """The operator `lambda_seq::name` of key, value and key_norm.

    Args:
        name: of the operator.
        choose: sizes, device, dtype, whether backward -> the algorithm to run; asked when the operator runs.
    """

    def __init__(self, name: str, choose: Choose) -> None:
        def forward(key: Tensor, value: Tensor, key_norm: str) -> tuple[Tensor, ...]:
            algorithm = choose(sizes_of(key, value), key.device, key.dtype, False)
            found: tuple[Tensor, ...] = algorithm.forward(key, value, key_norm)
            return found

        def backward(
            grad_sums: Tensor, grad_norm: Tensor, grad_top: Tensor, key: Tensor, value: Tensor, key_norm: str
        ) -> tuple[Tensor, ...]:
            algorithm = choose(sizes_of(key, value), key.device, key.dtype, True)
            found: tuple[Tensor, ...] = algorithm.backward(grad_sums, grad_norm, grad_top, key, value, key_norm)
            return found

        super().__init__(
            name,
            plainly(forward),
            plainly(backward),
            f"({_ARGUMENTS}) -> (Tensor, Tensor, Tensor)",
            f"(Tensor grad_sums, Tensor grad_norm, Tensor grad_top, {_ARGUMENTS}) -> (Tensor, Tensor)",
            fakes=(_fake, _fake_backward),
            tensors=2,
            tangent=_tangent,
            mapped=(folding, folding),
            constant=(2,),
        )


def _fake(key: Tensor, value: Tensor, key_norm: str) -> tuple[Tensor, Tensor, Tensor]:
    state = ScanState.empty(key, value)
    return state.sums, state.norm, torch.empty_like(state.norm)


def _fake_backward(
    grad_sums: Tensor, grad_norm: Tensor, grad_top: Tensor, key: Tensor, value: Tensor, key_norm: str
) -> tuple[Tensor, Tensor]:
    return _laid_out(torch.empty_like(key)), _laid_out(torch.empty_like(value))


class _Tangent(Once):
    """Tangents of S and D, for `torch.func`: of key, value, their tangents and key_norm."""

    @staticmethod
    def forward(*inputs: Any) -> Any:
        return plainly(_moved)(*inputs)

    vmap = staticmethod(folding(lambda *inputs: _Tangent.apply(*inputs)))


def _moved(key: Tensor, value: Tensor, moved_key: Tensor, moved_value: Tensor, key_norm: str) -> tuple[Tensor, Tensor]:
    weights, value, moved, moved_value = (_wide(one) for one in (key, value, moved_key, moved_value))
    norm = torch.zeros_like(weights[:, :, :1])
    if key_norm == "softmax":
        weights = (weights - finite(greatest(weights))).exp_()
        moved = moved * weights
        norm = moved.sum(2, keepdim=True)
    elif key_norm == "l2":
        norm = 2 * (moved * weights).sum(2, keepdim=True)
    return products(moved, value) + products(weights, moved_value), norm


def _tangent(function: Any, inputs: Sequence[Tensor], tangents: Sequence[Tensor | None], key_norm: str) -> Any:
    moved = (torch.zeros_like(x) if t is None else t for x, t in zip(inputs, tangents, strict=True))
    return *_Tangent.apply(*inputs, *moved, key_norm), None


# The registry


class Summary(Algorithm):
    """A way to compute S, D and a.

    Args:
        name: of it, and of the operator `lambda_seq::name_summary`.
        summary: it in a few words.
        forward: key (B, U, M, K), value (B, U, M, V), key_norm -> S (B, U, K, V), D and a (B, U, 1, K), contiguous, in
            float32 at least; zeros for D, or a, that there is none of.
        backward: gradients of these, then forward's arguments -> gradients of key and value, laid out (B, M, U, ·).
        count, supports, trusted: as of every algorithm.
    """

    def __init__(self, name: str, *others: Any, **options: Any) -> None:
        super().__init__(name, *others, **options)
        self.operator = SummaryOperator(f"{name}_summary", self.by_name)


def _definition(key: Tensor, value: Tensor, key_norm: str) -> tuple[Tensor, Tensor, Tensor]:
    """One line each."""
    zeros = torch.zeros_like(key[:, :, :1])
    if key_norm == "softmax":
        top = key.detach().amax(2, keepdim=True)
        weights = (key - top).exp()
        return weights.mT @ value, weights.sum(2, keepdim=True), top
    return key.mT @ value, key.square().sum(2, keepdim=True) if key_norm == "l2" else zeros, zeros


def _case(shape: Shape, device: torch.device, dtype: torch.dtype) -> Case:
    """A problem to try an algorithm by."""
    s = shape
    sizes = ((s.B, s.U, s.X, s.K), (s.B, s.U, s.X, s.V))
    key, value = randoms(sizes, device, dtype)
    state = ((s.B, s.U, s.K, s.V), (s.B, s.U, 1, s.K), (s.B, s.U, 1, s.K))
    grads = tuple(randoms(state, device, torch.promote_types(dtype, torch.float32)))
    names = ("sum", "norm", "maximum", "gradient of key", "gradient of value")
    return Case(
        sizes_of(key, value),
        (key, value),
        s.key_norm,
        grads,
        partial(_definition, key_norm=s.key_norm),
        names,
    )


def count(s: Sizes, backward: bool) -> tuple[Work, float]:
    """Work of torch's operations, and floats of temporaries; with the backward pass or without."""
    keys, values = s.N * s.U * s.K, s.N * s.U * s.V
    work = Work(products=s.N * s.U * s.K * s.V, streamed=5 * keys + values, calls=10)
    if not backward:
        return work, float(keys)
    return work + Work(products=2 * s.N * s.U * s.K * s.V, streamed=8 * keys + 2 * values, calls=10), float(2 * keys)


SUMMARIES: Registry[Summary] = Registry(
    "content",
    (
        Shape(2, 0, 1, 16, 20, 1, 150),
        Shape(1, 0, 3, 5, 9, 1, 77, key_norm="l2"),
        Shape(1, 0, 1, 24, 64, 1, 70001),  # parts of several tiles
        Shape(1, 0, 2, 64, 128, 1, 100, key_norm="none"),
    ),
    Shape(4, 0, 1, 16, 64, 1, 65536),
    _case,
)
SUMMARIES.register(Summary("content", "torch's operations", plain, plain_backward, count))
SUMMARY = SummaryOperator(
    "summary", lambda sizes, device, dtype, backward: fastest(sizes, device, dtype, backward, SUMMARIES)
)

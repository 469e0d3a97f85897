"""The causal content lambda as a recurrence: (query, key, value, state) -> (output, state after).

    λᶜ_n = Σ_{m ≤ n} p_m v_mᵀ / d_n,   softmax: p_m = exp(k_m − a), d_n = Σ_{m ≤ n} p_m for any a
                                       l2: p_m = k_m, d_n = (Σ_{m ≤ n} k_m²)^½          none: p_m = k_m, d_n = 1

Many positions go chunk by chunk (`chunks.py`) through an operator that computes again in its backward pass what it
needs. One position is one step of the recurrence, a few plain operations on its state. Both are differentiable in
query, key, value and the state before, from the output and the state after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lambda_seq.functional.algorithm import Algorithm, Case, Registry, Shape, randoms
from lambda_seq.functional.chunks import Carry, Chunk, length_of, pieces
from lambda_seq.functional.operators import Operator, cast, plainly, without_autocast
from lambda_seq.functional.plan import fastest
from lambda_seq.functional.problem import Sizes
from lambda_seq.functional.reference import inverse_root
from lambda_seq.functional.states import State, tree
from lambda_seq.functional.transforms import Once, folding
from lambda_seq.functional.work import Work


@tree
@dataclass(frozen=True)
class ScanState(State):
    """What later queries see of the positions so far; never changed in place.

    Attributes:
        sums: S = Σ p vᵀ.
        norm: D, the sum of the weights p ("softmax") or of the squared keys ("l2"); zero for "none".
        top: a, the greatest keys so far, to which the weights of a softmax are relative; −∞ where there are none yet.
            No output depends on this reference: it has no gradient.
    """

    sums: Float[Tensor, "B U K V"]
    norm: Float[Tensor, "B U 1 K"]
    top: Float[Tensor, "B U 1 K"]

    @classmethod
    def empty(cls, key: Float[Tensor, "B U N K"], value: Float[Tensor, "B U N V"]) -> ScanState:
        """The state before the first position, in float32 at least, for keys and values of these shapes."""
        wide = torch.promote_types(key.dtype, torch.float32)
        batch, intra, _, dim_key = key.shape
        norm = key.new_zeros(batch, intra, 1, dim_key, dtype=wide)
        sums = key.new_zeros(batch, intra, dim_key, value.shape[-1], dtype=wide)
        return cls(sums, norm, torch.full_like(norm, -torch.inf))


def scan(
    query: Float[Tensor, "B H N K"],
    key: Float[Tensor, "B U N K"],
    value: Float[Tensor, "B U N V"],
    key_norm: str,
    state: ScanState | None = None,
) -> tuple[Float[Tensor, "B H N V"], ScanState]:
    """Causal content part of the output for positions that follow those of a state, or none, and the state after."""
    state = ScanState.empty(key, value) if state is None else state
    if key.shape[2] == 1 and not torch.jit.is_tracing():  # a trace shall serve any length
        return _step(query, key, value, key_norm, state)
    tensors = query, key, value, state.sums, state.norm, state.top
    output, *after = SCAN.entry(*tensors)(*tensors, key_norm)
    return output, ScanState(*after)


def _step(
    query: Float[Tensor, "B H 1 K"],
    key: Float[Tensor, "B U 1 K"],
    value: Float[Tensor, "B U 1 V"],
    key_norm: str,
    state: ScanState,
) -> tuple[Float[Tensor, "B H 1 V"], ScanState]:
    """`scan` of one position."""
    wide, dtype = state.sums.dtype, query.dtype
    query, key, value = (cast(tensor, wide) for tensor in (query.transpose(1, 2), key, value))  # query (B, 1, H, K)
    before, norm, top, weights = state.sums, state.norm, state.top, key
    with without_autocast(query.device):
        if key_norm == "softmax":
            top = torch.maximum(top, key).detach()
            reference = top.clamp_min(torch.finfo(wide).min)  # finite where nothing is visible yet
            shrink = (state.top.detach() - reference).exp()
            weights = (key - reference).exp()
            before, norm = shrink.mT * before, shrink * norm + weights
            query = query / norm.clamp_min(0.5)  # the greatest key's weight is 1: less only where nothing is visible
        elif key_norm == "l2":
            norm = norm + key.square()
            query = query * inverse_root(norm)
        sums = torch.addcmul(before, weights.mT, value)  # (B, U, K, V)
        output = query @ sums  # (B, U, H, V)
        output = output.sum(1) if output.shape[1] > 1 else output.squeeze(1)
    return cast(output, dtype).unsqueeze(2), ScanState(sums, norm, top)


class _Walk:
    """Inputs in compute precision, and the walk over their chunks."""

    def __init__(self, query: Tensor, key: Tensor, value: Tensor, key_norm: str, top: Tensor) -> None:
        wide = torch.promote_types(query.dtype, torch.float32)
        self.query = query.transpose(1, 2).to(wide)  # (B, N, H, K)
        self.key, self.value = key.to(wide), value.to(wide)  # (B, U, N, ·)
        self.key_norm = key_norm
        softmax = key_norm == "softmax"
        self.tops = torch.maximum(self.key.cummax(2).values, top) if softmax else top.expand_as(self.key)
        length = length_of(query.device, query.shape[0] * query.shape[1] * key.shape[1])
        self.parts = [slice(*one) for one in pieces(self.key.shape[2], self.tops if softmax else None, length)]

    def chunk(self, part: slice, before: Carry) -> Chunk:
        top = self.tops[:, :, part.stop - 1 : part.stop]
        return Chunk(self.query[:, part], self.key[:, :, part], self.value[:, :, part], before, top, self.key_norm)

    def forward(self, carry: Carry) -> Iterator[tuple[slice, Chunk, Carry]]:
        """Each chunk, where it is, and what it hands on, from what the first one goes on from."""
        for part in self.parts:
            chunk = self.chunk(part, carry)
            carry = chunk.after
            yield part, chunk, carry


def _exactly_summed(x: Tensor) -> Tensor:
    """In float64, in which thousands of chunks add up to rounding; as it is on a device that has none."""
    return x if x.device.type == "mps" else x.double()


def forward(
    query: Tensor, key: Tensor, value: Tensor, sums: Tensor, norm: Tensor, top: Tensor, key_norm: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output and the fields of the state after, from those of the state before."""
    walk = _Walk(query, key, value, key_norm, top)
    output = query.new_empty(*walk.query.shape[:-1], value.shape[-1])  # (B, N, H, V)
    carry = Carry(_exactly_summed(sums), _exactly_summed(norm), top)
    for part, chunk, after in walk.forward(carry):
        output[:, part] = chunk.output()
        carry = after
    return output.transpose(1, 2), *carry.to(sums.dtype, norm.dtype)


def tangent(
    query: Tensor, key: Tensor, value: Tensor, sums: Tensor, norm: Tensor, top: Tensor, *others: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Tangents of the output and of the sums and norm after it.

    Args:
        query, key, value, sums, norm, top: as for `forward`.
        others: tangents of query, key, value, sums and norm; key_norm.
    """
    moved_query, moved_key, moved_value, moved_sums, moved_norm, key_norm = others
    walk = _Walk(query, key, value, key_norm, top)
    moved = _Walk(moved_query, moved_key, moved_value, "none", top)  # for its layout only
    output = query.new_empty(*walk.query.shape[:-1], value.shape[-1])  # (B, N, H, V)
    for part, chunk, _ in walk.forward(Carry(sums, norm, top)):
        inputs = moved.query[:, part], moved.key[:, :, part], moved.value[:, :, part]
        output[:, part], moved_sums, moved_norm = chunk.tangent(*inputs, moved_sums, moved_norm)
    return output.transpose(1, 2), moved_sums, moved_norm.clone()


def backward(grad: Tensor, grad_sums: Tensor, grad_norm: Tensor, _: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    """Gradients of the inputs of `forward`, a walk forward for what chunks go on from and one back.

    The maximum is a reference that neither pass depends on: its gradient is zero, and not looked at.
    """
    query, key, value, sums, norm, top, key_norm = inputs
    walk = _Walk(query, key, value, key_norm, top)
    grad = grad.transpose(1, 2).to(walk.query.dtype)  # (B, N, H, V)
    carry = Carry(_exactly_summed(sums), _exactly_summed(norm), top)
    carries = [after.to(sums.dtype, norm.dtype) for *_, after in islice(walk.forward(carry), len(walk.parts) - 1)]
    grad_sums, grad_norm = _exactly_summed(grad_sums), _exactly_summed(grad_norm)
    grads = [_beside(tensor) for tensor in (query, key, value)]  # (B, N, ·, ·)
    for part, before in zip(reversed(walk.parts), reversed([Carry(sums, norm, top), *carries]), strict=True):
        chunk = walk.chunk(part, before)
        part_query, part_key, part_value, grad_sums, grad_norm = chunk.backward(grad[:, part], grad_sums, grad_norm)
        for whole, found in zip(grads, (part_query, part_key.transpose(1, 2), part_value.transpose(1, 2)), strict=True):
            whole[:, part] = found
    grad_sums, grad_norm = grad_sums.to(sums.dtype).contiguous(), grad_norm.to(norm.dtype).contiguous()
    return *(whole.transpose(1, 2) for whole in grads), grad_sums, grad_norm, top.new_zeros(top.shape)


def _beside(tensor: Tensor) -> Tensor:
    """(B, C, N, D) -> new memory (B, N, C, D), as results and gradients lie."""
    batch, channels, count, depth = tensor.shape
    return tensor.new_empty(batch, count, channels, depth)


Choose = Callable[[Sizes, torch.device, torch.dtype, bool], Algorithm]
_ARGUMENTS = "Tensor query, Tensor key, Tensor value, Tensor sums, Tensor norm, Tensor top, str key_norm"
_STATE = "Tensor grad_sums, Tensor grad_norm, Tensor grad_top"


def _fake(query: Tensor, key: Tensor, value: Tensor, *state: Any) -> tuple[Tensor, ...]:
    output = query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[-1])
    return output.transpose(1, 2), *(part.new_empty(part.shape) for part in state[:3])


def _fake_backward(
    grad: Tensor, grad_sums: Tensor, grad_norm: Tensor, grad_top: Tensor, *inputs: Any
) -> tuple[Tensor, ...]:
    tensors, state = inputs[:3], inputs[3:6]
    return *(_beside(tensor).transpose(1, 2) for tensor in tensors), *(part.new_empty(part.shape) for part in state)


class _Tangent(Once):
    """`tangent`, for `torch.func`."""

    @staticmethod
    def forward(*inputs: Any) -> Any:
        return plainly(tangent)(*inputs)

    vmap = staticmethod(folding(lambda *inputs: _Tangent.apply(*inputs)))


def _tangent(function: Any, inputs: Sequence[Tensor], tangents: Sequence[Tensor | None], key_norm: str) -> Any:
    moved = (torch.zeros_like(x) if t is None else t for x, t in zip(inputs[:5], tangents[:5], strict=True))
    return *_Tangent.apply(*inputs, *moved, key_norm), None


class ScanOperator(Operator):
    """The operator `lambda_seq::name` of query, key, value, the fields of a state, and key_norm.

    Args:
        name: of the operator.
        choose: sizes, device, dtype, whether backward -> the algorithm to run; asked when the operator runs.
    """

    def __init__(self, name: str, choose: Choose) -> None:
        def run_forward(query: Tensor, key: Tensor, value: Tensor, *others: Any) -> tuple[Tensor, ...]:
            algorithm = choose(sizes_of(query, key, value), query.device, query.dtype, False)
            found: tuple[Tensor, ...] = algorithm.forward(query, key, value, *others)
            return found

        def run_backward(*inputs: Any) -> tuple[Tensor, ...]:
            query, key, value = inputs[4:7]
            algorithm = choose(sizes_of(query, key, value), query.device, query.dtype, True)
            found: tuple[Tensor, ...] = algorithm.backward(*inputs)
            return found

        super().__init__(
            name,
            plainly(run_forward),
            plainly(run_backward),
            f"({_ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor)",
            f"(Tensor grad, {_STATE}, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
            fakes=(_fake, _fake_backward),
            tensors=6,
            tangent=_tangent,
            mapped=(folding, folding),
            constant=(3,),  # the maximum is a reference only
        )


# The registry


class Scan(Algorithm):
    """A way to compute the causal content lambda.

    Args:
        name: of it, and of the operator `lambda_seq::name_scan`.
        summary: it in a few words.
        forward: query (B, H, N, K), key (B, U, N, K), value (B, U, N, V), the fields of a `ScanState`, key_norm ->
            output (B, H, N, V), laid out as (B, N, H, V), and the fields of the state after.
        backward: gradients of these, then forward's arguments -> gradients of the tensors.
        count, supports, trusted: as of every algorithm.
    """

    def __init__(self, name: str, *others: Any, **options: Any) -> None:
        super().__init__(name, *others, **options)
        self.operator = ScanOperator(f"{name}_scan", self.by_name)


def sizes_of(query: Tensor, key: Tensor, value: Tensor) -> Sizes:
    """Sizes of a problem, as `Sizes.of_content` has them."""
    batch, heads, count, dim_key = query.shape
    return Sizes(batch, heads, key.shape[1], dim_key, value.shape[-1], 1, count, 0, 0, (0, 0))


def _definition(
    query: Tensor, key: Tensor, value: Tensor, sums: Tensor, norm: Tensor, top: Tensor, key_norm: str
) -> tuple[Tensor, ...]:
    """Every sum written out, n · k · v numbers, relative to one reference: for keys that are no outliers."""
    after = top.detach()
    weights, squares = key, key.square()
    if key_norm == "softmax":
        after = torch.maximum(key.detach().amax(2, keepdim=True), after)
        weights = squares = (key - after).exp()
        shrink = (top.detach() - after).exp()
        sums, norm = shrink.mT * sums, shrink * norm
    products = sums[:, :, None] + (weights[..., None] * value[..., None, :]).cumsum(2)  # (B, U, N, K, V)
    norms = norm if key_norm == "none" else norm + squares.cumsum(2)
    power = {"softmax": -1.0, "l2": -0.5, "none": 0.0}[key_norm]
    scale = norms.expand_as(key) ** power
    output = torch.einsum("bhnk,bunk,bunkv->bhnv", query, scale, products)
    return output, products[:, :, -1], norms[:, :, -1:], after


def _case(shape: Shape, device: torch.device, dtype: torch.dtype) -> Case:
    """A problem to try an algorithm by."""
    s, wide = shape, torch.promote_types(dtype, torch.float32)
    query, key, value, grad = randoms(
        ((s.B, s.H, s.X, s.K), (s.B, s.U, s.X, s.K), (s.B, s.U, s.X, s.V), (s.B, s.H, s.X, s.V)), device, dtype
    )
    fields = ((s.B, s.U, s.K, s.V), (s.B, s.U, 1, s.K), (s.B, s.U, 1, s.K))
    sums, norm, top = randoms(fields, device, wide)
    state = (sums, norm.abs() + 1, top)
    gradients = (f"gradient of {name}" for name in ("query", "key", "value", "sum", "norm", "maximum"))
    return Case(
        sizes_of(query, key, value),
        (query, key, value, *state),
        s.key_norm,
        (grad, *randoms(fields, device, wide)),
        partial(_definition, key_norm=s.key_norm),
        ("output", "sum", "norm", "maximum", *gradients),
    )


def count(s: Sizes, backward: bool) -> tuple[Work, float]:
    """Work of the chunks of torch's operations, and floats of temporaries; with the backward pass or without.

    Of chunks as a GPU has them: elsewhere there is nothing to choose.
    """
    length = length_of(torch.device("cuda"), s.B * s.U * s.H)
    chunks, rows = -(-s.X // length), s.B * s.U * s.X
    products = rows * (s.H * length * (s.K + s.V) + s.K * s.V * (s.H + 1))
    streamed = rows * (s.H * (3 * length + 2 * s.K + s.V) + 6 * s.K + s.V)
    temporary = s.B * s.U * s.H * length * length
    work = Work(products=products, streamed=streamed, calls=38 * chunks)
    if not backward:
        return work, float(temporary)
    return work * 4, float(3 * temporary)


SCANS: Registry[Scan] = Registry(
    "scan",
    (
        Shape(1, 3, 1, 16, 20, 1, 83),
        Shape(2, 4, 2, 5, 9, 1, 21, key_norm="l2"),
        Shape(1, 1, 1, 24, 64, 1, 100),
        Shape(1, 5, 1, 32, 64, 1, 40, key_norm="none"),
        Shape(1, 2, 1, 16, 16, 1, 40001),  # parts of several tiles
    ),
    Shape(4, 4, 1, 16, 64, 1, 16384),
    _case,
)
SCANS.register(Scan("scan", "torch's operations, chunk by chunk", forward, backward, count))
SCAN = ScanOperator("scan", lambda sizes, device, dtype, backward: fastest(sizes, device, dtype, backward, SCANS))

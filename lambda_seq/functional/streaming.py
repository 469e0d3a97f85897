"""The causal lambda layer, a piece of the sequence at a time: what later queries need is carried in a state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lambda_seq.functional.api import lambda_layer
from lambda_seq.functional.exponentials import Exponentials
from lambda_seq.functional.operators import cast, compute_dtype
from lambda_seq.functional.problem import Problem, check_floating
from lambda_seq.functional.scan import ScanState, scan
from lambda_seq.functional.single import look_up
from lambda_seq.functional.states import State, tree


@tree
@dataclass(frozen=True)
class StreamState(State):
    """What a causal lambda layer keeps of the positions it has seen; never changed in place.

    Gradients go through it: those of a sequence in pieces are those of the whole. `detach()` ends them there, so that
    an endless sequence can be trained on piece by piece.

    A tree of tensors for `torch.utils._pytree`, which can be saved, and loaded with `weights_only=True`. Its dtypes
    stay what they were in the beginning, under autocast too.

    Attributes:
        seen: number of positions.
        content: running sums of the content lambda, k · v numbers for each of the U and of the batch; None without.
        values: the last values that position lambdas of later queries reach, (B, U, min(seen, reach), V): of constant
            size for local scope, as large as the context for a global table, empty for sums of exponentials.
        sums: running sums of an embedding of `Exponentials`, (B, U, S, V), of constant size; None for others.
    """

    seen: int
    content: ScanState | None
    values: Float[Tensor, "B U L V"]
    sums: Float[Tensor, "B U S V"] | None = None

    @classmethod
    def empty(
        cls,
        key: Float[Tensor, "B U N K"] | None,
        value: Float[Tensor, "B U N V"],
        embedding: Float[Tensor, "U K R"] | Exponentials | None = None,
    ) -> StreamState:
        """The state before the first position, for keys and values of these shapes, whatever their N.

        Raises:
            TypeError: a key or value that is no tensor of floating point numbers.
            ValueError: a rank other than four.
        """
        for name, tensor in (("key", key), ("value", value)):
            if tensor is None and name == "key":
                continue
            check_floating(name, tensor)
            assert tensor is not None
            if tensor.ndim != 4:
                letters = "(B, U, N, K)" if name == "key" else "(B, U, N, V)"
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}, of rank {tensor.ndim}: expected {letters}")
        content = None if key is None else ScanState.empty(key, value)
        sums = embedding.empty(value) if isinstance(embedding, Exponentials) else None
        return cls(0, content, value[:, :, :0], sums)


def stream(
    query: Float[Tensor, "B H T K"],
    key: Float[Tensor, "B U T K"] | None,
    value: Float[Tensor, "B U T V"],
    embedding: Float[Tensor, "U K R"] | Exponentials | None,
    state: StreamState,
    *,
    key_norm: str = "softmax",
    reach: int | None = None,
) -> tuple[Float[Tensor, "B H T V"], StreamState]:
    """The next T outputs of the causal `lambda_layer`, and the state after them.

    Streaming a sequence in pieces of any lengths gives what `lambda_layer(..., causal=True)` gives at once, for
    `Exponentials` with their kernel of the whole length, in the same precision, under autocast too, and so do the
    gradients, which go through the state to the pieces before unless it is detached. A single position is one step of a
    recurrence: h · R · (k + v) multiply-adds, or h · S · (k + v) with `Exponentials`, whatever came before, and nothing
    that waits for the device.

    Args:
        query, key, value: the next T positions, as for `lambda_layer`; none (T = 0) leave the state as it is.
        embedding: (U, K, R), R offsets that end at 0, of which those suffice that positions so far have; or a sum of
            exponentials.
        state: what an earlier call returned; at the beginning `StreamState.empty`.
        key_norm: "softmax", "l2" or "none".
        reach: how many positions later queries will look back, where that is more than the R − 1 of this embedding.

    Raises:
        TypeError: no tensors of one floating point dtype, or no state.
        ValueError: shapes that do not fit; a state of other sizes, or that has not kept what this embedding needs.
    """
    check_floating("query", query)
    table = embedding.coefficients.to(query.dtype) if isinstance(embedding, Exponentials) else embedding
    Problem.of(query, key, value, table, causal=True, key_norm=key_norm)
    check_state(state, key, value, embedding)
    if not value.shape[2]:
        return lambda_layer(query, key, value, table, causal=True, key_norm=key_norm), state
    return advance(query, key, value, embedding, state, key_norm, reach)


def advance(
    query: Tensor,
    key: Tensor | None,
    value: Tensor,
    embedding: Tensor | Exponentials | None,
    state: StreamState,
    key_norm: str,
    reach: int | None,
) -> tuple[Float[Tensor, "B H T V"], StreamState]:
    """`stream` of T ≥ 1 positions that are known to fit."""
    outputs, content, values, sums = [], None, state.values, state.sums
    if key is not None:
        output, content = scan(query, key, value, key_norm, state.content)
        outputs.append(output)
    if isinstance(embedding, Exponentials):
        output, sums = embedding.scan(query, value, _sums(embedding, value, state))
        outputs.append(output)
    else:
        width = 0 if embedding is None else embedding.shape[-1] - 1
        if values.shape[2] < min(width, state.seen):
            raise ValueError(
                f"embedding reaches {width} positions back but the state has kept {values.shape[2]} of {state.seen}: "
                "stream all pieces with one embedding, or give the greatest `reach` from the beginning"
            )
        context = torch.cat([values, cast(value, values.dtype)], 2)  # (B, U, L + T, V)
        if embedding is not None:
            outputs.append(_position(query, cast(context, value.dtype), embedding))
        keep = width if reach is None else max(width, reach)
        # A copy, so that the state does not keep all of the context in memory
        values = context[:, :, max(0, context.shape[2] - keep) :].clone()
    output = outputs[0] if len(outputs) == 1 else outputs[0] + outputs[1]
    return output, StreamState(state.seen + value.shape[2], content, values, sums)


def check_state(state: StreamState, key: Tensor | None, value: Tensor, embedding: Tensor | Exponentials | None) -> None:
    """Raise TypeError or ValueError unless the state is of such a layer, batch and device."""
    if not isinstance(state, StreamState):
        raise TypeError(
            f"state is {type(state).__name__}: expected a StreamState; begin with init_state(batch_size) of the layer, "
            "or StreamState.empty(key, value, embedding)"
        )
    begin = "go on with what the stream began with, or begin anew with init_state or StreamState.empty"
    if (state.content is None) != (key is None):
        has, given = ("no", "given") if state.content is None else ("a", "None")
        raise ValueError(f"state has {has} content part but key is {given}: {begin}")
    batch, intra, _, dim_value = value.shape
    parts = {"values": (state.values, (batch, intra, state.values.shape[-2], dim_value))}
    if state.content is not None and key is not None:
        parts["content.sums"] = (state.content.sums, (batch, intra, key.shape[-1], dim_value))
    if state.sums is not None and isinstance(embedding, Exponentials):
        parts["sums"] = (state.sums, (batch, intra, embedding.coefficients.shape[-1], dim_value))
    for name, (part, shape) in parts.items():
        if tuple(part.shape) != shape:
            raise ValueError(f"state.{name} has shape {tuple(part.shape)} but the inputs ask for {shape}: {begin}")
        if part.device != value.device:
            raise ValueError(
                f"state.{name} is on {part.device} but the inputs on {value.device}: expected one device; "
                "torch.utils._pytree.tree_map moves a state"
            )
        if torch.promote_types(part.dtype, value.dtype) != part.dtype:
            raise TypeError(
                f"state.{name} is {part.dtype}, which cannot hold inputs of {value.dtype}: convert them, or begin with "
                f"a state for {value.dtype}"
            )


def _sums(embedding: Exponentials, value: Tensor, state: StreamState) -> Float[Tensor, "B U S V"]:
    """The state's sums of exponentials."""
    if state.sums is not None:
        return state.sums
    if state.seen:
        raise ValueError(
            f"embedding is a sum of exponentials but the state has no sums of its {state.seen} positions: stream "
            "all pieces with one embedding"
        )
    return embedding.empty(value)


def _position(query: Tensor, context: Tensor, embedding: Tensor) -> Tensor:
    """Position part for the last T positions of a context (B, U, L + T, V)."""
    before = context.shape[2] - query.shape[2]
    if query.shape[2] > 1:
        padding = query.new_zeros(*query.shape[:2], before, query.shape[-1])
        queries = torch.cat([padding, query], 2)  # (B, H, L + T, K)
        return lambda_layer(queries, None, context, embedding, causal=True)[:, :, before:]
    given, found = embedding.shape[-1], context.shape[2]
    if given > found:  # fewer positions so far than offsets
        embedding = embedding[..., given - found :]
    elif found > given:  # kept for an embedding that reaches farther
        context = context[:, :, found - given :]
    return look_up(query, embedding, context, compute_dtype(query.dtype, query.device))  # as of the algorithms

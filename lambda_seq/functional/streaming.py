"""The causal lambda layer, a piece of the sequence at a time: what later queries need is carried in a state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lambda_seq.functional.dispatch import lambda_layer
from lambda_seq.functional.exponentials import Exponentials
from lambda_seq.functional.scan import ScanState, advance, empty_state


@dataclass(frozen=True)
class StreamState:
    """What a causal lambda layer keeps of the positions it has seen; never changed in place.

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
        """The state before the first position, for keys and values of these shapes, whatever their N."""
        content = None if key is None else empty_state(key, value)
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
    `Exponentials` with their kernel of the whole length. A single position takes h · R · (k + v) multiply-adds, or
    h · S · (k + v) with `Exponentials`, whatever came before.

    Args:
        query, key, value: the next T ≥ 1 positions, as for `lambda_layer`.
        embedding: (U, K, R), R offsets that end at 0, of which those suffice that positions so far have; or a sum of
            exponentials.
        state: what an earlier call returned; at the beginning `StreamState.empty`.
        key_norm: "softmax", "l2" or "none".
        reach: how many positions later queries will look back, where that is more than the R − 1 of this embedding.

    Raises:
        ValueError: the state has not kept what this embedding needs.
    """
    parts, content = [], None
    if key is not None:
        part, content = advance(query.unsqueeze(2), key.unsqueeze(2), value.unsqueeze(2), key_norm, state.content)
        parts.append(part.squeeze(2))
    values, sums = state.values, state.sums
    if isinstance(embedding, Exponentials):
        part, sums = _exponentials(query, value, embedding, state)
        parts.append(part)
    else:
        width = 0 if embedding is None else embedding.shape[-1] - 1
        if values.shape[2] < min(width, state.seen):
            raise ValueError(
                f"embedding reaches {width} positions back but the state has kept {values.shape[2]} of {state.seen}: "
                "stream all pieces with one embedding, or give the greatest `reach` from the beginning"
            )
        context = torch.cat([values.to(value.dtype), value], 2)  # (B, U, L + T, V)
        if embedding is not None:
            parts.append(_position(query, context, embedding))
        keep = width if reach is None else max(width, reach)
        # A copy, so that the state does not keep all of the context in memory
        values = context[:, :, max(0, context.shape[2] - keep) :].clone()
    output = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    return output, StreamState(state.seen + value.shape[2], content, values, sums)


def _exponentials(
    query: Tensor, value: Tensor, embedding: Exponentials, state: StreamState
) -> tuple[Tensor, Float[Tensor, "B U S V"]]:
    """Position part for the next T positions, and the sums after them."""
    sums = state.sums
    if sums is None:
        if state.seen:
            raise ValueError(
                f"embedding is a sum of exponentials but the state has no sums of its {state.seen} positions: stream "
                "all pieces with one embedding"
            )
        sums = embedding.empty(value)
    after = embedding.advance(sums, value)
    if query.shape[2] == 1:  # the sums hold its own value, too
        return embedding.read(query, after, 0), after
    kernel = embedding.kernel(query.shape[2]).to(query.dtype)
    output = lambda_layer(query, None, value, kernel, causal=True)
    if state.seen:
        output = output + embedding.read(query, sums, 1)
    return output, after


def _position(query: Tensor, context: Tensor, embedding: Tensor) -> Tensor:
    """Position part for the last T positions of a context (B, U, L + T, V)."""
    before = context.shape[2] - query.shape[2]
    if query.shape[2] > 1:
        padding = query.new_zeros(*query.shape[:2], before, query.shape[-1])
        queries = torch.cat([padding, query], 2)  # (B, H, L + T, K)
        return lambda_layer(queries, None, context, embedding, causal=True)[:, :, before:]
    # One query: weights for the offsets there are, h · r · (k + v) multiply-adds
    taps = min(embedding.shape[-1], context.shape[2])
    weights = torch.einsum("bhnk,ukm->bhum", query, embedding[..., embedding.shape[-1] - taps :])
    output = torch.einsum("bhum,bumv->bhv", weights, context[:, :, context.shape[2] - taps :])
    return output.unsqueeze(2)

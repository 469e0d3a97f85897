"""The causal lambda layer, a piece of the sequence at a time: what later queries need is carried in a state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lambda_seq.functional.dispatch import lambda_layer
from lambda_seq.functional.scan import ScanState, advance, empty_state


@dataclass(frozen=True)
class StreamState:
    """What a causal lambda layer keeps of the positions it has seen; never changed in place.

    Attributes:
        seen: number of positions.
        content: running sums of the content lambda, k · v numbers for each of the U and of the batch; None without.
        values: the last values that position lambdas of later queries reach, (B, U, min(seen, R − 1), V): of constant
            size for local scope, as large as the context for global scope.
    """

    seen: int
    content: ScanState | None
    values: Float[Tensor, "B U L V"]

    @classmethod
    def empty(cls, key: Float[Tensor, "B U N K"] | None, value: Float[Tensor, "B U N V"]) -> StreamState:
        """The state before the first position, for keys and values of these shapes, whatever their N."""
        return cls(0, None if key is None else empty_state(key, value), value[:, :, :0])


def stream(
    query: Float[Tensor, "B H T K"],
    key: Float[Tensor, "B U T K"] | None,
    value: Float[Tensor, "B U T V"],
    embedding: Float[Tensor, "U K R"] | None,
    state: StreamState,
    *,
    key_norm: str = "softmax",
) -> tuple[Float[Tensor, "B H T V"], StreamState]:
    """The next T outputs of the causal `lambda_layer`, and the state after them.

    Streaming a sequence in pieces of any lengths gives what `lambda_layer(..., causal=True)` gives at once.

    Args:
        query, key, value: the next T ≥ 1 positions, as for `lambda_layer`.
        embedding: (U, K, R), R offsets that end at 0.
        state: what an earlier call returned; at the beginning `StreamState.empty`.
        key_norm: "softmax", "l2" or "none".
    """
    reach = 0 if embedding is None else embedding.shape[-1] - 1
    parts, content = [], None
    if key is not None:
        part, content = advance(query.unsqueeze(2), key.unsqueeze(2), value.unsqueeze(2), key_norm, state.content)
        parts.append(part.squeeze(2))
    context = torch.cat([state.values.to(value.dtype), value], 2)  # (B, U, L + T, V)
    if embedding is not None:
        parts.append(_position(query, context, embedding))
    # A copy, so that the state does not keep all of the context in memory
    values = context[:, :, max(0, context.shape[2] - reach) :].clone()
    output = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    return output, StreamState(state.seen + value.shape[2], content, values)


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

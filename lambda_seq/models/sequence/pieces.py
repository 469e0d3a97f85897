"""Gradients of sequences that are longer than what fits into memory, one piece after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lambda_seq.functional.states import State
from lambda_seq.layers import checks

S = TypeVar("S", bound=State)
Loss = Callable[[Tensor, slice], Tensor | None]


class Streams(Protocol[S]):
    """A causal module that can be fed in pieces: a layer, an encoder, a language model."""

    def init_state(self, batch_size: int) -> S:
        """The state before the first position."""
        ...

    def step(self, x: Any, state: S) -> tuple[Tensor, S]:
        """Outputs of a piece, and the state after it."""
        ...


def backward_in_pieces(
    model: Streams[S],
    x: Tensor,
    loss: Loss,
    length: int,
    *,
    cut: bool = False,
    state: S | None = None,
) -> tuple[Float[Tensor, ""], S]:
    """Add the gradients of a sequence's loss to those of the parameters, in the memory that a piece takes.

    They are the gradients of the whole sequence: of each piece, the state it began with is kept, and its forward pass
    is computed again, with the same dropout, when the gradients come back to it. What is kept grows by a state for each
    piece. With `cut`, gradients end where a piece begins (truncated backpropagation through time, Williams and Peng,
    1990): values are carried on, nothing is computed twice, and nothing grows.

        def loss(logits, where):
            return F.cross_entropy(logits.flatten(0, 1), targets[:, where].flatten(), reduction="sum") / targets.numel()

        nats, state = backward_in_pieces(model, tokens, loss, 65_536)
        optimizer.step()

    Losses of pieces are added up: divide by the length of the whole. In half precision, call it under autocast.
    Wrappers that average the gradients of several processes, as DistributedDataParallel, are not asked: average them
    before the step of the optimizer.

    Args:
        model: a causal layer, encoder or language model, with `init_state` and `step`.
        x: what `step` takes, (B, N, ...), N positions.
        loss: of the output of a piece and of its positions; None where a piece has none, as those of a classifier but
            for the last.
        length: positions of a piece.
        cut: whether gradients end where a piece begins.
        state: that the sequence begins with; default: `model.init_state(B)`.

    Returns:
        The loss, without a graph, and the state after the sequence, from which the next one may go on.

    Raises:
        ValueError: x has no positions, length below 1, or no piece has a loss.
    """
    checks.at_least_one(length=length)
    if x.ndim < 2 or not x.shape[1]:
        raise ValueError(f"x has the shape {tuple(x.shape)}: expected (B, N, ...) with N ≥ 1 positions")
    state = model.init_state(x.shape[0]) if state is None else state
    total: Tensor | None = None  # a list of the losses of all pieces would grow with the sequence

    def piece(where: slice, state: S) -> tuple[Tensor | None, S]:
        output, state = model.step(x[:, where], state)
        return loss(output, where), state

    for start in range(0, x.shape[1], length):
        where = slice(start, min(start + length, x.shape[1]))
        if cut:
            part, state = piece(where, state.detach())
        else:
            part, state = checkpoint(piece, where, state, use_reentrant=False)
        if part is not None:
            if cut:
                part.backward()
                part = part.detach()
            total = part if total is None else total + part
    if total is None:
        raise ValueError("loss: it returned None for all pieces")
    if not cut:
        total.backward()
    return total.detach(), state.detach()

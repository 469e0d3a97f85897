"""What causal networks carry from one piece of a stream to the next. No state is ever changed in place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lambda_seq import functional as LF
from lambda_seq.functional.states import State, tree
from lambda_seq.layers import MaskedBatchNorm


@tree
@dataclass(frozen=True)
class ConvolutionState(State):
    """What a strided causal convolution keeps.

    Attributes:
        seen: number of inputs.
        kept: the last taps − 1 inputs, zeros where there were none yet, (B, taps − 1, C).
    """

    seen: int
    kept: Float[Tensor, "B L C"]


@tree
@dataclass(frozen=True)
class NgramState(State):
    """What a stem of n-grams keeps.

    Attributes:
        kept: the last ids, and 1 beside each that n-grams may have, 0 where there was none yet, (B, n − 1, 2).
        counts: how often each bucket's n-gram was there, and behind them none, (B, buckets + 1); (B, 0) where that does
            not matter.
    """

    kept: Int[Tensor, "B L 2"]
    counts: Int[Tensor, "B F"]


@tree
@dataclass(frozen=True)
class PoolState(State):
    """What a running pool keeps, in float64 (float32 on devices without it), so that it adds up over any length.

    Attributes:
        seen: number of positions.
        value: the weighed sum, greatest, first or last of them, (B, dim).
        weight: sum of their weights, (B, 1).
        top: greatest score, to which the weights are relative, (B, 1).
    """

    seen: int
    value: Float[Tensor, "B dim"]
    weight: Float[Tensor, "B 1"]
    top: Float[Tensor, "B 1"]


@tree
@dataclass(frozen=True)
class EncoderState(State):
    """What a causal `LambdaEncoder` keeps: positions of x seen, and the states of its stem, blocks and pool, if any."""

    seen: int
    stem: tuple[NgramState | ConvolutionState, ...]
    blocks: tuple[LF.StreamState, ...]
    pool: PoolState | None


@tree
@dataclass(frozen=True)
class LanguageModelState(State):
    """What a `LambdaLM` keeps: the number of tokens seen, and the states of its blocks."""

    seen: int
    blocks: tuple[LF.StreamState, ...]


def state_bytes(state: Any) -> int:
    """Bytes of memory that a state, or a tuple of states, holds."""
    return sum({storage.data_ptr(): storage.nbytes() for storage in _storages(state)}.values())


def _storages(state: Any) -> Iterable[torch.UntypedStorage]:
    if isinstance(state, Tensor):
        yield state.untyped_storage()
    elif is_dataclass(state):
        for field in fields(state):
            yield from _storages(getattr(state, field.name))
    elif isinstance(state, (tuple, list)):
        for part in state:
            yield from _storages(part)


def check_batch(found: int, expected: int) -> None:
    """Raise ValueError unless a piece has the batch size of the state."""
    if found != expected:
        raise ValueError(
            f"x has batch {found} but the state has {expected}: go on with one batch, or init_state({found})"
        )


def check_norms(*norms: nn.Module) -> None:
    """Raise ValueError if a norm averages over a batch that a stream does not have at once."""
    if any(isinstance(norm, MaskedBatchNorm) and norm.training for norm in norms):
        raise ValueError("norm='batch' in training mode needs the whole batch: call eval(), or use norm='rms'")


def accumulator(like: Tensor) -> torch.dtype:
    """The dtype in which running sums are kept on the device of `like`."""
    return torch.float32 if like.device.type == "mps" else torch.float64

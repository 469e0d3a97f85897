"""The pre-norm blocks of sequence networks: lambda mixing and feed-forward, each a residual branch behind a norm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lambda_seq import functional as LF
from lambda_seq.layers import WHOLE, LambdaLayer1d, Whole, make_norm
from lambda_seq.layers.position import PositionEmbedding
from lambda_seq.models import checks
from lambda_seq.models.drop import StochasticDepth, depth_rates
from lambda_seq.models.streaming import check_norms

Position = bool | str


class LambdaMixing(nn.Module):
    """W norm(lambda_layer(x)): mixing over positions, then over channels.

    The map W brings together the heads, which each write their own channels. The norm takes out the scale of λᵀq, a sum
    over dim_key, so that a branch adds the same whatever the scope, depth or initialisation of its lambdas. There is no
    activation between them, unlike in a LambdaResNet: λᵀq is a product of inputs already, and a feed-forward follows.
    GELU in its place, or a learned gate, with the norm and without, did no better on sequences of pixels.

    Args:
        layer: the lambda layer.
        norm: of its output: "batch" (counts real positions only), "layer", "rms" or "none".
    """

    shards: Whole = WHOLE

    def __init__(self, layer: LambdaLayer1d, norm: str = "batch") -> None:
        super().__init__()
        self.layer = layer
        self.norm = make_norm(norm, layer.dim_out)
        self.out = nn.Linear(layer.dim_out, layer.dim)

    def forward(
        self,
        x: Float[Tensor, "B N dim"],
        mask: Bool[Tensor, "B N"] | None = None,
        documents: Int[Tensor, "B N"] | LF.Packing | None = None,
    ) -> Float[Tensor, "B N dim"]:
        """Mix a batch of sequences; `mask` is True at real positions, `documents` as for the layer."""
        packing = None if documents is None else self.shards.packing(documents, mask)
        mask = mask if packing is None else packing.mask
        return self.out(self.norm(self.layer(x, mask, packing), mask))

    def init_state(self, batch_size: int) -> LF.StreamState:
        """The state of a causal mixing before the first position, for `step`."""
        return self.layer.init_state(batch_size)

    def step(
        self, x: Float[Tensor, "B dim"] | Float[Tensor, "B T dim"], state: LF.StreamState
    ) -> tuple[Tensor, LF.StreamState]:
        """The output for the next position, (B, dim), or the next T, (B, T, dim), and the state after them."""
        check_norms(self.norm)
        mixed, state = self.layer.step(x, state)
        return self.out(self.norm(mixed)), state


class FeedForward(nn.Module):
    """W₂ gelu(W₁ x), each position by itself, with ratio · dim hidden channels."""

    def __init__(self, dim: int, ratio: float, dropout: float) -> None:
        super().__init__()
        hidden = max(round(dim * ratio), 1)
        self.inner = nn.Linear(dim, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "B N dim"]) -> Float[Tensor, "B N dim"]:
        """Map each position."""
        hidden = self.dropout(F.gelu(self.inner(x)))  # (B, N, ratio · dim)
        return self.out(hidden)  # (B, N, dim)


class Block(nn.Module):
    """x + mix(norm(x)), then x + feed_forward(norm(x)).

    Args:
        mixing: mixes positions.
        dim: channels.
        ff_ratio: hidden channels of the feed-forward, per channel.
        norm: "layer", "batch", "rms" or "none".
        dropout: of both branches and of the feed-forward's hidden channels.
        stochastic_depth: probability of leaving a branch out, for a sample in training.
    """

    shards: Whole = WHOLE

    def __init__(
        self,
        mixing: LambdaMixing,
        dim: int,
        *,
        ff_ratio: float = 2.0,
        norm: str = "layer",
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        if ff_ratio <= 0:
            raise ValueError(f"ff_ratio={ff_ratio}: expected a number above 0, hidden channels per channel; use 2 or 4")
        checks.probability(dropout=dropout, stochastic_depth=stochastic_depth)
        self.norm1, self.mixing = make_norm(norm, dim), mixing
        self.norm2, self.feed_forward = make_norm(norm, dim), FeedForward(dim, ff_ratio, dropout)
        self.drop = nn.Sequential(nn.Dropout(dropout), StochasticDepth(stochastic_depth))

    def forward(
        self,
        x: Float[Tensor, "B N dim"],
        mask: Bool[Tensor, "B N"] | None = None,
        documents: Int[Tensor, "B N"] | LF.Packing | None = None,
    ) -> Float[Tensor, "B N dim"]:
        """Transform a batch of sequences; what comes out at masked positions means nothing."""
        packing = None if documents is None else self.shards.packing(documents, mask)
        mask = mask if packing is None else packing.mask
        x = x + self.drop(self.mixing(self.norm1(x, mask), mask, packing))
        return x + self.drop(self.feed_forward(self.norm2(x, mask)))

    def init_state(self, batch_size: int) -> LF.StreamState:
        """The state of a causal block before the first position, for `step`."""
        return self.mixing.init_state(batch_size)

    def step(
        self, x: Float[Tensor, "B dim"] | Float[Tensor, "B T dim"], state: LF.StreamState
    ) -> tuple[Tensor, LF.StreamState]:
        """The output for the next position, (B, dim), or the next T, (B, T, dim), and the state after them.

        In evaluation mode equal to `forward` over the whole sequence.
        """
        check_norms(self.norm1, self.norm2)
        mixed, state = self.mixing.step(self.norm1(x), state)
        x = x + self.drop(mixed)
        return x + self.drop(self.feed_forward(self.norm2(x))), state


class Blocks(nn.ModuleList):
    """`depth` blocks of lambda mixing in a row; the options, but these, are those of `LambdaEncoder`.

    Args:
        dim: channels.
        depth: number of blocks.
        scope: context positions of the position lambdas, or None for global; for all blocks, or one for each.
        position: kind of the position embeddings; for all blocks, or one for each.
        max_length: longest input, in positions of x.
        stride: positions of x for each of the blocks' positions.

    Attributes:
        max_length: longest input that all position tables cover, in positions of x; None where there is no limit.
        state_reach: of how many of their positions a stream's state keeps the values, at most; None for all there are.
        constant_state: whether the blocks stream from a state of a size that does not depend on what they have seen:
            all are causal, with local scope, exponential positions or none. A global table, or global multi-scale
            embedding, keeps values of ever more positions, up to `state_reach`.
    """

    shards: Whole = WHOLE

    def __init__(
        self,
        dim: int,
        depth: int,
        *,
        scope: int | Sequence[int | None] | None,
        position: Position | Sequence[Position],
        max_length: int | None,
        stride: int = 1,
        heads: int,
        dim_key: int,
        dim_intra: int,
        causal: bool,
        content: bool,
        key_norm: str,
        query_norm: str,
        lambda_norm: str,
        position_init: str,
        norm: str,
        ff_ratio: float,
        dropout: float,
        stochastic_depth: float,
    ) -> None:
        super().__init__()
        checks.at_least_one(dim=dim, depth=depth)
        checks.probability(dropout=dropout, stochastic_depth=stochastic_depth)
        if max_length is not None:
            checks.at_least_one(max_length=max_length)
        scopes, positions = checks.per_block("scope", scope, depth), checks.per_block("position", position, depth)
        for block_scope in scopes:
            checks.integers(scope=block_scope)
        tables = any(s is None and p in (True, "table") for s, p in zip(scopes, positions, strict=True))
        if tables and max_length is None:
            raise ValueError(
                f"scope={scope} is global and its position tables need the longest input: give max_length=N, a local "
                "scope, or position='multiscale' or 'exponential', which need none"
            )
        self.max_length = max_length if tables else None
        rates = depth_rates(stochastic_depth, depth)
        for block_scope, block_position, rate in zip(scopes, positions, rates, strict=True):
            layer = LambdaLayer1d(
                dim,
                heads=heads,
                dim_key=dim_key,
                dim_intra=dim_intra,
                scope=block_scope,
                max_length=None if max_length is None else -(-max_length // stride),
                causal=causal,
                content=content,
                position=block_position,
                key_norm=key_norm,
                query_norm=query_norm,
                norm=lambda_norm,
                init=position_init,
            )
            mixing = LambdaMixing(layer, lambda_norm)
            self.append(Block(mixing, dim, ff_ratio=ff_ratio, norm=norm, dropout=dropout, stochastic_depth=rate))
        kept = [_keeps(block.mixing.layer.position) for block in self]
        self.state_reach = None if None in kept else max(count for count in kept if count is not None)
        local = [count == 0 or s is not None for count, s in zip(kept, scopes, strict=True)]
        self.constant_state = causal and None not in kept and all(local)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Scale what each branch adds, so that all 2 · depth of them together add variance of about 1."""
        branches = 2 * len(self)
        for module in self.modules():
            if isinstance(module, (LambdaMixing, FeedForward)):
                nn.init.normal_(module.out.weight, std=(branches * module.out.in_features) ** -0.5)
                nn.init.zeros_(module.out.bias)

    def __iter__(self) -> Iterator[Block]:
        return cast(Iterator[Block], super().__iter__())

    def check_length(self, length: int) -> None:
        """Raise ValueError if position tables do not cover inputs of this length, in positions of x."""
        if self.max_length is not None and length > self.max_length:
            raise ValueError(
                f"x has {length} positions, longer than max_length={self.max_length}: construct the model with "
                f"max_length={length}, give all blocks a local scope, or use position='multiscale' or 'exponential'"
            )

    def forward(
        self,
        x: Float[Tensor, "B N dim"],
        mask: Bool[Tensor, "B N"] | None = None,
        documents: Int[Tensor, "B N"] | LF.Packing | None = None,
    ) -> Float[Tensor, "B N dim"]:
        """Transform a batch of sequences; what comes out at masked positions means nothing."""
        packing = None if documents is None else self.shards.packing(documents, mask)  # once for all
        for block in self:
            x = block(x, mask, packing)
        return x

    def init_state(self, batch_size: int) -> tuple[LF.StreamState, ...]:
        """The states of causal blocks before the first position, for `step`."""
        return tuple(block.init_state(batch_size) for block in self)

    def step(
        self, x: Float[Tensor, "B dim"] | Float[Tensor, "B T dim"], states: tuple[LF.StreamState, ...]
    ) -> tuple[Tensor, tuple[LF.StreamState, ...]]:
        """The output for the next position, (B, dim), or the next T, (B, T, dim), and the states after them."""
        after = []
        for block, state in zip(self, states, strict=True):
            x, state = block.step(x, state)
            after.append(state)
        return x, tuple(after)


def _keeps(position: nn.Module | None) -> int | None:
    """Of how many positions a stream keeps the values, at most, for such position lambdas; None for all."""
    if position is None:
        return 0
    if not isinstance(position, PositionEmbedding):
        return None
    return 0 if position.causal and isinstance(position.streaming(1), LF.Exponentials) else position.reach

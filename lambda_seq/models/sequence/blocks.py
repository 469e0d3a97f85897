"""The pre-norm blocks of sequence networks: lambda mixing and feed-forward, each a residual branch behind a norm."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lambda_seq import functional as LF
from lambda_seq.layers import UNSHARDED, LambdaLayer1d, SequenceContext, checks, make_norm
from lambda_seq.layers.norm import default_norm, warn_of_batch
from lambda_seq.layers.options import LambdaOptions, part
from lambda_seq.layers.positions.embedding import PositionEmbedding
from lambda_seq.layers.positions.registry import needs_size, without_size
from lambda_seq.layers.synced import NormOwner
from lambda_seq.layers.weights import draw_linear, gathers, reset_by
from lambda_seq.models.drop import ChannelDropout, StochasticDepth, depth_rates
from lambda_seq.models.sequence.options import FEED_FORWARDS, BlockOptions
from lambda_seq.models.sequence.streaming import check_norms

Vectors = Float[Tensor, "B N dim"]
Mask = Bool[Tensor, "B N"] | None
Documents = Int[Tensor, "B N"] | LF.Packing | None


class LambdaMixing(NormOwner):
    """W norm(lambda_layer(x)): mixing over positions, then over channels.

    The map W brings together the heads, which each write their own channels. The norm takes out the scale of λᵀq, a sum
    over dim_key, so that a branch adds the same whatever the scope, depth or initialisation of its lambdas. There is no
    activation between them, unlike in a LambdaResNet: λᵀq is a product of inputs already, and a feed-forward follows.
    GELU in its place, or a learned gate, with the norm and without, did no better on sequences of pixels.

    Args:
        layer: the lambda layer.
        norm: of its output: "batch" (counts real positions only), "layer", "rms" or "none"; None for "batch", and for
            "rms" behind a causal layer.
    """

    sequence: SequenceContext = UNSHARDED

    def __init__(self, layer: LambdaLayer1d, norm: str | None = None) -> None:
        super().__init__()
        causal = getattr(layer, "causal", False)  # a layer in its place may know nothing of it
        warn_of_batch(norm, causal)
        self.layer = layer
        self.default_norms = ("norm",) if norm is None and causal else ()
        self.norm = make_norm(default_norm(norm, causal), layer.dim_out)
        self.out = nn.Linear(layer.dim_out, layer.dim)

    def forward(self, x: Vectors, mask: Mask = None, documents: Documents = None) -> Vectors:
        """Mix a batch of sequences; `mask` is True at real positions, `documents` as for the layer."""
        packing = None if documents is None else self.sequence.pack(documents, mask)
        mask = mask if packing is None else packing.mask
        return self.out(self.norm(self.layer(x, mask, packing), mask))

    def init_state(self, batch_size: int) -> LF.StreamState:
        """The state of a causal mixing before the first position, for `step`."""
        return self.layer.init_state(batch_size)

    @gathers
    def step(
        self, x: Float[Tensor, "B dim"] | Float[Tensor, "B T dim"], state: LF.StreamState
    ) -> tuple[Tensor, LF.StreamState]:
        """The output for the next position, (B, dim), or the next T, (B, T, dim), and the state after them."""
        check_norms(self.norm)
        mixed, state = self.layer.step(x, state)
        return self.out(self.norm(mixed)), state


class FeedForward(nn.Module):
    """W₂ gelu(W₁ x), each position by itself, with ratio · dim hidden channels; or W₂ (W₃ x ⊙ gelu(W₁ x)).

    The second, "gated", is GEGLU of N. Shazeer, "GLU Variants Improve Transformer", 2020: three matrices for two, so
    that it costs half as much again, in parameters and in time, and with two thirds of the ratio as much.

    Args:
        dim: channels.
        ratio: hidden channels per channel.
        dropout: of the hidden channels.
        kind: "gelu" or "gated".
    """

    def __init__(self, dim: int, ratio: float, dropout: float, kind: str = "gelu") -> None:
        super().__init__()
        checks.one_of("ff", kind, FEED_FORWARDS)
        hidden = max(round(dim * ratio), 1)
        self.gated = kind == "gated"
        self.inner = nn.Linear(dim, 2 * hidden if self.gated else hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "B N dim"]) -> Float[Tensor, "B N dim"]:
        """Map each position."""
        hidden = self.inner(x)  # (B, N, ratio · dim), gated twice as many
        if self.gated:
            value, gate = hidden.chunk(2, -1)
            hidden = value * F.gelu(gate)
        else:
            hidden = F.gelu(hidden)
        return self.out(self.dropout(hidden))  # (B, N, dim)


class LayerScale(nn.Module):
    """γ ⊙ x, with a learned γ for each channel that starts at `value`.

    0 makes a residual branch add nothing at first (T. Bachlechner et al., "ReZero is All You Need", 2020, with one
    number for all channels), a small number little (H. Touvron et al., "Going deeper with Image Transformers", 2021).
    """

    def __init__(self, dim: int, value: float) -> None:
        super().__init__()
        self.value = value
        self.weight = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start at the value again."""
        nn.init.constant_(self.weight, self.value)

    def forward(self, x: Float[Tensor, "B *N dim"]) -> Float[Tensor, "B *N dim"]:
        """Scale each channel."""
        return x * self.weight.to(x.dtype)


class Block(NormOwner):
    """x + γ₁ mix(norm(x)), then x + γ₂ feed_forward(norm(x)); γ is 1 without `layer_scale`.

    Args:
        mixing: mixes positions.
        dim: channels.
        ff_ratio: hidden channels of the feed-forward, per channel.
        ff: "gelu" or "gated", see `FeedForward`.
        norm: "layer", "batch", "rms" or "none".
        layer_scale: what γ starts at, see `LayerScale`; None for none.
        dropout: of both branches and of the feed-forward's hidden channels.
        mixing_dropout: of whole channels of a sequence, in what the mixing adds.
        stochastic_depth: probability of leaving a branch out, for a sample in training.
        owned: whether the weights of the mixing are the block's, as its parameters, or another block's.
    """

    sequence: SequenceContext = UNSHARDED

    def __init__(
        self,
        mixing: LambdaMixing,
        dim: int,
        *,
        ff_ratio: float = 2.0,
        ff: str = "gelu",
        norm: str = "layer",
        layer_scale: float | None = None,
        dropout: float = 0.0,
        mixing_dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        owned: bool = True,
    ) -> None:
        super().__init__()
        checks.numbers(ff_ratio=ff_ratio, layer_scale=layer_scale)
        if ff_ratio is None or ff_ratio <= 0:
            raise ValueError(f"ff_ratio={ff_ratio}: expected a number above 0, hidden channels per channel; use 2 or 4")
        checks.probability(dropout=dropout, mixing_dropout=mixing_dropout, stochastic_depth=stochastic_depth)
        warn_of_batch(norm, getattr(mixing.layer, "causal", False))
        self.norm1 = make_norm(norm, dim)
        self.mixing: LambdaMixing
        if owned:
            self.mixing = mixing
        else:  # a plain attribute, none of this block's modules: its weights appear once
            self.__dict__["mixing"] = mixing
        self.norm2, self.feed_forward = make_norm(norm, dim), FeedForward(dim, ff_ratio, dropout, ff)
        self.scale1, self.scale2 = (
            nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale) for _ in range(2)
        )
        self.drop_channels = ChannelDropout(mixing_dropout)
        self.drop = nn.Sequential(nn.Dropout(dropout), StochasticDepth(stochastic_depth))

    def forward(self, x: Vectors, mask: Mask = None, documents: Documents = None) -> Vectors:
        """Transform a batch of sequences; what comes out at masked positions means nothing."""
        packing = None if documents is None else self.sequence.pack(documents, mask)
        mask = mask if packing is None else packing.mask
        x = x + self._mixed(self.mixing(self.norm1(x, mask), mask, packing))
        return x + self._fed(self.norm2(x, mask))

    def _mixed(self, branch: Tensor) -> Tensor:
        """What the mixing adds."""
        return self.drop(self.drop_channels(self.scale1(branch)))

    def _fed(self, x: Tensor) -> Tensor:
        """What the feed-forward adds."""
        return self.drop(self.scale2(self.feed_forward(x)))

    def init_state(self, batch_size: int) -> LF.StreamState:
        """The state of a causal block before the first position, for `step`."""
        return self.mixing.init_state(batch_size)

    @gathers
    def step(
        self, x: Float[Tensor, "B dim"] | Float[Tensor, "B T dim"], state: LF.StreamState
    ) -> tuple[Tensor, LF.StreamState]:
        """The output for the next position, (B, dim), or the next T, (B, T, dim), and the state after them.

        In evaluation mode equal to `forward` over the whole sequence.
        """
        check_norms(self.norm1, self.norm2)
        mixed, state = self.mixing.step(self.norm1(x), state)
        x = x + self._mixed(mixed)
        return x + self._fed(self.norm2(x)), state


class Blocks(nn.ModuleList):
    """`depth` blocks of lambda mixing in a row.

    Args:
        options: all of `BlockOptions`, with a block_norm.
        causal: a position sees itself and earlier ones only.
        stride: positions of x, in which max_length is, for each of the blocks' positions.

    Attributes:
        max_length: longest input that all position tables cover, in positions of x; None where there is no limit.
        state_reach: of how many of their positions a stream's state keeps the values, at most; None for all there are.
        constant_state: whether the blocks stream from a state of a size that does not depend on what they have seen:
            all are causal, with local scope, exponential positions or none. A global table, or global multi-scale
            embedding, keeps values of ever more positions, up to `state_reach`.
    """

    sequence: SequenceContext = UNSHARDED

    def __init__(self, options: BlockOptions, *, causal: bool, stride: int = 1) -> None:
        super().__init__()
        dim, depth, scope, max_length = options["dim"], options["depth"], options["scope"], options["max_length"]
        scopes = checks.per_block("scope", scope, depth)
        positions = checks.per_block("position", options["position"], depth)
        for block_scope in scopes:
            if block_scope is not None:
                checks.per_dimension("scope", block_scope, 1)
        tables = any(needs_size(p, s) for p, s in zip(positions, scopes, strict=True))
        if tables and max_length is None:
            raise ValueError(
                f"scope={scope} is global and its position tables need the longest input: give max_length=N, a local "
                f"scope, or position={without_size()}, which need none"
            )
        self.max_length = max_length if tables else None
        self.shares = options["share_blocks"]
        if self.shares:
            options = _shared(options, scopes, positions)
        own = part(LambdaOptions, options)
        if own["position_dropout"] and not any(positions):
            raise ValueError(
                f"position_dropout={own['position_dropout']} with position={options['position']}: there are no offsets "
                "to drop; leave it out"
            )
        frames = None if max_length is None else -(-max_length // stride)
        rates = depth_rates(options["stochastic_depth"], depth)
        for block_scope, block_position, rate in zip(scopes, positions, rates, strict=True):
            covered = frames if block_scope is None else None
            here: LambdaOptions = own if block_position is not False else {**own, "position_dropout": 0.0}
            mixing = self.shared
            if mixing is None:
                layer = LambdaLayer1d(
                    dim, **here, scope=block_scope, max_length=covered, causal=causal, position=block_position
                )
                mixing = LambdaMixing(layer, options["norm"])
            self.append(
                Block(
                    mixing,
                    dim,
                    ff_ratio=options["ff_ratio"],
                    ff=options["ff"],
                    norm=options["block_norm"] or "none",
                    layer_scale=options["layer_scale"],
                    dropout=options["dropout"],
                    mixing_dropout=options["mixing_dropout"],
                    stochastic_depth=rate,
                    owned=self.shared is None,
                )
            )
        kept = [keeps(block.mixing.layer.position) for block in self]
        self.state_reach = None if None in kept else max((count for count in kept if count is not None), default=0)
        local = [count == 0 or s is not None for count, s in zip(kept, scopes, strict=True)]
        self.constant_state = causal and None not in kept and all(local)
        self._scale_branches()

    def _scale_branches(self) -> None:
        """Scale what each branch adds, so that all 2 · depth of them together add variance of about 1."""
        branches = 2 * len(self)
        for module in self.modules():
            if isinstance(module, (LambdaMixing, FeedForward)):
                std = (branches * module.out.in_features) ** -0.5
                reset_by(module.out, partial(draw_linear, stds=(std,)))

    @property
    def shared(self) -> LambdaMixing | None:
        """The mixing that all blocks share, which is the first one's; None where each has its own."""
        return cast(Block, self[0]).mixing if self.shares and len(self) else None

    def __iter__(self) -> Iterator[Block]:
        return cast(Iterator[Block], super().__iter__())

    def check_length(self, length: int) -> None:
        """Raise ValueError if position tables do not cover inputs of this length, in positions of x."""
        if self.max_length is not None and length > self.max_length:
            raise ValueError(
                f"x has {length} positions, longer than max_length={self.max_length}: construct the model with "
                f"max_length={length}, give all blocks a local scope, or use position={without_size()}"
            )

    def forward(self, x: Vectors, mask: Mask = None, documents: Documents = None) -> Vectors:
        """Transform a batch of sequences; what comes out at masked positions means nothing."""
        packing = None if documents is None else self.sequence.pack(documents, mask)  # once for all
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
        if len(states) != len(self):
            raise ValueError(
                f"state has {len(states)} blocks: expected the depth={len(self)} of this model, as its init_state gives"
            )
        after = []
        for block, state in zip(self, states, strict=True):
            x, state = block.step(x, state)
            after.append(state)
        return x, tuple(after)


def keeps(position: nn.Module | None) -> int | None:
    """Of how many positions a stream keeps the values, at most, for such position lambdas; None for all."""
    if position is None:
        return 0
    if not isinstance(position, PositionEmbedding):
        return None
    return 0 if position.causal and position.blank() is not None else position.reach


def _shared(options: BlockOptions, scopes: list[Any], positions: list[Any]) -> BlockOptions:
    """The options, of blocks that share a lambda layer; ValueError for those that would not fit all of them."""
    for name, found in (("scope", scopes), ("position", positions)):
        if any(one != found[0] for one in found):
            raise ValueError(f"{name}={found} with share_blocks=True: expected one for all blocks, which share a layer")
    if options["norm"] == "batch":
        raise ValueError(
            "norm='batch' with share_blocks=True: batch statistics differ from block to block, and a shared norm has "
            "one set; use 'rms', 'layer' or 'none'"
        )
    return {**options, "norm": options["norm"] or "rms"}

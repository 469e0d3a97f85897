"""Options of networks of sequences: those of their lambda layers, and of the blocks around these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from lambda_seq.layers import checks
from lambda_seq.layers.norm import NORMS
from lambda_seq.layers.options import (
    CAUSAL,
    POSITION,
    LambdaOptions,
    Option,
    among,
    count,
    count_or_zero,
    flag,
    optional,
    rate,
)

FEED_FORWARDS = ("gelu", "gated")


def _number(name: str, value: object) -> None:
    """Raise TypeError or ValueError unless it is a finite number, or None."""
    checks.numbers(**{name: value})


class BlockOptions(LambdaOptions, total=False):
    """Networks of blocks of lambda layers."""

    dim: Annotated[int, Option(64, "channels of each position.", count)]
    depth: Annotated[int, Option(3, "number of blocks; 0 for none, so that nothing mixes positions.", count_or_zero)]
    scope: Annotated[
        int | Sequence[int | None] | None,
        Option(
            31,
            "context positions (behind strides: frames) of the position lambdas, odd (causal: any), or None for "
            "global; one for all blocks, or one for each.",
        ),
    ]
    max_length: Annotated[
        int | None,
        Option(
            None,
            "for blocks whose scope is None, in positions of x: longest input that a position table covers, which "
            "needs it; what the scales of the other embeddings cover, which run on any length (None: their default).",
            optional(count),
        ),
    ]
    position: Annotated[
        bool | str | Sequence[bool | str], Option(True, f"{POSITION} One for all blocks, or one for each.")
    ]
    block_norm: Annotated[
        str | None,
        Option(
            None,
            'in front of each branch, of a stem\'s convolutions, and at the end: "layer", "batch", "rms" or "none"; '
            'None for norm, where that is given, and else for "layer", in language models for "rms".',
            optional(among(*NORMS)),
        ),
    ]
    share_blocks: Annotated[
        bool,
        Option(
            False,
            "one lambda layer, with the map behind it, for all blocks; norms in front of it, feed-forwards and scales "
            'stay the block\'s own. Its norm is "rms" unless another is given, as batch statistics differ by block.',
            flag,
        ),
    ]
    ff_ratio: Annotated[float, Option(2.0, "hidden channels of the feed-forward, per channel.")]
    ff: Annotated[
        str,
        Option(
            "gelu",
            'the feed-forward: "gelu", two matrices; or "gated", whose hidden channels are products of two (GEGLU), of '
            "which ff_ratio counts one: three matrices, so that an ff_ratio of 4/3 costs what 2 does without.",
            among(*FEED_FORWARDS),
        ),
    ]
    layer_scale: Annotated[
        float | None,
        Option(
            None,
            "each branch's output times a learned scale per channel, which starts here: at 0 a network begins with its "
            "blocks adding nothing (ReZero), at 0.1 or 1e-4 little (LayerScale); None for none.",
            _number,
        ),
    ]
    dropout: Annotated[
        float, Option(0.0, "of each branch, of the feed-forward's hidden channels, and in front of the head.", rate)
    ]
    mixing_dropout: Annotated[
        float, Option(0.0, "of what the mixing of positions adds: whole channels of a sequence, in training.", rate)
    ]
    stochastic_depth: Annotated[
        float,
        Option(
            0.0,
            "probability of leaving out the last block's branches, falling linearly to 0 at the first.",
            rate,
        ),
    ]


class EncoderOptions(BlockOptions, total=False):
    """Networks of blocks that see both sides, or the past only."""

    causal: Annotated[bool, CAUSAL]
    stem_skip: Annotated[
        float | None,
        Option(
            None,
            "the stem's frames go around all blocks, and what the blocks make of them, behind the end norm, is added "
            "times a learned scale per channel that starts here: at 0.01 a network begins as one without blocks; None "
            "for no way around.",
            _number,
        ),
    ]
    end_norm: Annotated[
        str | None,
        Option(
            None,
            'behind the last block, as block_norm; None for that. "none" where the size of a position\'s vector says '
            "how much it counts, as with n-grams.",
            optional(among(*NORMS)),
        ),
    ]

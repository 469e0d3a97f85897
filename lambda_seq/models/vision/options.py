"""Options of residual networks: those of their lambda layers, and of the network around these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypedDict

from lambda_seq.layers.options import HeadOptions, ImageOptions, Option, count, flag, optional, rate


class ResidualOptions(TypedDict, total=False):
    """What all residual networks have."""

    num_classes: Annotated[
        int | None,
        Option(None, 'length of the output; None for 1000. Not of the head "embedding".', optional(count)),
    ]
    in_channels: Annotated[int, Option(3, "channels of the pictures.", count)]
    width: Annotated[
        int,
        Option(
            64,
            "bottleneck channels of the first stage, doubled by each further stage; outputs are four times that.",
            count,
        ),
    ]
    image_size: Annotated[
        int | Sequence[int] | None,
        Option(
            None,
            "largest picture (an int or (H, W)) that global position tables cover; needed with scope=None, and for "
            "attention with relative positions.",
        ),
    ]
    zero_init_last: Annotated[
        bool, Option(True, "start with γ = 0 in the last batch norm of each block, so that it is the identity.", flag)
    ]
    head: Annotated[
        str,
        Option(
            "classes",
            '"classes" or "labels" (one, or any number of them), "numbers" or "embedding"; see `models.heads`.',
        ),
    ]
    head_options: Annotated[Mapping[str, Any] | None, Option(None, 'of the head, such as normalize of "embedding".')]
    dropout: Annotated[float, Option(0.0, "of the pooled features, in front of the head.", rate)]
    stochastic_depth: Annotated[
        float,
        Option(0.0, "probability of leaving out the last block's branch, falling linearly to 0 at the first.", rate),
    ]


class ResNetOptions(ImageOptions, ResidualOptions, total=False):
    """`LambdaResNet`."""


class TieredOptions(HeadOptions, ResidualOptions, total=False):
    """`TieredLambdaResNet`, whose lambda layers are as timm's."""

    scope: Annotated[
        int | None, Option(9, "rows and columns of context of the position lambdas, odd; None for global.")
    ]

"""LambdaEncoder: a classifier of sequences (bytes, pixels, audio) built of lambda layers."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor, nn

from lambda_seq.layers import LambdaLayer1d, make_norm
from lambda_seq.models import checks
from lambda_seq.models.blocks import Block, FeedForward, LambdaMixing
from lambda_seq.models.drop import depth_rates
from lambda_seq.models.pooling import SequencePool
from lambda_seq.models.registry import Model, register_model
from lambda_seq.models.stems import make_stem


@register_model("lambda_encoder_base", dim=256, depth=8, heads=8, dropout=0.1)
@register_model("lambda_encoder_small", dim=128, depth=6, dropout=0.1)
@register_model("lambda_encoder")
@register_model("lambda_encoder_tiny", dim=32, depth=2)
class LambdaEncoder(Model):
    """Sequences to class logits: stem -> blocks of lambda mixing and feed-forward -> norm -> pool -> linear.

    With a mask, padding changes nothing: outputs, and gradients at real positions, are those of the sequences without
    it, in training too. Dropout draws a number for each position, so it is equal in distribution only.

    Args:
        num_classes: length of the output.
        stem: "tokens" (ids, (B, N)), "features" ((B, N, in_channels)) or "waveform" (samples, (B, N) or (B, N, C)).
        vocab_size: number of token ids; None for 257, bytes and a padding id. Tokens only.
        in_channels: features of a position, or channels of the audio; None for 1. Features and waveform only.
        strides: of the waveform stem's layers, whose product is samples per frame; None for (4, 4). Waveform only.
        dim: channels of each position.
        depth: number of blocks.
        heads: queries that share one lambda; divides dim.
        dim_key: query and key depth.
        dim_intra: intra-depth, the number of lambdas summed.
        scope: context positions (frames, behind a waveform stem) of the position lambdas, odd (causal: any), or None
            for global; one for all blocks, or one for each.
        max_length: longest input, in positions of x, that global position tables cover; needed where scope is None.
        causal: a position sees itself and earlier ones only. Batch norms, while training, still average over all
            positions: where that matters use norm and lambda_norm "rms" or "layer".
        content: with the content lambda, which is global.
        position: with the position lambda.
        key_norm: keys over the context positions: "softmax", "l2" or "none".
        query_norm: queries over their depth: "none" or "softmax".
        lambda_norm: of queries, values and the lambda layers' outputs: "batch" (counts real positions only), "layer",
            "rms" or "none".
        position_init: of the position table: "scaled" or "paper".
        norm: in front of each branch, of the waveform stem, and at the end: "layer", "batch", "rms" or "none".
        ff_ratio: hidden channels of the feed-forward, per channel.
        pool: "mean", "max", "attention" (a learned query), "first" or "last", over real positions.
        dropout: of each branch, of the feed-forward's hidden channels, and in front of the classifier.
        stochastic_depth: probability of leaving out the last block's branches, falling linearly to 0 at the first.

    Raises:
        ValueError: an option that does not fit, naming it, its value and what would.
    """

    def __init__(
        self,
        *,
        num_classes: int = 2,
        stem: str = "tokens",
        vocab_size: int | None = None,
        in_channels: int | None = None,
        strides: Sequence[int] | None = None,
        dim: int = 64,
        depth: int = 3,
        heads: int = 4,
        dim_key: int = 16,
        dim_intra: int = 1,
        scope: int | Sequence[int | None] | None = 31,
        max_length: int | None = None,
        causal: bool = False,
        content: bool = True,
        position: bool = True,
        key_norm: str = "softmax",
        query_norm: str = "none",
        lambda_norm: str = "batch",
        position_init: str = "scaled",
        norm: str = "layer",
        ff_ratio: float = 2.0,
        pool: str = "mean",
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        checks.at_least_one(num_classes=num_classes, dim=dim, depth=depth)
        checks.probability(dropout=dropout, stochastic_depth=stochastic_depth)
        if max_length is not None:
            checks.at_least_one(max_length=max_length)
        scopes = _per_block(scope, depth)
        if position and None in scopes and max_length is None:
            raise ValueError(
                f"scope={scope} is global and its tables need the longest input: give max_length=N, or a local scope"
            )
        self.num_classes, self.input_kind = num_classes, stem
        self.max_length = max_length if position and None in scopes else None
        self.stem = make_stem(
            stem, dim, vocab_size=vocab_size, in_channels=in_channels, strides=strides, norm=norm, causal=causal
        )
        self.blocks = nn.ModuleList()
        for block_scope, rate in zip(scopes, depth_rates(stochastic_depth, depth), strict=True):
            layer = LambdaLayer1d(
                dim,
                heads=heads,
                dim_key=dim_key,
                dim_intra=dim_intra,
                scope=block_scope,
                max_length=None if max_length is None else -(-max_length // self.stem.stride),
                causal=causal,
                content=content,
                position=position,
                key_norm=key_norm,
                query_norm=query_norm,
                norm=lambda_norm,
                init=position_init,
            )
            block = Block(
                LambdaMixing(layer, lambda_norm),
                dim,
                ff_ratio=ff_ratio,
                norm=norm,
                dropout=dropout,
                stochastic_depth=rate,
            )
            self.blocks.append(block)
        self.norm = make_norm(norm, dim)
        self.pool = SequencePool(dim, pool)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(dim, num_classes)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Scale what each branch adds, so that all 2 · depth of them together add variance of about 1."""
        branches = 2 * len(self.blocks)
        for module in self.modules():
            if isinstance(module, (LambdaMixing, FeedForward)):
                nn.init.normal_(module.out.weight, std=(branches * module.out.in_features) ** -0.5)
                nn.init.zeros_(module.out.bias)

    def features(
        self, x: Tensor, mask: Bool[Tensor, "B N"] | None = None
    ) -> tuple[Float[Tensor, "B M dim"], Bool[Tensor, "B M"] | None]:
        """A vector for each position, or frame, and the mask of those; M = N / stem.stride, rounded up.

        What stands at masked positions means nothing.

        Raises:
            TypeError: x or mask has a dtype that does not fit the stem.
            ValueError: a shape that does not fit, a token id out of range, or N larger than max_length.
        """
        stemmed, mask = self.stem(x, mask)  # (B, M, dim)
        if self.max_length is not None and x.shape[1] > self.max_length:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, longer than max_length={self.max_length}: construct the model with "
                f"max_length={x.shape[1]}, or give all blocks a local scope"
            )
        for block in self.blocks:
            stemmed = block(stemmed, mask)
        return self.norm(stemmed, mask), mask

    def forward(self, x: Tensor, mask: Bool[Tensor, "B N"] | None = None) -> Float[Tensor, "B classes"]:
        """Logits of a batch of sequences; `mask` is True at real positions, and a row without any is finite.

        Raises:
            TypeError, ValueError: as `features`.
        """
        features, mask = self.features(x, mask)  # (B, M, dim), (B, M)
        pooled = self.pool(features, mask)  # (B, dim)
        return self.head(self.dropout(pooled))  # (B, classes)


def _per_block(scope: int | Sequence[int | None] | None, depth: int) -> list[int | None]:
    if scope is None or isinstance(scope, int):
        return [scope] * depth
    if len(scope) != depth:
        raise ValueError(
            f"scope={list(scope)} has {len(scope)} entries: expected one for each of the depth={depth} blocks"
        )
    return list(scope)

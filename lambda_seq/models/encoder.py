"""LambdaEncoder: a classifier of sequences (bytes, pixels, audio) built of lambda layers."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lambda_seq import functional as LF
from lambda_seq.layers import WHOLE, Whole, make_norm
from lambda_seq.models import checks
from lambda_seq.models.blocks import Blocks, Position
from lambda_seq.models.pooling import SequencePool
from lambda_seq.models.registry import Model, register_model
from lambda_seq.models.stems import TokenStem, make_stem
from lambda_seq.models.streaming import EncoderState, check_batch, check_norms


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
        strides: of convolutions behind the stem, whose product is positions of x per frame; None for (4, 4) with
            "waveform", and for none at all with the others. (4,) shortens byte sequences to a quarter.
        dim: channels of each position.
        depth: number of blocks.
        heads: queries that share one lambda; divides dim.
        dim_key: query and key depth.
        dim_intra: intra-depth, the number of lambdas summed.
        scope: context positions (behind strides: frames) of the position lambdas, odd (causal: any), or None for
            global; one for all blocks, or one for each.
        max_length: where scope is None, in positions of x: longest input that a position table covers, which needs it;
            what the scales of the other embeddings cover, which run on any length (None: their default).
        causal: a position sees itself and earlier ones only. Batch norms, while training, still average over all
            positions: where that matters use norm and lambda_norm "rms" or "layer".
        content: with the content lambda, which is global.
        position: embedding of the position lambda: "table" (or True), a free vector for each offset; "multiscale",
            decaying and of few parameters; "exponential", sums of decaying exponentials, for scope None; False for no
            position lambda. One for all blocks, or one for each.
        key_norm: keys over the context positions: "softmax", "l2" or "none".
        query_norm: queries over their depth: "none" or "softmax".
        lambda_norm: of queries, values and the lambda layers' outputs: "batch" (counts real positions only), "layer",
            "rms" or "none".
        position_init: of the position table: "scaled" or "paper".
        norm: in front of each branch, of the stem's convolutions, and at the end: "layer", "batch", "rms" or "none".
        ff_ratio: hidden channels of the feed-forward, per channel.
        pool: "mean", "max", "attention" (a learned query), "first" or "last", over real positions.
        dropout: of each branch, of the feed-forward's hidden channels, and in front of the classifier.
        token_dropout: probability of hiding a token in training, which keeps a network of bytes from learning texts by
            heart. Tokens only.
        stochastic_depth: probability of leaving out the last block's branches, falling linearly to 0 at the first.

    Attributes:
        max_length: longest input, None where all position embeddings run on any length.
        constant_state: whether the encoder streams (`init_state`, `step`) from a state of a size that does not depend
            on what it has seen: it is causal, and all blocks have local scope, exponential positions or none.

    Raises:
        ValueError: an option that does not fit, naming it, its value and what would.
    """

    shards: Whole = WHOLE

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
        position: Position | Sequence[Position] = True,
        key_norm: str = "softmax",
        query_norm: str = "none",
        lambda_norm: str = "batch",
        position_init: str = "scaled",
        norm: str = "layer",
        ff_ratio: float = 2.0,
        pool: str = "mean",
        dropout: float = 0.0,
        token_dropout: float = 0.0,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        checks.at_least_one(num_classes=num_classes, dim=dim)
        self.num_classes, self.input_kind, self.causal = num_classes, stem, causal
        self.stem = make_stem(
            stem,
            dim,
            vocab_size=vocab_size,
            in_channels=in_channels,
            token_dropout=token_dropout,
            strides=strides,
            norm=norm,
            causal=causal,
        )
        self.vocab_size = self.stem.embedding.num_embeddings if isinstance(self.stem, TokenStem) else None
        self.blocks = Blocks(
            dim,
            depth,
            scope=scope,
            position=position,
            max_length=max_length,
            stride=self.stem.stride,
            heads=heads,
            dim_key=dim_key,
            dim_intra=dim_intra,
            causal=causal,
            content=content,
            key_norm=key_norm,
            query_norm=query_norm,
            lambda_norm=lambda_norm,
            position_init=position_init,
            norm=norm,
            ff_ratio=ff_ratio,
            dropout=dropout,
            stochastic_depth=stochastic_depth,
        )
        self.max_length, self.constant_state = self.blocks.max_length, self.blocks.constant_state
        self.norm = make_norm(norm, dim)
        self.pool = SequencePool(dim, pool)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(dim, num_classes)

    def features(
        self,
        x: Tensor,
        mask: Bool[Tensor, "B N"] | None = None,
        documents: Int[Tensor, "B N"] | LF.Packing | None = None,
    ) -> tuple[Float[Tensor, "B M dim"], Bool[Tensor, "B M"] | None]:
        """A vector for each position, or frame, and the mask of those; M = N / stem.stride, rounded up.

        What stands at masked positions means nothing.

        Args:
            x: what the stem takes.
            mask: True at real positions.
            documents: of which document each position is, by ids or as `functional.Packing`: several of them in one
                row, as if each stood alone. Not behind convolutions, which mix neighbours.

        Raises:
            TypeError: x, mask or documents has a dtype that does not fit.
            ValueError: a shape that does not fit, a token id out of range, N (the longest document) larger than
                max_length, or documents in a network whose stem has convolutions.
        """
        packing = None
        if documents is not None:
            self._check_packs()
            packing = LF.Packing.of(documents, mask)
            mask = packing.mask
        stemmed, mask = self.stem(x, mask)  # (B, M, dim)
        length = self.shards.length(x)
        if packing is not None:
            packing.check_shape(x.shape[:2], x.device)
            length = packing.longest
        self.blocks.check_length(length)
        stemmed = self.blocks(stemmed, mask, packing)
        return self.norm(stemmed, mask), mask

    def forward(
        self,
        x: Tensor,
        mask: Bool[Tensor, "B N"] | None = None,
        documents: Int[Tensor, "B N"] | LF.Packing | None = None,
    ) -> Float[Tensor, "B classes"]:
        """Logits of a batch of sequences; `mask` is True at real positions, and a row without any is finite.

        With documents, as for `features`, logits (D, classes) of each of the D documents, row by row in the order in
        which they begin. Stochastic depth leaves out branches for a row, not for each document.

        Raises:
            TypeError, ValueError: as `features`.
        """
        packing = None if documents is None else LF.Packing.of(documents, mask)
        features, mask = self.features(x, mask, packing)  # (B, M, dim), (B, M)
        pooled = self.pool(features, mask, packing)  # (B, dim), or (D, dim)
        return self.head(self.dropout(pooled))  # (B, classes), or (D, classes)

    def init_state(self, batch_size: int) -> EncoderState:
        """The state of a causal encoder before the first position, for `step`.

        Raises:
            ValueError: the encoder is not causal, or batch_size below 1.
        """
        self._check_streams()
        checks.at_least_one(batch_size=batch_size)
        pool = self.pool.init_state(batch_size, self.head.weight)
        return EncoderState(0, self.stem.init_state(batch_size), self.blocks.init_state(batch_size), pool)

    def step(self, x: Tensor, state: EncoderState) -> tuple[Float[Tensor, "B classes"], EncoderState]:
        """Logits of all positions so far, and the state after the next T ≥ 1 of them: x is a piece as `forward` takes.

        Pieces of any lengths give the logits, in evaluation mode, that `forward` gives for the whole; every position is
        real. Where `constant_state` is true, a stream of any length is classified in constant memory.

        Raises:
            TypeError: x has a dtype that does not fit the stem.
            ValueError: the encoder is not causal or is training with batch norm, a shape that does not fit, or more
                positions than max_length.
        """
        self._check_streams()
        check_norms(self.norm)
        frames, stem = self.stem.step(x, state.stem)  # (B, M, dim), M ≥ 0
        check_batch(x.shape[0], state.pool.value.shape[0])
        seen, blocks = state.seen + x.shape[1], state.blocks
        self.blocks.check_length(seen)
        if frames.shape[1]:
            frames, blocks = self.blocks.step(frames, blocks)
        pooled, pool = self.pool.step(self.norm(frames), state.pool)  # (B, dim)
        return self.head(self.dropout(pooled)), EncoderState(seen, stem, blocks, pool)

    def _check_packs(self) -> None:
        if self.stem.layers:
            raise ValueError(
                f"documents: the stem's convolutions, with a stride of {self.stem.stride}, mix neighbours across the "
                "ends of documents: give each document a row of its own, padded, with a mask"
            )

    def _check_streams(self) -> None:
        if not self.causal:
            raise ValueError("causal=False: only a causal encoder streams; construct it with causal=True")

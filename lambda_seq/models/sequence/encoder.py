"""LambdaEncoder: features of sequences (bytes, pixels, audio) by lambda layers, and a head that answers from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lambda_seq import functional as LF
from lambda_seq.layers import UNSHARDED, SequenceContext, checks, make_norm
from lambda_seq.layers.options import complete, with_options
from lambda_seq.layers.synced import NormOwner
from lambda_seq.layers.weights import gathers, place
from lambda_seq.models.heads import Inputs, make_objective
from lambda_seq.models.inputs import INPUTS, WORD_IDS
from lambda_seq.models.model import Model
from lambda_seq.models.registry import register_model
from lambda_seq.models.sequence.blocks import Blocks, LayerScale
from lambda_seq.models.sequence.ngrams import NgramStem
from lambda_seq.models.sequence.options import EncoderOptions
from lambda_seq.models.sequence.pooling import SequencePool
from lambda_seq.models.sequence.stems import KINDS, STEMS, TokenStem, make_stem
from lambda_seq.models.sequence.streaming import EncoderState, check_batch, check_norms


@register_model("lambda_encoder_base", dim=256, depth=8, heads=8, dropout=0.1)
@register_model("lambda_encoder_small", dim=128, depth=6, dropout=0.1)
@register_model("lambda_encoder")
@register_model("lambda_encoder_tiny", dim=32, depth=2)
@with_options
class LambdaEncoder(NormOwner, Model):
    """Sequences to answers: stem -> blocks of lambda mixing and feed-forward -> norm -> pool -> head.

    What is in front of the pool gives `features`, a vector for each position; the head is chosen by name, and only
    those that answer for the whole sequence are pooled for.

    With a mask, padding changes nothing: outputs, and gradients at real positions, are those of the sequences without
    it, in training too. Dropout draws a number for each position, so it is equal in distribution only.

    Args:
        num_classes: length of the output; None for 2. Not of the heads "tokens", "values" and "embedding", whose
            outputs follow from the input.
        stem: "tokens" (ids, (B, N)), "features" ((B, N, in_channels)), "waveform" (samples, (B, N) or (B, N, C)),
            "spectrum" (samples, too, of which a spectrogram with learned bands is made), or "ngrams" (ids of any
            vocabulary, (B, N), whose n-grams are known by hashes: words and pairs of words).
        vocab_size: number of token ids; None for 257, bytes and a padding id. With "ngrams" no weight depends on it,
            but the head "tokens" has to know it. Tokens and n-grams only.
        in_channels: features of a position, or channels of the audio; None for 1. Features, waveform and spectrum only.
        strides: of convolutions behind the stem, whose product is positions of x per frame; None for (4, 4) with
            "waveform", (160,) with "spectrum", whose first is from spectrum to spectrum, and for none at all with the
            others. (4,) shortens byte sequences to a quarter.
        orders: lengths of the n-grams; None for (1, 2), tokens and pairs of neighbours. N-grams only.
        buckets: vectors that all n-grams share, by hash; None for 262,144. N-grams only.
        idf: whether n-grams weigh by their inverse document frequency, which tasks count in the training documents
            before they train (`stem.adapt`); None for False. N-grams only.
        df_power: by which power of their document frequency n-grams weigh, counted likewise; 0.5 keeps Adam from
            learning rare ones by heart; None for 0. N-grams only.
        tf: how an n-gram counts that a text has c times: "natural", c; "log", 1 + ln c; "binary", 1; None for
            "natural". N-grams only.
        head: "classes" or "labels" (one, or any number of them), "numbers", "positions" (a class for each position, or
            frame), "tokens" or "values" (what stands there, such as in hidden places), or "embedding"; `objective` has
            its loss, and what its logits answer.
        head_options: "tokens" has tie (default false), whether the embedding gives the weights; "embedding" has
            normalize (true) and temperature (0.07); "classes" has label_smoothing (0).
        pool: "mean", "max", "attention" (a learned query), "first", "last" or "sqrt" (the sum over the square root of
            the length), over real positions; None for "mean". Heads that answer for each position have none.
        token_dropout: probability of hiding a token in training, which keeps a network from learning texts by heart.
            Tokens and n-grams only.
        **options: of `models.sequence.options.EncoderOptions`.

    Attributes:
        objective: what the head is trained for, and what its logits answer: a `models.heads.Objective`.
        max_length: longest input, None where all position embeddings run on any length.
        constant_state: whether the encoder streams (`init_state`, `step`) from a state of a size that does not depend
            on what it has seen: it is causal, and all blocks have local scope, exponential positions or none.
    """

    sequence: SequenceContext = UNSHARDED
    takes: ClassVar[Mapping[str, str]] = {
        kind: f"lambda_encoder with options.stem: {kind}" for kind in STEMS if kind in INPUTS
    }

    def __init__(
        self,
        *,
        num_classes: int | None = None,
        stem: str = "tokens",
        vocab_size: int | None = None,
        in_channels: int | None = None,
        strides: Sequence[int] | None = None,
        orders: Sequence[int] | None = None,
        buckets: int | None = None,
        idf: bool | None = None,
        df_power: float | None = None,
        tf: str | None = None,
        head: str = "classes",
        head_options: Mapping[str, Any] | None = None,
        pool: str | None = None,
        token_dropout: float = 0.0,
        **options: Unpack[EncoderOptions],
    ) -> None:
        super().__init__()
        checks.at_least_one(**({} if num_classes is None else {"num_classes": num_classes}))
        options = complete(EncoderOptions, options, self)
        options["block_norm"] = norm = options["block_norm"] or options["norm"] or "layer"
        dim, causal = options["dim"], options["causal"]
        self.dim, self.input_kind, self.causal = dim, KINDS.get(stem, stem), causal
        self.objective = make_objective(head, head_options)
        self.stem = make_stem(
            stem,
            dim,
            vocab_size=vocab_size,
            in_channels=in_channels,
            token_dropout=token_dropout,
            orders=orders,
            buckets=buckets,
            idf=idf,
            df_power=df_power,
            tf=tf,
            strides=strides,
            norm=norm,
            causal=causal,
        )
        if isinstance(self.stem, (TokenStem, NgramStem)):
            self.vocab_size = self.stem.vocab_size
        self.blocks = Blocks(options, causal=causal, stride=self.stem.stride)
        self.max_length, self.constant_state = self.blocks.max_length, self.blocks.constant_state
        self.norm = make_norm(options["end_norm"] or norm, dim)
        self.skip = None if options["stem_skip"] is None else LayerScale(dim, options["stem_skip"])
        inputs = self._inputs(dim)
        self.num_classes = self.objective.outputs(inputs, num_classes, default=2)
        if pool is not None and not self.objective.pooled:
            raise ValueError(
                f"pool={pool!r} does not apply to head={head!r}, which answers for each position: leave it out"
            )
        self.pool = SequencePool(dim, pool or "mean") if self.objective.pooled else None
        self.dropout = nn.Dropout(options["dropout"])
        self.head = self.objective.layer(inputs, self.num_classes)

    def _inputs(self, dim: int) -> Inputs:
        """What the head has to know of the network."""
        stem = self.stem
        if isinstance(stem, NgramStem):
            return Inputs(dim, self.input_kind, stem.vocab_size or WORD_IDS, stem.stride)
        if not isinstance(stem, TokenStem):
            return Inputs(dim, self.input_kind, stem.in_channels, stem.stride)
        embedding = stem.embedding if stem.embedding.embedding_dim == dim else None
        return Inputs(dim, self.input_kind, stem.vocab_size, stem.stride, embedding)

    def features(
        self,
        x: Tensor,
        mask: Bool[Tensor, "B N"] | None = None,
        documents: Int[Tensor, "B N"] | LF.Packing | None = None,
        *,
        hidden: tuple[Bool[Tensor, "B M"], Float[Tensor, " dim"]] | None = None,
    ) -> tuple[Float[Tensor, "B M dim"], Bool[Tensor, "B M"] | None]:
        """A vector for each position, or frame, and the mask of those; M = N / stem.stride, rounded up.

        What stands at masked positions means nothing.

        Args:
            x: what the stem takes.
            mask: True at real positions.
            documents: of which document each position is, by ids or as `functional.Packing`: several of them in one
                row, as if each stood alone. Not behind convolutions, which mix neighbours.
            hidden: which frames the blocks shall not see, and the vector that stands for what the stem makes of them.
                The stem's convolutions see all of x.

        Raises:
            TypeError: x, mask or documents has a dtype that does not fit.
            ValueError: a shape that does not fit, a token id out of range, N (the longest document) larger than
                max_length, or documents in a network whose stem has convolutions.
        """
        packing = None
        if documents is not None:
            self._check_packs()
            packing = self.sequence.pack(documents, mask)
            mask = packing.mask
        frames, mask = self.stem(x, mask, packing)  # (B, M, dim)
        if hidden is not None:
            where, vector = hidden
            frames = torch.where(where[..., None], vector.to(frames.dtype), frames)
        if packing is not None:
            packing.check_shape(x.shape[:2], x.device)
        self.blocks.check_length(self.sequence.length(x) if packing is None else packing.longest)
        return self._ended(frames, self.blocks(frames, mask, packing), mask), mask

    def forward(
        self,
        x: Tensor,
        mask: Bool[Tensor, "B N"] | None = None,
        documents: Int[Tensor, "B N"] | LF.Packing | None = None,
    ) -> Float[Tensor, "B classes"] | Float[Tensor, "B M classes"]:
        """Logits of a batch of sequences; `mask` is True at real positions, and a row without any is finite.

        Heads that answer for each position give logits (B, M, classes), M as for `features`; those at masked positions
        mean nothing. With documents, as for `features`, the others give logits (D, classes) of each of the D documents,
        row by row in the order in which they begin. Stochastic depth leaves out branches for a row, not for each
        document.

        Raises:
            TypeError, ValueError: as `features`.
        """
        packing = None if documents is None else self.sequence.pack(documents, mask)
        features, mask = self.features(x, mask, packing)  # (B, M, dim), (B, M)
        if self.pool is not None:
            features = self.pool(features, mask, packing)  # (B, dim), or (D, dim)
        return self.head(self.dropout(features))  # (B, classes), (D, classes) or (B, M, classes)

    def init_state(self, batch_size: int) -> EncoderState:
        """The state of a causal encoder before the first position, for `step`.

        Raises:
            ValueError: the encoder is not causal, or batch_size below 1.
        """
        self._check_streams()
        checks.at_least_one(batch_size=batch_size)
        pool = None if self.pool is None else self.pool.init_state(batch_size, place(self))
        return EncoderState(0, self.stem.init_state(batch_size), self.blocks.init_state(batch_size), pool)

    @gathers
    def step(
        self, x: Tensor, state: EncoderState
    ) -> tuple[Float[Tensor, "B classes"] | Float[Tensor, "B M classes"], EncoderState]:
        """Logits of all positions so far, and the state after the next T ≥ 1 of them: x is a piece as `forward` takes.

        Pieces of any lengths give the logits, in evaluation mode, that `forward` gives for the whole; every position is
        real. Heads that answer for each position give logits of the frames that the piece completes, 0 or more. Where
        `constant_state` is true, a stream of any length is answered in constant memory.

        Raises:
            TypeError: x has a dtype that does not fit the stem, or the state is none of an encoder.
            ValueError: the encoder is not causal or is training with batch norm, a shape that does not fit, a state of
                another batch or network, or more positions than max_length.
        """
        self._check_streams()
        checks.stream_state(state, EncoderState)
        check_norms(self.norm)
        frames, stem = self.stem.step(x, state.stem)  # (B, M, dim), M ≥ 0
        if (state.pool is None) != (self.pool is None):
            raise ValueError("state is of an encoder with another head: take the state of this model's init_state")
        if state.pool is not None:
            check_batch(x.shape[0], state.pool.value.shape[0])
        seen, blocks, pool = state.seen + x.shape[1], state.blocks, state.pool
        self.blocks.check_length(seen)
        mixed = frames
        if frames.shape[1]:
            mixed, blocks = self.blocks.step(frames, blocks)
        features = self._ended(frames, mixed, None)  # (B, M, dim)
        if self.pool is not None and pool is not None:
            features, pool = self.pool.step(features, pool)  # (B, dim)
        return self.head(self.dropout(features)), EncoderState(seen, stem, blocks, pool)

    def _ended(self, frames: Tensor, mixed: Tensor, mask: Tensor | None) -> Tensor:
        """Features of what the stem and the blocks gave."""
        mixed = self.norm(mixed, mask)
        return mixed if self.skip is None else frames + self.skip(mixed)

    def _check_packs(self) -> None:
        if self.stem.layers:
            raise ValueError(
                f"documents: the stem's convolutions, with a stride of {self.stem.stride}, mix neighbours across the "
                "ends of documents: give each document a row of its own, padded, with a mask"
            )

    def _check_streams(self) -> None:
        if not self.causal:
            raise ValueError("causal=False: only a causal encoder streams; construct it with causal=True")

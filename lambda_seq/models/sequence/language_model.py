"""LambdaLM: a causal language model built of lambda layers, which trains in parallel and generates from a state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar, Self, Unpack

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lambda_seq import functional as LF
from lambda_seq.layers import UNSHARDED, SequenceContext, checks, make_norm
from lambda_seq.layers.options import complete, with_options
from lambda_seq.layers.synced import NormOwner
from lambda_seq.layers.weights import draw_linear, gathers, reset_by
from lambda_seq.models.heads import TokenIds
from lambda_seq.models.registry import register_model
from lambda_seq.models.sequence.blocks import Blocks
from lambda_seq.models.sequence.generation import GenerativeModel
from lambda_seq.models.sequence.options import BlockOptions
from lambda_seq.models.sequence.stems import TokenStem
from lambda_seq.models.sequence.streaming import LanguageModelState


@register_model("lambda_lm_base", dim=256, depth=8, heads=8, dropout=0.1)
@register_model("lambda_lm_small", dim=128, depth=6, dropout=0.1)
@register_model("lambda_lm")
@register_model("lambda_lm_tiny", dim=32, depth=2)
@with_options
class LambdaLM(NormOwner, GenerativeModel):
    """Tokens to logits of the next: embedding -> causal blocks of lambda mixing and feed-forward -> norm -> linear.

    The same weights work in two ways. `forward` sees a whole sequence at once, for training; `init_state` and `step`
    take it in pieces of any lengths, down to one token, and give the same logits; `generate` does so with what it
    samples. Where `constant_state` is true, neither the size of a state nor the time of a step depend on the context:
    with local scope, exponential positions and the content lambda. With a global table or multi-scale embedding, they
    grow with the context, up to all that it covers.

    Weights that embedding and output share are drawn from N(0, 1 / dim), and scaled by √dim on their way in.

    Args:
        vocab_size: number of token ids; the default is for bytes and a padding id.
        tie: whether the output shares the embedding's weights.
        **options: of `models.sequence.options.BlockOptions`.

    Attributes:
        max_length: longest input, None where all position embeddings run on any length.
        constant_state: whether the size of a state does not depend on the context.

    Raises:
        TypeError, ValueError: an option that does not fit, naming it, its value and what would; "batch" norms are
            refused, as their statistics average over the future.
    """

    sequence: SequenceContext = UNSHARDED
    takes: ClassVar[Mapping[str, str]] = {"tokens": "a language model, such as lambda_lm"}
    objective = TokenIds()

    def __init__(
        self,
        *,
        vocab_size: int = 257,
        tie: bool = True,
        **options: Unpack[BlockOptions],
    ) -> None:
        super().__init__()
        checks.at_least_one(vocab_size=vocab_size)
        checks.flags(tie=tie)
        options = complete(BlockOptions, options, self)
        for name, kind in (("norm", options["norm"]), ("block_norm", options["block_norm"])):
            if kind == "batch":
                raise ValueError(
                    f"{name}='batch': batch statistics average over the future, which a language model predicts; use "
                    "'rms', 'layer' or 'none'"
                )
        options["block_norm"] = norm = options["block_norm"] or options["norm"] or "rms"
        dim = options["dim"]
        self.num_classes = self.vocab_size = vocab_size
        self.input_kind = "tokens"
        self.stem = TokenStem(dim, vocab_size)
        self.blocks = Blocks(options, causal=True)
        self.max_length, self.constant_state = self.blocks.max_length, self.blocks.constant_state
        self.norm = make_norm(norm, dim)
        self.head = nn.Linear(dim, vocab_size, bias=False)
        draw_head = partial(draw_linear, stds=(dim**-0.5,))
        reset_by(self.head, draw_head)
        self.scale = 1.0
        if tie:
            self.stem.embedding.weight = self.head.weight
            reset_by(self.stem.embedding, draw_head, now=False)
            self.scale = dim**0.5  # back to variance 1

    # Private to torch: all of `to`, `to_empty`, `double` and the like go through it, and no hook follows them.
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """As torch's, but weights that are shared stay so where it makes new parameters, as from the meta device."""
        embedding, head = self.stem.embedding, self.head
        tied = embedding.weight is head.weight
        super()._apply(fn, recurse)
        if tied:
            embedding.weight = head.weight
        return self

    def features(
        self,
        tokens: Int[Tensor, "B N"],
        mask: Bool[Tensor, "B N"] | None = None,
        documents: Int[Tensor, "B N"] | LF.Packing | None = None,
    ) -> Float[Tensor, "B N dim"]:
        """A vector for each position, from which `head` makes its logits; arguments and errors as `forward`."""
        packing = None if documents is None else self.sequence.pack(documents, mask)
        x, mask = self.stem(tokens, mask if packing is None else packing.mask)  # (B, N, dim)
        if packing is not None:
            packing.check_shape(tokens.shape, tokens.device)
        self.blocks.check_length(self.sequence.length(tokens) if packing is None else packing.longest)
        return self.norm(self.blocks(x * self.scale, mask, packing), mask)

    def forward(
        self,
        tokens: Int[Tensor, "B N"],
        mask: Bool[Tensor, "B N"] | None = None,
        documents: Int[Tensor, "B N"] | LF.Packing | None = None,
    ) -> Float[Tensor, "B N vocab_size"]:
        """Logits of the token that follows each position, given the ones up to it.

        Args:
            tokens: ids.
            mask: True at real positions, which no others influence; what comes out at others means nothing.
            documents: of which document each position is, by ids or as `functional.Packing`: several of them in one
                row, as if each stood alone.

        Raises:
            TypeError: tokens or mask has a dtype that does not fit.
            ValueError: a shape that does not fit, an id outside 0 ≤ id < vocab_size, or N larger than max_length.
        """
        return self.head(self.features(tokens, mask, documents))  # (B, N, vocab_size)

    def init_state(self, batch_size: int) -> LanguageModelState:
        """The state before the first token, for `step`.

        Raises:
            ValueError: batch_size below 1.
        """
        checks.at_least_one(batch_size=batch_size)
        return LanguageModelState(0, self.blocks.init_state(batch_size))

    @gathers
    def step(
        self, tokens: Int[Tensor, "B"] | Int[Tensor, "B T"], state: LanguageModelState
    ) -> tuple[Tensor, LanguageModelState]:
        """Logits (B, vocab_size) after the next token, or (B, T, vocab_size) after the next T, and the state then.

        In evaluation mode equal to `forward` over the whole sequence. Every position is real: rows of different lengths
        are streams of their own.

        Raises:
            TypeError: tokens are not integers, or the state is none of a language model.
            ValueError: a shape that does not fit, an id outside 0 ≤ id < vocab_size, a state of another batch or
                network, or more tokens than max_length.
        """
        features, state = self.step_features(tokens, state)
        return self.head(features), state

    @gathers
    def step_features(self, tokens: Tensor, state: LanguageModelState) -> tuple[Tensor, LanguageModelState]:
        """As `step`, but the vectors from which `head` makes logits."""
        checks.token_ids("tokens", tokens)
        checks.stream_state(state, LanguageModelState)
        single = tokens.ndim == 1
        x, _ = self.stem(tokens[:, None] if single else tokens)  # (B, T, dim)
        seen = state.seen + x.shape[1]
        self.blocks.check_length(seen)
        x, blocks = self.blocks.step((x[:, 0] if single else x) * self.scale, state.blocks)
        return self.norm(x), LanguageModelState(seen, blocks)

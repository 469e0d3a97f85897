"""LambdaLM: a causal language model built of lambda layers, which trains in parallel and generates from a state."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lambda_seq import functional as LF
from lambda_seq.layers import WHOLE, Whole, make_norm
from lambda_seq.models import checks
from lambda_seq.models.blocks import Blocks, Position
from lambda_seq.models.generation import GenerativeModel
from lambda_seq.models.registry import register_model
from lambda_seq.models.stems import TokenStem
from lambda_seq.models.streaming import LanguageModelState


@register_model("lambda_lm_base", dim=256, depth=8, heads=8, dropout=0.1)
@register_model("lambda_lm_small", dim=128, depth=6, dropout=0.1)
@register_model("lambda_lm")
@register_model("lambda_lm_tiny", dim=32, depth=2)
class LambdaLM(GenerativeModel):
    """Tokens to logits of the next: embedding -> causal blocks of lambda mixing and feed-forward -> norm -> linear.

    The same weights work in two ways. `forward` sees a whole sequence at once, for training; `init_state` and `step`
    take it in pieces of any lengths, down to one token, and give the same logits; `generate` does so with what it
    samples. Where `constant_state` is true, neither the size of a state nor the time of a step depend on the context:
    with local scope, exponential positions and the content lambda. With a global table or multi-scale embedding, they
    grow with the context, up to all that it covers.

    Weights that embedding and output share are drawn from N(0, 1 / dim), and scaled by √dim on their way in.

    Args:
        vocab_size: number of token ids; the default is for bytes and a padding id.
        dim: channels of each position.
        depth: number of blocks.
        heads: queries that share one lambda; divides dim.
        dim_key: query and key depth.
        dim_intra: intra-depth, the number of lambdas summed.
        scope: context positions of the position lambdas, up to and with the query's own, or None for all; one for all
            blocks, or one for each.
        max_length: where scope is None: longest input that a position table covers, which needs it; what the scales of
            the other embeddings cover, which run on any length (None: their default).
        content: with the content lambda, which is global.
        position: embedding of the position lambda: "table" (or True), a free vector for each offset; "multiscale",
            decaying and of few parameters; "exponential", sums of decaying exponentials, for scope None; False for no
            position lambda. One for all blocks, or one for each.
        key_norm: keys over the context positions: "softmax", "l2" or "none".
        query_norm: queries over their depth: "none" or "softmax".
        lambda_norm: of queries, values and the lambda layers' outputs: "rms", "layer" or "none".
        position_init: of the position table: "scaled" or "paper".
        norm: in front of each branch and at the end: "rms", "layer" or "none".
        ff_ratio: hidden channels of the feed-forward, per channel.
        dropout: of each branch, and of the feed-forward's hidden channels.
        stochastic_depth: probability of leaving out the last block's branches, falling linearly to 0 at the first.
        tie: whether the output shares the embedding's weights.

    Attributes:
        max_length: longest input, None where all position embeddings run on any length.
        constant_state: whether the size of a state does not depend on the context.

    Raises:
        ValueError: an option that does not fit, naming it, its value and what would; "batch" norms are refused, as
            their statistics average over the future.
    """

    shards: Whole = WHOLE

    def __init__(
        self,
        *,
        vocab_size: int = 257,
        dim: int = 64,
        depth: int = 3,
        heads: int = 4,
        dim_key: int = 16,
        dim_intra: int = 1,
        scope: int | Sequence[int | None] | None = 31,
        max_length: int | None = None,
        content: bool = True,
        position: Position | Sequence[Position] = True,
        key_norm: str = "softmax",
        query_norm: str = "none",
        lambda_norm: str = "rms",
        position_init: str = "scaled",
        norm: str = "rms",
        ff_ratio: float = 2.0,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        tie: bool = True,
    ) -> None:
        super().__init__()
        checks.at_least_one(vocab_size=vocab_size, dim=dim)
        for name, kind in (("norm", norm), ("lambda_norm", lambda_norm)):
            if kind == "batch":
                raise ValueError(
                    f"{name}='batch': batch statistics average over the future, which a language model predicts; use "
                    "'rms', 'layer' or 'none'"
                )
        self.num_classes = self.vocab_size = vocab_size
        self.input_kind = "tokens"
        self.stem = TokenStem(dim, vocab_size)
        self.blocks = Blocks(
            dim,
            depth,
            scope=scope,
            position=position,
            max_length=max_length,
            heads=heads,
            dim_key=dim_key,
            dim_intra=dim_intra,
            causal=True,
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
        self.head = nn.Linear(dim, vocab_size, bias=False)
        nn.init.normal_(self.head.weight, std=dim**-0.5)
        self.scale = 1.0
        if tie:
            self.stem.embedding.weight = self.head.weight
            self.scale = dim**0.5  # back to variance 1

    def features(
        self,
        tokens: Int[Tensor, "B N"],
        mask: Bool[Tensor, "B N"] | None = None,
        documents: Int[Tensor, "B N"] | LF.Packing | None = None,
    ) -> Float[Tensor, "B N dim"]:
        """A vector for each position, from which `head` makes its logits; arguments and errors as `forward`."""
        packing = None if documents is None else self.shards.packing(documents, mask)
        x, mask = self.stem(tokens, mask if packing is None else packing.mask)  # (B, N, dim)
        length = self.shards.length(tokens)
        if packing is not None:
            packing.check_shape(tokens.shape, tokens.device)
            length = packing.longest
        self.blocks.check_length(length)
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

    def step(
        self, tokens: Int[Tensor, "B"] | Int[Tensor, "B T"], state: LanguageModelState
    ) -> tuple[Tensor, LanguageModelState]:
        """Logits (B, vocab_size) after the next token, or (B, T, vocab_size) after the next T, and the state then.

        In evaluation mode equal to `forward` over the whole sequence. Every position is real: rows of different lengths
        are streams of their own.

        Raises:
            TypeError: tokens are not integers.
            ValueError: a shape that does not fit, an id outside 0 ≤ id < vocab_size, or more tokens than max_length.
        """
        features, state = self.step_features(tokens, state)
        return self.head(features), state

    def step_features(self, tokens: Tensor, state: LanguageModelState) -> tuple[Tensor, LanguageModelState]:
        """As `step`, but the vectors from which `head` makes logits."""
        checks.token_ids("tokens", tokens)
        single = tokens.ndim == 1
        x, _ = self.stem(tokens[:, None] if single else tokens)  # (B, T, dim)
        seen = state.seen + x.shape[1]
        self.blocks.check_length(seen)
        x, blocks = self.blocks.step((x[:, 0] if single else x) * self.scale, state.blocks)
        return self.norm(x), LanguageModelState(seen, blocks)

"""The lambda layer as a module: projections, norms and position embedding around `functional.lambda_layer`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lambda_seq import functional as LF
from lambda_seq.layers.embeddings import make_position
from lambda_seq.layers.norm import MaskedBatchNorm, make_norm
from lambda_seq.layers.position import PositionEmbedding
from lambda_seq.layers.whole import WHOLE, Whole

QUERY_NORMS = ("none", "softmax")


class LambdaLayer(nn.Module):
    """Lambda layer over any number of dimensions, channels last; use `LambdaLayer1d` or `LambdaLayer2d`.

        Q = norm(X W_Q)   K = X W_K   V = norm(X W_V)          W_Q (dim, H·K)   W_K (dim, U·K)   W_V (dim, U·V)
        λᶜ = Σ_u softmax_m(K_u)ᵀ V_u                            content, (K, V), one for all positions
        λᵖ_n = Σ_u Σ_m R_u[m − n] V_um                          position, (K, V), one for each
        y_n^h = (λᶜ + λᵖ_n)ᵀ q_n^h                              V = dim_out / H; heads concatenated

    All heads share one lambda (multi-query). I. Bello, "LambdaNetworks", ICLR 2021.
    """

    shards: Whole = WHOLE

    def __init__(
        self,
        dims: int,
        dim: int,
        dim_out: int | None = None,
        *,
        heads: int = 4,
        dim_key: int = 16,
        dim_intra: int = 1,
        scope: Sequence[int] | None,
        max_size: Sequence[int] | None = None,
        causal: bool = False,
        content: bool = True,
        position: bool | str | nn.Module = True,
        key_norm: str = "softmax",
        query_norm: str = "none",
        norm: str = "batch",
        init: str = "scaled",
        algorithm: str = "auto",
    ) -> None:
        super().__init__()
        dim_out = dim if dim_out is None else dim_out
        sizes = {"dim": dim, "dim_out": dim_out, "heads": heads, "dim_key": dim_key, "dim_intra": dim_intra}
        for name, number in sizes.items():
            if number < 1:
                raise ValueError(f"{name}={number}: expected at least 1")
        if dim_out % heads:
            raise ValueError(
                f"heads={heads} does not divide dim_out={dim_out}: expected a divisor, so that each head has "
                "dim_out / heads values"
            )
        if not content and position is False:
            raise ValueError("content=False and position=False: a lambda layer needs at least one of them")
        if query_norm not in QUERY_NORMS:
            raise ValueError(f"query_norm={query_norm!r}: expected one of {', '.join(map(repr, QUERY_NORMS))}")
        if key_norm not in LF.KEY_NORMS:
            raise ValueError(f"key_norm={key_norm!r}: expected one of {', '.join(map(repr, LF.KEY_NORMS))}")
        if algorithm not in LF.ALGORITHMS:
            raise ValueError(f"algorithm={algorithm!r}: expected one of {', '.join(map(repr, LF.ALGORITHMS))}")
        self.dims, self.dim, self.dim_out, self.heads = dims, dim, dim_out, heads
        self.dim_key, self.dim_intra, self.dim_value = dim_key, dim_intra, dim_out // heads
        self.causal, self.key_norm, self.query_norm, self.algorithm = causal, key_norm, query_norm, algorithm

        # One product for all projections: queries (H·K), values (U·V) and, with content, keys (U·K)
        self.content = content
        self.parts = (heads * dim_key, dim_intra * self.dim_value, *([dim_intra * dim_key] if content else []))
        self.project = nn.Linear(dim, sum(self.parts), bias=False)
        self.norm_query = make_norm(norm, heads * dim_key)
        self.norm_value = make_norm(norm, dim_intra * self.dim_value)
        self.position: nn.Module | None
        if position is False:
            self.position = None
        elif isinstance(position, nn.Module):
            if isinstance(position, PositionEmbedding) and position.causal != causal:
                raise ValueError(
                    f"position is an embedding with causal={position.causal} but the layer has causal={causal}: "
                    "construct both alike"
                )
            self.position = position
        else:
            kind = "table" if position is True else position
            self.position = make_position(
                kind, dim_intra, dim_key, dims=dims, scope=scope, max_size=max_size, causal=causal, init=init
            )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the projections anew: W_K, W_V with std dim^-½, W_Q with std (dim_key · dim)^-½ (Bello 2021)."""
        query, *others = self.project.weight.split(self.parts)
        nn.init.normal_(query, std=(self.dim_key * self.dim) ** -0.5)
        for weight in others:
            nn.init.normal_(weight, std=self.dim**-0.5)

    def forward(
        self, x: Float[Tensor, "B *N dim"], mask: Bool[Tensor, "B *N"] | None = None
    ) -> Float[Tensor, "B *N dim_out"]:
        """Mix x over positions; `mask` is True at real positions, others add nothing to any output."""
        self._check(x, mask)
        return self._mixed(x, mask)

    def _mixed(self, x: Tensor, mask: Tensor | None, packing: LF.Packing | None = None) -> Tensor:
        query, key, value = self._projections(x, mask)
        output = self.shards.lambda_layer(
            query,
            key,
            value,
            self.position,
            mask=mask,
            packing=packing,
            causal=self.causal,
            key_norm=self.key_norm,
            algorithm=self.algorithm,
        )
        return rearrange(output, "b h ... v -> b ... (h v)")

    def _inputs(
        self, x: Tensor, mask: Tensor | None, size: Sequence[int]
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """Query (B, H, *N, K), key (B, U, *N, K), value (B, U, *N, V) and the embedding (U, K, *R) for a size."""
        query, key, value = self._projections(x, mask)
        embedding = None if self.position is None else self.position(size).to(query.dtype)
        return query, key, value, embedding

    def _projections(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
        """Query (B, H, *N, K), key (B, U, *N, K) and value (B, U, *N, V)."""
        # Projections and norms on channels-last tensors, (B, *N, ·)
        query, value, *keys = (part.contiguous() for part in self.project(x).split(self.parts, -1))
        query = rearrange(self.norm_query(query, mask), "b ... (h k) -> b h ... k", h=self.heads)
        value = rearrange(self.norm_value(value, mask), "b ... (u v) -> b u ... v", u=self.dim_intra)
        key = rearrange(keys[0], "b ... (u k) -> b u ... k", u=self.dim_intra) if keys else None
        if self.query_norm == "softmax":
            query = query.softmax(-1)
        # Under autocast norms may return another dtype than projections; queries decide.
        return query, None if key is None else key.to(query.dtype), value.to(query.dtype)

    def _check(self, x: Tensor, mask: Tensor | None) -> None:
        if not isinstance(x, Tensor) or not x.dtype.is_floating_point:
            found = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"x is {found}: expected a floating point tensor; use x.float()")
        if x.ndim != self.dims + 2 or x.shape[-1] != self.dim:
            raise ValueError(f"x has {self._found(x)}: expected {self._expected()} with dim={self.dim}")
        if mask is not None:
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
                found = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
                raise TypeError(f"mask is {found}: expected a bool tensor, True at real positions; use mask.bool()")
            if mask.shape != x.shape[:-1]:
                raise ValueError(f"mask has shape {tuple(mask.shape)}: expected {tuple(x.shape[:-1])}, (B, *N)")

    def resize(self, max_size: int | Sequence[int]) -> None:
        """Make a global position table cover inputs of another size: `RelativePositionTable.resize`."""
        if isinstance(self.position, PositionEmbedding):
            self.position.resize((max_size,) * self.dims if isinstance(max_size, int) else max_size)

    def _found(self, x: Tensor) -> str:
        return f"shape {tuple(x.shape)}"

    def _expected(self) -> str:
        return "(B, N, dim)"

    def extra_repr(self) -> str:
        """Sizes and options, for printing."""
        return (
            f"{self.dim} -> {self.dim_out}, heads={self.heads}, dim_key={self.dim_key}, dim_intra={self.dim_intra}, "
            f"key_norm={self.key_norm!r}{', causal=True' if self.causal else ''}"
        )


class LambdaLayer1d(LambdaLayer):
    """Lambda layer for sequences, (B, N, dim) -> (B, N, dim_out), of any length N. The equations: `LambdaLayer`.

    Args:
        dim: input channels.
        dim_out: output channels, a multiple of `heads`; None for `dim`.
        heads: queries that share one lambda.
        dim_key: query and key depth K.
        dim_intra: intra-depth U, the number of lambdas summed.
        scope: context positions of the position lambda, odd (causal: any), centred on the query; None for all of them.
        max_length: for scope None: largest N of a position table, of which shorter inputs use the middle; of the other
            embeddings, which take any N, what their scales cover (None: their default).
        causal: position n sees positions m ≤ n only.
        content: with the content lambda, which is global.
        position: embedding of the position lambda: "table" (or True), free at each offset; "multiscale", decaying, of
            few parameters; "exponential", sums of decaying exponentials, global only; False for no position lambda.
            A module replaces or shares one: it maps a size, (N,), to (U, K, R), see `PositionEmbedding`.
        key_norm: keys over the context positions: "softmax", "l2" or "none".
        query_norm: queries over their depth: "none" or "softmax".
        norm: of queries and values: "batch" (counts real positions only), "layer", "rms" or "none".
        init: of the position embedding: "scaled" or, of a table, "paper" (N(0, 1)).
        algorithm: how `functional.lambda_layer` computes; "auto" lets `functional.plan` choose.

    Raises:
        ValueError: an option that does not fit, naming it, its value and what would.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        *,
        heads: int = 4,
        dim_key: int = 16,
        dim_intra: int = 1,
        scope: int | None = 23,
        max_length: int | None = None,
        causal: bool = False,
        content: bool = True,
        position: bool | str | nn.Module = True,
        key_norm: str = "softmax",
        query_norm: str = "none",
        norm: str = "batch",
        init: str = "scaled",
        algorithm: str = "auto",
    ) -> None:
        super().__init__(
            1,
            dim,
            dim_out,
            heads=heads,
            dim_key=dim_key,
            dim_intra=dim_intra,
            scope=None if scope is None else (scope,),
            max_size=None if max_length is None else (max_length,),
            causal=causal,
            content=content,
            position=position,
            key_norm=key_norm,
            query_norm=query_norm,
            norm=norm,
            init=init,
            algorithm=algorithm,
        )

    def forward(
        self,
        x: Float[Tensor, "B N dim"],
        mask: Bool[Tensor, "B N"] | None = None,
        documents: Int[Tensor, "B N"] | LF.Packing | None = None,
    ) -> Float[Tensor, "B N out"]:
        """Mix a batch of sequences.

        Args:
            x: (B, N, dim).
            mask: True at real positions.
            documents: of which document each position is, by ids or as `functional.Packing`: several documents in one
                row, each as if it stood alone. Batch norms average over all of them, as over the rows of a batch.

        Raises:
            TypeError: x is not floating point, mask not bool, or documents not integers.
            ValueError: a shape that does not fit, or N (the longest document) larger than a global position table.
        """
        if documents is None:
            return super().forward(x, mask)
        self._check(x, mask)
        packing = self.shards.packing(documents, mask)
        packing.check_shape(x.shape[:2], x.device)
        return self._mixed(x, packing.mask, packing)

    def init_state(self, batch_size: int) -> LF.StreamState:
        """The state of a causal layer before the first position, for `step`.

        Raises:
            ValueError: the layer is not causal, or batch_size below 1.
        """
        self._check_streams()
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected at least 1")
        nothing = self.project.weight.new_empty(batch_size, self.dim_intra, 0, self.dim_key + self.dim_value)
        key, value = nothing.split((self.dim_key, self.dim_value), -1)
        embedding = self.position.streaming(1) if isinstance(self.position, PositionEmbedding) else None
        return LF.StreamState.empty(key if self.content else None, value, embedding)

    def step(
        self, x: Float[Tensor, "B dim"] | Float[Tensor, "B T dim"], state: LF.StreamState
    ) -> tuple[Tensor, LF.StreamState]:
        """The output for the next position, (B, dim), or the next T positions, (B, T, dim), and the state after them.

        Equal to `forward` over the whole sequence, in evaluation mode. The state is of constant size, whatever the
        length, for local scope (the last scope − 1 values), for position="exponential" (S · v running sums per lambda)
        and for the content lambda (k · v). That of a global table or multi-scale embedding is not: it grows by v values
        a position, up to max_length, and that of a module without `reach` without end. A step of one position takes
        time in proportion to what the position part keeps.

        Raises:
            ValueError: the layer is not causal or is training with batch norm, a shape that does not fit, or more
                positions than a global position table covers.
        """
        self._check_streams()
        single = isinstance(x, Tensor) and x.ndim == 2
        x = x.unsqueeze(1) if single else x
        self._check(x, None)
        if state.values.shape[0] != x.shape[0]:
            raise ValueError(
                f"x has batch {x.shape[0]} but the state has {state.values.shape[0]}: go on with one batch"
            )
        length = state.seen + x.shape[1]
        embedding, reach = self._streaming(length)
        query, key, value = self._projections(x, None)
        if isinstance(embedding, Tensor):
            embedding = embedding.to(query.dtype)
        output, state = LF.stream(query, key, value, embedding, state, key_norm=self.key_norm, reach=reach)
        output = rearrange(output, "b h n v -> b n (h v)")
        return (output[:, 0] if single else output), state

    def _streaming(self, length: int) -> tuple[Tensor | LF.Exponentials | None, int]:
        """The embedding after `length` positions, and how many of them later queries may look back."""
        if self.position is None:
            return None, 0
        if not isinstance(self.position, PositionEmbedding):
            return self.position((length,)), length  # who knows how far it reaches
        reach = self.position.reach
        return self.position.streaming(length), length if reach is None else reach

    def _check_streams(self) -> None:
        if not self.causal:
            raise ValueError("causal=False: only a causal layer streams; construct it with causal=True")
        if self.training and any(isinstance(norm, MaskedBatchNorm) for norm in (self.norm_query, self.norm_value)):
            raise ValueError("norm='batch' in training mode needs the whole batch: call eval(), or use norm='rms'")


class LambdaLayer2d(LambdaLayer):
    """Lambda layer for images, (B, dim, H, W) -> (B, dim_out, H, W), of any H and W. The equations: `LambdaLayer`.

    Inputs in torch's channels_last memory format are used without a copy, and outputs come in it.

    Args:
        dim: input channels.
        dim_out: output channels, a multiple of `heads`; None for `dim`.
        heads: queries that share one lambda.
        dim_key: query and key depth K.
        dim_intra: intra-depth U, the number of lambdas summed.
        scope: rows and columns of context of the position lambda, odd, an int or a pair; None for all of them.
        max_size: for scope None: largest (H, W) of a position table, of which smaller inputs use the middle; of the
            other embeddings, which take any size, what their scales cover (None: their default).
        content: with the content lambda, which is global.
        position: embedding of the position lambda: "table" (or True), free at each offset; "multiscale", decaying, of
            few parameters; "exponential", sums of decaying exponentials, global only; False for no position lambda.
            A module replaces or shares one: it maps a size (H, W) to (U, K, RY, RX), see `PositionEmbedding`.
        key_norm: keys over the context positions: "softmax", "l2" or "none".
        query_norm: queries over their depth: "none" or "softmax".
        norm: of queries and values: "batch" (counts real positions only), "layer", "rms" or "none".
        init: of the position embedding: "scaled" or, of a table, "paper" (N(0, 1)).
        algorithm: how `functional.lambda_layer` computes; "auto" lets `functional.plan` choose.

    Raises:
        ValueError: an option that does not fit, naming it, its value and what would.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        *,
        heads: int = 4,
        dim_key: int = 16,
        dim_intra: int = 1,
        scope: int | tuple[int, int] | None = 23,
        max_size: tuple[int, int] | None = None,
        content: bool = True,
        position: bool | str | nn.Module = True,
        key_norm: str = "softmax",
        query_norm: str = "none",
        norm: str = "batch",
        init: str = "scaled",
        algorithm: str = "auto",
    ) -> None:
        super().__init__(
            2,
            dim,
            dim_out,
            heads=heads,
            dim_key=dim_key,
            dim_intra=dim_intra,
            scope=(scope, scope) if isinstance(scope, int) else scope,
            max_size=max_size,
            content=content,
            position=position,
            key_norm=key_norm,
            query_norm=query_norm,
            norm=norm,
            init=init,
            algorithm=algorithm,
        )

    def forward(
        self, x: Float[Tensor, "B dim H W"], mask: Bool[Tensor, "B H W"] | None = None
    ) -> Float[Tensor, "B out H W"]:
        """Mix a batch of images; `mask` (B, H, W) is True at real positions.

        Raises:
            TypeError: x is not floating point, or mask not bool.
            ValueError: a shape that does not fit, or a size larger than a global position table.
        """
        if isinstance(x, Tensor) and x.ndim == 4:
            return super().forward(x.movedim(1, -1), mask).movedim(-1, 1)
        return super().forward(x, mask)

    def _found(self, x: Tensor) -> str:
        return f"shape {tuple(x.movedim(-1, 1).shape) if x.ndim == 4 else tuple(x.shape)}"

    def _expected(self) -> str:
        return "(B, dim, H, W)"

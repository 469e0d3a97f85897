"""The lambda layer as a module: projections, norms and position embedding around `functional.lambda_layer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lambda_seq import functional as LF
from lambda_seq.functional.operators import cast
from lambda_seq.layers import checks
from lambda_seq.layers.norm import default_norm, make_norm, warn_of_batch
from lambda_seq.layers.positions.embedding import PositionEmbedding
from lambda_seq.layers.positions.registry import make_position
from lambda_seq.layers.sequence_context import UNSHARDED, SequenceContext
from lambda_seq.layers.synced import NormOwner
from lambda_seq.layers.weights import draw, draw_bias, draw_linear, reset_by


class LambdaLayer(NormOwner):
    """Lambda layer over one or two dimensions; use its faces, `LambdaLayer1d` and `LambdaLayer2d`.

        Q = norm(X W_Q)   K = X W_K   V = norm(X W_V)          W_Q (dim, H·K)   W_K (dim, U·K)   W_V (dim, U·V)
        λᶜ = Σ_u softmax_m(K_u)ᵀ V_u                            content, (K, V), one for all positions
        λᵖ_n = Σ_u Σ_m R_u[m − n] V_um                          position, (K, V), one for each
        y_n^h = (λᶜ + λᵖ_n)ᵀ q_n^h                              V = dim_out / H; heads concatenated

    All heads share one lambda (multi-query). I. Bello, "LambdaNetworks", ICLR 2021. With `query_bias`, b^h is added to
    q_n^h, so that y_n^h has a static convolution of the values with the kernel Σ_k b_k^h R_uk, whatever the input.
    """

    sequence: SequenceContext = UNSHARDED
    no_weight_decay = ("position",)

    def __init__(self, dims: int, dim: int, dim_out: int | None, options: Mapping[str, Any]) -> None:
        """`options` are all those of a face, as `options.complete` gives them."""
        super().__init__()
        dim_out = dim if dim_out is None else dim_out
        heads, dim_key, dim_intra = options["heads"], options["dim_key"], options["dim_intra"]
        content, position, norm = options["content"], options["position"], options["norm"]
        causal = options.get("causal", False)
        checks.at_least_one(dim=dim, dim_out=dim_out)
        if dim_out % heads:
            raise ValueError(
                f"heads={heads} does not divide dim_out={dim_out}: expected a divisor, so that each head has "
                "dim_out / heads values"
            )
        if not content and position is False:
            raise ValueError("content=False and position=False: a lambda layer needs at least one of them")
        warn_of_batch(norm, causal)
        self.dims, self.dim, self.dim_out, self.heads = dims, dim, dim_out, heads
        self.dim_key, self.dim_intra, self.dim_value = dim_key, dim_intra, dim_out // heads
        self.causal, self.algorithm = causal, options["algorithm"]
        self.key_norm, self.query_norm = options["key_norm"], options["query_norm"]

        # One product for all projections: queries (H·K), values (U·V) and, with content, keys (U·K)
        self.content = content
        self.parts = (heads * dim_key, dim_intra * self.dim_value, *([dim_intra * dim_key] if content else []))
        self.project = nn.Linear(dim, sum(self.parts), bias=False)
        self.default_norms = ("norm_query", "norm_value") if norm is None and causal else ()
        norm = default_norm(norm, causal)
        self.norm_query = make_norm(norm, heads * dim_key)
        self.norm_value = make_norm(norm, dim_intra * self.dim_value)
        self.position = self._make_position(position, options)
        self.position_dropout = options["position_dropout"]
        if self.position_dropout and self.position is None:
            raise ValueError(
                f"position_dropout={self.position_dropout} with position=False: there are no offsets to drop; leave it "
                "out"
            )
        # W_K, W_V with std dim^-½, W_Q with std (dim_key · dim)^-½ (Bello 2021)
        stds = ((dim_key * dim) ** -0.5, *[dim**-0.5] * (len(self.parts) - 1))
        reset_by(self.project, partial(draw_linear, stds=stds, rows=self.parts))
        self._make_bias(options["query_bias"], norm)

    def _make_bias(self, spread: float | None, norm: str) -> None:
        """The bias of the queries: that of their norm where it has one, else a parameter."""
        self.query_bias: nn.Parameter | None = None
        if spread is None:
            return
        # Norms give queries a standard deviation of 1; without, it is that of W_Q
        self.bias_std = spread if norm != "none" else spread * self.dim_key**-0.5
        if getattr(self.norm_query, "bias", None) is not None:
            reset_by(self.norm_query, partial(draw_bias, std=self.bias_std))
        else:
            self.query_bias = nn.Parameter(torch.empty(self.parts[0]))
            draw(self.query_bias, self.bias_std)

    def _make_position(self, position: bool | str | nn.Module, options: Mapping[str, Any]) -> nn.Module | None:
        """The position embedding that the options ask for, or None for no position lambda."""
        if isinstance(position, PositionEmbedding) and position.causal != self.causal:
            raise ValueError(
                f"position is an embedding with causal={position.causal} but the layer has causal={self.causal}: "
                "construct both alike"
            )
        name, any_size = ("max_length", "any length") if self.dims == 1 else ("max_size", "any size")
        scope, largest = options["scope"], options[name]
        made = not isinstance(position, nn.Module) and position is not False
        if made and largest is not None and scope is not None:
            raise ValueError(
                f"{name}={largest} with scope={scope}: a local scope takes {any_size}; leave {name} out, or give "
                "scope=None for a global position lambda"
            )
        scope = None if scope is None else checks.per_dimension("scope", scope, self.dims)
        largest = None if largest is None else checks.per_dimension(name, largest, self.dims)
        if isinstance(position, nn.Module):
            return position
        if position is False:
            return None
        return make_position(
            "table" if position is True else position,
            self.dim_intra,
            self.dim_key,
            dims=self.dims,
            scope=scope,
            max_size=largest,
            causal=self.causal,
            init=options["init"],
        )

    def reset_parameters(self) -> None:
        """Draw the projections, and a bias of the queries, anew."""
        self.project.reset_parameters()
        if self.query_bias is not None:
            draw(self.query_bias, self.bias_std)

    def forward(
        self,
        x: Float[Tensor, "B N dim"] | Float[Tensor, "B dim H W"],
        mask: Bool[Tensor, "B *N"] | None = None,
        documents: Int[Tensor, "B N"] | LF.Packing | None = None,
    ) -> Float[Tensor, "B N out"] | Float[Tensor, "B out H W"]:
        """Mix a batch over positions.

        Args:
            x: sequences (B, N, dim), or images (B, dim, H, W).
            mask: (B, N) or (B, H, W), True at real positions; others add nothing to any output.
            documents: of sequences only: of which document each position is, by ids or as `functional.Packing`: several
                documents in one row, each as if it stood alone. Batch norms average over all of them, as over the rows
                of a batch.

        Raises:
            TypeError: x is not floating point, mask not bool, or documents not integers.
            ValueError: a shape that does not fit, a size (N of the longest document) larger than a global position
                table, or documents of images.
        """
        self._check(x, mask)
        x = x if self.dims == 1 else x.movedim(1, -1)  # (B, *N, dim)
        packing = None
        if documents is not None:
            packing = self._packing(x, mask, documents)
            mask = packing.mask
        if mask is not None:  # what stands at padding may be NaN, which would stay one in gradients times zero
            x = x.masked_fill(~mask[..., None], 0)
        query, key, value = self._projections(x, mask)
        output = self.sequence.lambda_layer(
            query,
            key,
            value,
            self._offsets if self._drops() else self.position,
            mask=mask,
            packing=packing,
            causal=self.causal,
            key_norm=self.key_norm,
            algorithm=self.algorithm,
        )  # (B, heads, *N, V)
        output = rearrange(output, "b h ... v -> b ... (h v)")  # (B, *N, out)
        return output if self.dims == 1 else output.movedim(-1, 1)

    def _drops(self) -> bool:
        return self.training and self.position_dropout > 0

    def _offsets(self, size: Sequence[int]) -> Float[Tensor, "U K *R"]:
        """The embedding for a size, in training without some of its offsets, alike for all that share a sequence."""
        assert self.position is not None
        embedding: Tensor = self.position(size)
        if not self._drops():
            return embedding
        kept = embedding.new_empty(embedding.shape[2:]).bernoulli_(1 - self.position_dropout)  # (*R,)
        return embedding * (self.sequence.gather(kept)[0] / (1 - self.position_dropout))

    def _packing(self, x: Tensor, mask: Tensor | None, documents: Tensor | LF.Packing) -> LF.Packing:
        if self.dims != 1:
            raise ValueError("documents: only rows of sequences hold several, images do not; leave it out")
        packing = self.sequence.pack(documents, mask)
        packing.check_shape(x.shape[:2], x.device)
        return packing

    def _inputs(
        self, x: Tensor, mask: Tensor | None, size: Sequence[int]
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """Query (B, H, *N, K), key (B, U, *N, K), value (B, U, *N, V) and the embedding (U, K, *R) for a size."""
        query, key, value = self._projections(x, mask)
        embedding = None if self.position is None else self._offsets(size).to(query.dtype)
        return query, key, value, embedding

    def _projections(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
        """Query (B, H, *N, K), key (B, U, *N, K) and value (B, U, *N, V)."""
        # Projections and norms on channels-last tensors, (B, *N, ·)
        query, value, *keys = (part.contiguous() for part in self.project(x).split(self.parts, -1))
        query = self.norm_query(query, mask)
        if self.query_bias is not None:
            query = query + self.query_bias.to(query.dtype)
        query = _apart(query, self.heads, self.dim_key)
        value = _apart(self.norm_value(value, mask), self.dim_intra, self.dim_value)
        key = _apart(keys[0], self.dim_intra, self.dim_key) if keys else None
        if self.query_norm == "softmax":
            query = query.softmax(-1)
        # Under autocast norms may return another dtype than projections; queries decide.
        return query, None if key is None else cast(key, query.dtype), cast(value, query.dtype)

    def _check(self, x: Tensor, mask: Tensor | None) -> None:
        checks.floating("x", x)
        expected, axis = ("(B, N, dim)", -1) if self.dims == 1 else ("(B, dim, H, W)", 1)
        ranks = (self.dims + 2,)
        checks.shaped("x", x, f"{expected} with dim={self.dim}", ranks=ranks, channels=self.dim, axis=axis)
        checks.masked(mask, [x.shape[0], *(x.shape[1:-1] if axis == -1 else x.shape[2:])])

    def resize(self, max_size: int | Sequence[int]) -> None:
        """Make a global position table cover inputs of another size: `RelativePositionTable.resize`."""
        if isinstance(self.position, PositionEmbedding):
            if not isinstance(max_size, Sequence):
                max_size = checks.per_dimension("max_size", max_size, self.dims)
            self.position.resize(max_size)

    def extra_repr(self) -> str:
        """Sizes and options, for printing."""
        return (
            f"{self.dim} -> {self.dim_out}, heads={self.heads}, dim_key={self.dim_key}, dim_intra={self.dim_intra}, "
            f"key_norm={self.key_norm!r}{', causal=True' if self.causal else ''}"
        )


def _apart(x: Float[Tensor, "B *N CD"], channels: int, depth: int) -> Float[Tensor, "B C *N D"]:
    """A view whose channels are apart."""
    return x.view(*x.shape[:-1], channels, depth).movedim(-2, 1)

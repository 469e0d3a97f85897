"""Lambda layers for sequences and for images: the two faces of `LambdaLayer`."""

from __future__ import annotations

from typing import Unpack

from jaxtyping import Float
from torch import Tensor

from lambda_seq import functional as LF
from lambda_seq.functional import streaming
from lambda_seq.functional.operators import cast
from lambda_seq.layers import checks
from lambda_seq.layers.lambda_layer import LambdaLayer
from lambda_seq.layers.norm import MaskedBatchNorm
from lambda_seq.layers.options import ImageLayerOptions, SequenceOptions, complete, with_options
from lambda_seq.layers.positions.embedding import PositionEmbedding
from lambda_seq.layers.weights import gathers, place


@with_options
class LambdaLayer1d(LambdaLayer):
    """Lambda layer for sequences, (B, N, dim) -> (B, N, dim_out), of any length N. The equations: `LambdaLayer`.

    Args:
        dim: input channels.
        dim_out: output channels, a multiple of `heads`; None for `dim`.
        **options: of `layers.options.SequenceOptions`.
    """

    def __init__(self, dim: int, dim_out: int | None = None, **options: Unpack[SequenceOptions]) -> None:
        super().__init__(1, dim, dim_out, complete(SequenceOptions, options, self))

    def init_state(self, batch_size: int) -> LF.StreamState:
        """The state of a causal layer before the first position, for `step`.

        Raises:
            ValueError: the layer is not causal, or batch_size below 1.
        """
        self._check_streams()
        checks.at_least_one(batch_size=batch_size)
        nothing = place(self).new_empty(batch_size, self.dim_intra, 0, self.dim_key + self.dim_value)
        key, value = nothing.split((self.dim_key, self.dim_value), -1)
        embedding = self.position.blank() if isinstance(self.position, PositionEmbedding) else None
        return LF.StreamState.empty(key if self.content else None, value, embedding)

    @gathers
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
            TypeError: x is not floating point, or the state none of a layer.
            ValueError: the layer is not causal or is training with batch norm, a shape that does not fit, a state of
                another batch or layer, or more positions than a global position table covers.
        """
        self._check_streams()
        single = isinstance(x, Tensor) and x.ndim == 2
        x = x.unsqueeze(1) if single else x
        self._check(x, None)
        self._check_state(x, state)
        length = state.seen + x.shape[1]
        embedding, reach = self._streaming(length)
        query, key, value = self._projections(x, None)
        if isinstance(embedding, Tensor):
            embedding = cast(embedding, query.dtype)
        plain = not isinstance(embedding, Tensor) or embedding.shape[:-1] == (self.dim_intra, self.dim_key)
        streaming.check_state(state, key, value, embedding)
        go_on = streaming.advance if plain else LF.stream  # which says what is wrong with a module's embedding
        output, state = go_on(query, key, value, embedding, state, key_norm=self.key_norm, reach=reach)
        output = output.transpose(1, 2).flatten(2)  # (B, T, H·V)
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

    def _check_state(self, x: Tensor, state: LF.StreamState) -> None:
        checks.stream_state(state, LF.StreamState)
        batch, intra, _, depth = state.values.shape
        if batch != x.shape[0]:
            raise ValueError(
                f"x has batch {x.shape[0]} but the state has {batch}: go on with one batch, or init_state({x.shape[0]})"
            )
        sums = state.content.sums.shape[1:] if state.content is not None else None
        expected = (self.dim_intra, self.dim_key, self.dim_value) if self.content else None
        if (intra, depth) != (self.dim_intra, self.dim_value) or (sums and tuple(sums)) != expected:
            raise ValueError(
                f"state is of another layer, with values (B, U, L, V) of shape {tuple(state.values.shape)} and content "
                f"sums (U, K, V) of shape {sums and tuple(sums)}: expected U = {self.dim_intra}, V = {self.dim_value} "
                f"and {expected}; take the state of this layer's init_state"
            )


@with_options
class LambdaLayer2d(LambdaLayer):
    """Lambda layer for images, (B, dim, H, W) -> (B, dim_out, H, W), of any H and W. The equations: `LambdaLayer`.

    Inputs in torch's channels_last memory format are used without a copy, and outputs come in it.

    Args:
        dim: input channels.
        dim_out: output channels, a multiple of `heads`; None for `dim`.
        **options: of `layers.options.ImageLayerOptions`.
    """

    def __init__(self, dim: int, dim_out: int | None = None, **options: Unpack[ImageLayerOptions]) -> None:
        super().__init__(2, dim, dim_out, complete(ImageLayerOptions, options, self))

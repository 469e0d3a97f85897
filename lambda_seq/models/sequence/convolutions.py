"""What the stems of sequence networks share: strided convolutions, and how positions become frames."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lambda_seq import functional as LF
from lambda_seq.layers import UNSHARDED, SequenceContext, checks, make_norm
from lambda_seq.layers.norm import warn_of_batch
from lambda_seq.layers.synced import NormOwner
from lambda_seq.layers.weights import gathers, place
from lambda_seq.models.sequence.streaming import ConvolutionState, NgramState, check_batch, check_norms

Stemmed = tuple[Float[Tensor, "B M dim"], Bool[Tensor, "B M"] | None]
StemState = tuple[NgramState | ConvolutionState, ...]


class StridedConvolution(NormOwner):
    """gelu(norm(convolution(x))), (B, N, channels) -> (B, ⌈N / stride⌉, out); masked positions count as zeros.

    Output j is centred on input stride · j (causal: ends there), and is real exactly if that input is.
    """

    sequence: SequenceContext = UNSHARDED

    def __init__(self, channels: int, out: int, stride: int, norm: str, causal: bool) -> None:
        super().__init__()
        taps = 4 * stride + 1
        self.stride, self.reach = stride, taps - 1
        self.padding = (taps - 1, 0) if causal else (taps // 2, taps // 2)
        warn_of_batch(norm, causal)
        self.norm = make_norm(norm, out)
        self.convolution = nn.Conv1d(channels, out, taps, stride, bias=norm not in ("batch", "layer"))

    def forward(self, x: Float[Tensor, "B N C"], mask: Bool[Tensor, "B N"] | None = None) -> Stemmed:
        """Convolve; anything may stand at masked positions."""
        x = self.sequence.extend(zero_masked(x, mask), *self.padding, self.stride)  # (B, taps − 1 + N, C)
        x = self.convolution(x.mT).mT  # (B, ⌈N / stride⌉, out)
        if mask is not None and torch.compiler.is_exporting():  # so that nothing has to prove that both are as long
            mask = mask[:, self.stride * torch.arange(x.shape[1], device=x.device)]
        elif mask is not None:
            mask = mask[:, :: self.stride]  # (B, ⌈N / stride⌉)
        return F.gelu(self.norm(x, mask)), mask

    def init_state(self, batch_size: int) -> ConvolutionState:
        """The state of a causal convolution before its first input, for `step`."""
        return ConvolutionState(0, place(self).new_zeros(batch_size, self.reach, self.convolution.in_channels))

    @gathers
    def step(self, x: Float[Tensor, "B T C"], state: ConvolutionState) -> tuple[Tensor, ConvolutionState]:
        """The outputs that the next T inputs complete, (B, 0 or more, out), and the state after them; T may be 0."""
        check_norms(self.norm)
        check_batch(x.shape[0], state.kept.shape[0])
        if state.kept.shape[1:] != (self.reach, x.shape[2]):
            raise ValueError(
                f"state keeps inputs of shape {tuple(state.kept.shape)} of a convolution: expected (B, {self.reach}, "
                f"{x.shape[2]}); take the state of this model's init_state"
            )
        skipped = -state.seen % self.stride  # inputs until the one at which the next output ends
        seen = state.seen + x.shape[1]
        context = torch.cat([state.kept.to(x.dtype), x], 1)  # (B, taps − 1 + T, C)
        # A copy, so that the state does not keep the whole piece in memory
        state = ConvolutionState(seen, context[:, x.shape[1] :].clone())
        if skipped >= x.shape[1]:
            return x.new_empty(x.shape[0], 0, self.convolution.out_channels), state
        x = self.convolution(context[:, skipped:].mT).mT  # (B, ⌈(T − skipped) / stride⌉, out)
        return F.gelu(self.norm(x)), state


class Stem(nn.Module):
    """What stems share: a vector for each position of x, then strided convolutions, M = ⌈N / Π strides⌉ frames.

    A frame is real exactly if the position at its centre (causal: at its end) is, and convolutions see zeros at
    positions and frames that are not, as they do beyond the end. So padding at the end changes nothing: L real
    positions give ⌈L / Π strides⌉ real frames, those of the L positions alone. Padding in front shifts the frames'
    centres; it changes nothing if it is a multiple of Π strides.

    Args:
        channels: of the vectors that are convolved.
        dim: channels of the frames; each layer but the last has half.
        strides: stride s of each layer; its kernel has 4·s + 1 taps. None at all: frames are positions.
        norm: "layer", "batch" (counts real frames only), "rms" or "none".
        causal: frame j sees no position after stride · j.
    """

    def __init__(self, channels: int, dim: int, strides: Sequence[int], norm: str, causal: bool) -> None:
        super().__init__()
        if any(stride < 1 for stride in strides):
            raise ValueError(f"strides={tuple(strides)}: expected each at least 1; use (1,) for no stride")
        self.stride, self.causal = math.prod(strides), causal
        widths = [channels, *[max(dim // 2, 1)] * (len(strides) - 1), dim]
        self.layers = nn.ModuleList(
            StridedConvolution(channels, out, stride, norm, causal)
            for channels, out, stride in zip(widths, widths[1:], strides, strict=False)
        )

    def embed(self, x: Tensor, mask: Tensor | None) -> tuple[Float[Tensor, "B N C"], Tensor | None]:
        """Check x and mask, and give each position a vector."""
        raise NotImplementedError(f"{type(self).__name__} has no embed(x, mask)")

    def forward(self, x: Tensor, mask: Bool[Tensor, "B N"] | None = None, packing: LF.Packing | None = None) -> Stemmed:
        """Frames of x, and their mask; anything may stand at masked positions.

        A packing says which documents x has, of a stem without convolutions; it concerns those that look at neighbours.
        """
        return self.convolve(*self.embed(x, mask))

    def convolve(self, x: Float[Tensor, "B N C"], mask: Tensor | None) -> Stemmed:
        """Frames of the positions' vectors, and their mask."""
        for layer in self.layers:
            x, mask = layer(x, mask)
        return x, mask  # (B, M, dim), (B, M)

    def init_state(self, batch_size: int) -> StemState:
        """The state of a causal stem before the first position, for `step`.

        Raises:
            ValueError: the stem is not causal.
        """
        if self.layers and not self.causal:
            raise ValueError("causal=False: only a causal stem streams; construct it with causal=True")
        return tuple(layer.init_state(batch_size) for layer in self._convolutions())

    @gathers
    def step(self, x: Tensor, state: StemState) -> tuple[Float[Tensor, "B M dim"], StemState]:
        """The frames that the next T ≥ 1 positions complete, 0 or more of them, and the state after them.

        x is a piece of what `forward` takes; pieces of any lengths give the frames of the whole, in evaluation mode.
        """
        return self.step_convolutions(self.embed(x, None)[0], state)

    def step_convolutions(
        self, x: Float[Tensor, "B T C"], state: StemState
    ) -> tuple[Float[Tensor, "B M dim"], StemState]:
        """As `step`, of the positions' vectors and the states of the convolutions."""
        if len(state) != len(self.layers):
            raise ValueError(
                f"state has {len(state)} strided convolutions: expected {len(self.layers)}, as this model's init_state "
                "gives"
            )
        states = []
        for layer, before in zip(self._convolutions(), cast(Iterable[ConvolutionState], state), strict=True):
            x, after = layer.step(x, before)
            states.append(after)
        return x, tuple(states)

    def _convolutions(self) -> Iterable[StridedConvolution]:
        return cast(Iterable[StridedConvolution], self.layers)


def zero_masked(x: Float[Tensor, "B N C"], mask: Bool[Tensor, "B N"] | None) -> Float[Tensor, "B N C"]:
    """x with zeros at masked positions."""
    return x if mask is None else x.masked_fill(~mask[..., None], 0)


def check_ids(x: Int[Tensor, "B N"], mask: Bool[Tensor, "B N"] | None) -> None:
    """Raise TypeError or ValueError unless x is (B, N) token ids, and the mask, if any, of their shape."""
    checks.token_ids("x", x)
    if x.ndim != 2 or x.shape[1] == 0:
        hint = "; a batch of one is x[None]" if x.ndim == 1 and x.numel() else ""
        raise ValueError(f"x has shape {tuple(x.shape)}: expected (B, N), N at least 1{hint}")
    checks.masked(mask, x.shape, "(B, N) as x")

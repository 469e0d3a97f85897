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


class FrameLayer(NormOwner):
    """A frame for every `stride` inputs, of those around it, (B, N, channels) -> (B, ⌈N / stride⌉, out).

    Frame j is centred on input stride · j (causal: ends there), sees `taps` = 4 · stride + 1 of them, with zeros at
    masked ones and beyond the ends, and is real exactly if that input is.

    Args:
        channels: of an input.
        out: channels of a frame.
        stride: from frame to frame, in inputs.
        norm: of frames: "layer", "batch" (counts real frames only), "rms" or "none".
        causal: frame j sees no input after stride · j.
    """

    sequence: SequenceContext = UNSHARDED

    def __init__(self, channels: int, out: int, stride: int, norm: str, causal: bool) -> None:
        super().__init__()
        self.channels, self.out, self.stride, self.taps = channels, out, stride, 4 * stride + 1
        self.padding = (self.taps - 1, 0) if causal else (self.taps // 2, self.taps // 2)
        warn_of_batch(norm, causal)
        self.norm = make_norm(norm, out)

    def windows(self, x: Float[Tensor, "B N C"]) -> Float[Tensor, "B M out"]:
        """What is made of every `taps` inputs, from the first on, before the norm; M = ⌊(N − taps) / stride⌋ + 1."""
        raise NotImplementedError(f"{type(self).__name__} has no windows(x)")

    def ended(self, x: Float[Tensor, "B M out"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B M out"]:
        """What is made of those."""
        return self.norm(x, mask)

    def forward(self, x: Float[Tensor, "B N C"], mask: Bool[Tensor, "B N"] | None = None) -> Stemmed:
        """The frames, and which are real; anything may stand at masked positions."""
        x = self.sequence.extend(zero_masked(x, mask), *self.padding, self.stride)  # (B, taps − 1 + N, C)
        x = self.windows(x)  # (B, ⌈N / stride⌉, out)
        if mask is not None and torch.compiler.is_exporting():  # so that nothing has to prove that both are as long
            mask = mask[:, self.stride * torch.arange(x.shape[1], device=x.device)]
        elif mask is not None:
            mask = mask[:, :: self.stride]  # (B, ⌈N / stride⌉)
        return self.ended(x, mask), mask

    def init_state(self, batch_size: int) -> ConvolutionState:
        """The state of a causal layer before its first input, for `step`."""
        return ConvolutionState(0, place(self).new_zeros(batch_size, self.taps - 1, self.channels))

    @gathers
    def step(self, x: Float[Tensor, "B T C"], state: ConvolutionState) -> tuple[Tensor, ConvolutionState]:
        """The frames that the next T inputs complete, (B, 0 or more, out), and the state after them; T may be 0."""
        check_norms(self.norm)
        check_batch(x.shape[0], state.kept.shape[0])
        if state.kept.shape[1:] != (self.taps - 1, x.shape[2]):
            raise ValueError(
                f"state keeps inputs of shape {tuple(state.kept.shape)} of a convolution: expected (B, "
                f"{self.taps - 1}, {x.shape[2]}); take the state of this model's init_state"
            )
        skipped = -state.seen % self.stride  # inputs until the one at which the next frame ends
        seen = state.seen + x.shape[1]
        context = torch.cat([state.kept.to(x.dtype), x], 1)  # (B, taps − 1 + T, C)
        # A copy, so that the state does not keep the whole piece in memory
        state = ConvolutionState(seen, context[:, x.shape[1] :].clone())
        if skipped >= x.shape[1]:
            return x.new_empty(x.shape[0], 0, self.out), state
        return self.ended(self.windows(context[:, skipped:])), state  # (B, ⌈(T − skipped) / stride⌉, out)


class StridedConvolution(FrameLayer):
    """gelu(norm(convolution(x))); arguments as for `FrameLayer`."""

    def __init__(self, channels: int, out: int, stride: int, norm: str, causal: bool) -> None:
        super().__init__(channels, out, stride, norm, causal)
        self.convolution = nn.Conv1d(channels, out, self.taps, stride, bias=norm not in ("batch", "layer"))

    def windows(self, x: Float[Tensor, "B N C"]) -> Float[Tensor, "B M out"]:
        """The convolution."""
        return self.convolution(x.mT).mT

    def ended(self, x: Float[Tensor, "B M out"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B M out"]:
        """Norm and activation."""
        return F.gelu(self.norm(x, mask))


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
        self.layers = nn.ModuleList(self.make_layers(channels, dim, strides, norm, causal))

    def make_layers(
        self, channels: int, dim: int, strides: Sequence[int], norm: str, causal: bool
    ) -> Iterable[FrameLayer]:
        """What makes frames of the vectors, layer by layer."""
        widths = [channels, *[max(dim // 2, 1)] * (len(strides) - 1), dim]
        for channels, out, stride in zip(widths, widths[1:], strides, strict=False):
            yield StridedConvolution(channels, out, stride, norm, causal)

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
        return tuple(layer.init_state(batch_size) for layer in self._layers())

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
        for layer, before in zip(self._layers(), cast(Iterable[ConvolutionState], state), strict=True):
            x, after = layer.step(x, before)
            states.append(after)
        return x, tuple(states)

    def _layers(self) -> Iterable[FrameLayer]:
        return cast(Iterable[FrameLayer], self.layers)


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

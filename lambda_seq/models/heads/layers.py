"""What heads are made of: what they know of their network, layers without weights, and numbers beside logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Inputs:
    """What a network says of itself to its head.

    Attributes:
        dim: channels of its features.
        kind: what it takes, "tokens", "features", "waveform" or "image".
        values: token ids, or channels, of a position of its input.
        frame: positions of its input per feature vector.
        embedding: of token ids in `dim` channels, which a head may share; None where there is none.
    """

    dim: int
    kind: str
    values: int = 1
    frame: int = 1
    embedding: nn.Embedding | None = None


class TiedLinear(nn.Module):
    """x · Eᵀ / √dim, of an embedding E (ids, dim) whose entries have variance 1: logits of ids, without weights."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self._embedding = (embedding,)  # no module of this one's: its weight has one name, and one owner

    def forward(self, x: Float[Tensor, "*B dim"]) -> Float[Tensor, "*B ids"]:
        """Logits of each id."""
        return F.linear(x * x.shape[-1] ** -0.5, self._embedding[0].weight)


class Normalize(nn.Module):
    """Vectors of length 1; zeros stay zeros."""

    def forward(self, x: Float[Tensor, "B dim"]) -> Float[Tensor, "B dim"]:
        """Divide by the length."""
        return F.normalize(x, dim=-1)


def on_device(given: Sequence[float] | None, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    """Numbers on a device, which are brought there once."""
    return None if given is None else _made(tuple(given), dtype, device)


@lru_cache(maxsize=32)
def _made(given: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # so that a training may use it, too
        return torch.tensor(given, dtype=dtype, device=device)


def wide(x: Tensor) -> Tensor:
    """In float32 or wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

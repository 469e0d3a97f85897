"""References of the memory demo's layers: attention with all its weights written out, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from benchmarks import peers
from benchmarks.methods import Case
from torch import Tensor, nn

from lambda_seq.layers.attention import AxialAttention, RelativeAttention


class Turned(nn.Module):
    """A layer of (B, dim, N) for sequences (B, N, dim)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) to the same."""
        return self.inner(x.mT).mT


class Moved(nn.Module):
    """A layer of sequences, (B, N, dim), for images (B, dim, H, W): their rows one after the other."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to the same."""
        return self.inner(x.flatten(2).mT).mT.unflatten(2, x.shape[2:])


def attention_by(attend: peers.Attend, layer: Any, case: Case) -> nn.Module:
    """The same layer with another function, in float64."""
    if len(case.size) == 1:
        return peers.attention_by(attend, layer, case)
    return Moved(peers.attention_by(attend, layer.inner, case))


def with_attend(attend: Callable[..., Tensor], layer: Any) -> Any:
    """A copy of an attention layer of the package, in float64, that attends by `attend(layer, query, key, value)`."""
    twin = copy.deepcopy(layer).double()
    twin.attend = partial(attend, twin)
    return twin


def local_attention_written_out(layer: Any, case: Case) -> nn.Module:
    """The same with all weights and a mask."""
    if len(case.size) == 1:
        return peers.attention_by(partial(_blocks_written_out, peers.window(False, case)), layer, case)
    return with_attend(_windows_written_out, layer)


def _blocks_written_out(width: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    block = torch.arange(query.shape[2], device=query.device) // width
    return peers.materialised(query, key, value, (block[:, None] - block).abs() <= 1)


def _windows_written_out(layer: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    size, reach = query.shape[2:4], layer.scope[0] // 2
    rows, columns = torch.meshgrid(*(torch.arange(length, device=query.device) for length in size), indexing="ij")
    below, right = (place.flatten() - place.flatten()[:, None] for place in (rows, columns))  # (n, n), m − n
    visible = (below.abs() <= reach) & (right.abs() <= reach)
    offsets = torch.cat(
        [layer.row[(below + reach).clamp(0, 2 * reach)], layer.column[(right + reach).clamp(0, 2 * reach)]], -1
    )
    query, key, value = (x.flatten(2, 3) for x in (query, key, value))
    logits = query @ key.mT + torch.einsum("bhnd,nmd->bhnm", query, offsets)
    weights = (logits / layer.depth**0.5).masked_fill(~visible, -torch.inf).softmax(-1)
    return (weights @ value).unflatten(2, size)


def axial_attention_written_out(layer: AxialAttention, case: Case) -> nn.Module:
    """The same with all weights of rows and columns."""
    twin = copy.deepcopy(layer).double()
    twin.rows = with_attend(_relative_written_out, layer.rows)
    twin.columns = with_attend(_relative_written_out, layer.columns)
    return twin


def _relative_written_out(layer: RelativeAttention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    place = torch.arange(query.shape[2], device=query.device)
    offsets = layer.tables[0]((len(place),))[0].mT[place - place[:, None] + len(place) - 1]  # (N, M, d)
    logits = query @ key.mT + torch.einsum("bhnd,nmd->bhnm", query, offsets)
    return (logits / layer.depth**0.5).softmax(-1) @ value


def linear_attention_written_out(layer: Any, case: Case) -> nn.Module:
    """The same with a weight for each pair of positions."""
    if len(case.size) == 1:
        return Turned(with_attend(_linear_written_out, layer.inner))
    return with_attend(_linear_written_out, layer)


def _linear_written_out(layer: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    size = query.shape[2:-1]
    query, key, value = (x.flatten(2, -2) for x in (query, key, value))
    return (query.softmax(-1) @ key.softmax(2).mT @ value).unflatten(2, size)


def published_by_ours(layer: Any, case: Case) -> nn.Module:
    """The definition with its weights."""
    return Named(peers.ours_by("naive", layer.layer, case))


class Named(nn.Module):
    """A layer whose weights have the names that those of `Gathered` have."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """What the layer does."""
        return self.layer(x)

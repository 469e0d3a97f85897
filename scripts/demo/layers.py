"""What the memory demo compares: layers that mix positions.

Layers map (B, N, dim) to itself, or (B, dim, H, W) for images. Each has a reference in float64, which
computes the same in another way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from benchmarks import peers
from benchmarks.methods import Build, Case, Twin, Variants, as_it_is
from torch import Tensor, nn

from demo.references import (
    Moved,
    Turned,
    attention_by,
    axial_attention_written_out,
    linear_attention_written_out,
    local_attention_written_out,
    published_by_ours,
)
from lambda_seq.layers.attention import AxialAttention, LinearAttention, LocalAttention

# Attention over all positions


def attention(attend: peers.Attend, case: Case) -> nn.Module:
    """Attention to all positions."""
    layer = peers.attention(attend, case)
    return layer if len(case.size) == 1 else Moved(layer)


# Local, axial and linear attention


def in_blocks(width: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Fused attention to the own block of `width` positions and its two neighbours; three (B, h, N, d) to one."""
    batch, heads, count, _ = query.shape
    blocks = -(-count // width)
    query, key, value = (
        F.pad(x, (0, 0, 0, blocks * width - count)).flatten(0, 1).unflatten(1, (blocks, width))
        for x in (query, key, value)
    )  # (B·h, blocks, w, d)
    padded = [F.pad(x, (0, 0, 0, 0, 1, 1)) for x in (key, value)]
    keys, values = (torch.cat([x[:, :-2], x[:, 1:-1], x[:, 2:]], 2) for x in padded)  # (B·h, blocks, 3w, d)
    place = torch.arange(-1, blocks - 1, device=query.device)[:, None] * width
    place = place + torch.arange(3 * width, device=query.device)
    visible = ((place >= 0) & (place < count))[None, :, None]  # (1, blocks, 1, 3w)
    output = F.scaled_dot_product_attention(query, keys, values, attn_mask=visible)
    return output.flatten(1, 2)[:, :count].unflatten(0, (batch, heads))


def local_attention(case: Case) -> nn.Module:
    """Local attention: sequences in blocks, together as many positions as the scope; images by windows."""
    if len(case.size) == 1:
        return peers.attention(partial(in_blocks, peers.window(False, case)), case)
    return LocalAttention(case.dim, heads=case.heads, scope=case.scope)


def axial_attention(case: Case) -> nn.Module:
    """Relative attention along rows, then along columns."""
    return AxialAttention(case.dim, heads=case.heads, max_size=case.size)


def linear_attention(case: Case) -> nn.Module:
    """Efficient attention: a matrix for all queries."""
    layer = LinearAttention(case.dim, case.heads)
    return Turned(layer) if len(case.size) == 1 else layer


# The published lambda layer


class Gathered(nn.Module):
    """The global lambda layer by the published code: an embedding for each pair of positions, (N, M, K), by indexing.

    I. Bello, "LambdaNetworks", ICLR 2021, figure 3; the same weights as ours and the same function.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) or (B, dim, H, W) to the same."""
        layer = self.layer
        x = x if layer.dims == 1 else x.movedim(1, -1)
        size = x.shape[1:-1]
        query, value, key = layer.project(x).split(layer.parts, -1)
        query = layer.norm_query(query, None).flatten(1, -2).unflatten(-1, (layer.heads, -1))  # (B, N, H, K)
        value = layer.norm_value(value, None).flatten(1, -2)  # (B, N, V)
        embeddings = gathered(layer.position(size)[0], size)  # (N, M, K)
        content = torch.einsum("bmk,bmv->bkv", key.flatten(1, -2).softmax(1), value)
        position = torch.einsum("nmk,bmv->bnkv", embeddings, value)
        output = torch.einsum("bnhk,bnkv->bnhv", query, content[:, None] + position)
        output = output.flatten(2).unflatten(1, size)
        return output if layer.dims == 1 else output.movedim(-1, 1)


def gathered(table: Tensor, size: tuple[int, ...]) -> Tensor:
    """Embeddings (N, M, K) of all pairs of positions from a table (K, *R) by their offsets."""
    offsets = []
    for axis, length in enumerate(size):
        place = torch.arange(length, device=table.device)
        shape = [length if other == axis else 1 for other in range(len(size))]
        place = place.view(shape).expand(size).flatten()
        offsets.append(place - place[:, None] + table.shape[1 + axis] // 2)  # (N, M)
    return table.movedim(0, -1)[tuple(offsets)]


def published(case: Case) -> nn.Module:
    """The published lambda layer, global."""
    return Gathered(peers.ours("global", case))


# Methods


@dataclass(frozen=True)
class Method:
    """A layer to compare.

    Args:
        label: what tables and pictures call it.
        build, twin, variants: as in `methods`.
        memory, time: powers of the number of positions N that they may grow with; "log" is N · log N.
        dims: 1 for sequences, 2 for images.
        ours: one of this library's layers.
    """

    label: str
    build: Build
    twin: Twin
    memory: tuple[str, ...] = ("0", "1")
    time: tuple[str, ...] = ("0", "1")
    dims: tuple[int, ...] = (1, 2)
    variants: Variants = as_it_is
    ours: bool = False


def ours_along(layer: Any, case: Case) -> list[nn.Module]:
    """Our layer with each algorithm that "auto" takes at the size of the case or at shorter ones."""
    if layer.position is None:
        return [layer]
    chosen: set[str] = set()
    while min(case.size) >= 16:
        plan = peers.ours_plan(layer, case)
        chosen |= {plan.algorithm, plan.backward_algorithm}
        case = replace(case, size=tuple(length // 2 for length in case.size))
    return [peers.ours_by(algorithm, layer, case) for algorithm in sorted(chosen)]


def _ours(label: str, kind: str, time: tuple[str, ...] = ("0", "1")) -> Method:
    naive = partial(peers.ours_by, "naive")
    return Method(label, partial(peers.ours, kind), naive, time=time, variants=ours_along, ours=True)


SQUARE = ("0", "1", "2")
METHODS = {
    "materialised": Method(
        "materialised attention",
        partial(attention, peers.materialised),
        partial(attention_by, peers.fused),
        SQUARE,
        SQUARE,
    ),
    "fused": Method(
        "fused attention", partial(attention, peers.fused), partial(attention_by, peers.materialised), time=SQUARE
    ),
    "axial-attention": Method(
        "axial attention", axial_attention, axial_attention_written_out, ("0", "1", "1.5"), ("0", "1", "1.5"), (2,)
    ),
    "local-attention": Method("local attention", local_attention, local_attention_written_out),
    "linear-attention": Method("linear attention", linear_attention, linear_attention_written_out),
    "published": Method("published lambda", published, published_by_ours, SQUARE, SQUARE),
    "content": _ours("ours, content only", "content"),
    "local": _ours("ours, local", "local"),
    "global": _ours("ours, global", "global", ("0", "1", "log")),
}

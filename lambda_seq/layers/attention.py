"""The attention layers that lambda layers are compared with: linear, global and axial relative, local.

B batch · h heads · C channels · d = C / h depth of a head · N positions per dimension · R rows and columns of a window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lambda_seq.functional.applying import products
from lambda_seq.layers import RelativePositionTable, checks
from lambda_seq.layers.weights import draw, draw_linear, reset_by


class Attention(nn.Module):
    """What the attention layers share: (B, C, *N) -> (B, C, *N), heads of C / h channels, no output projection.

        Q = X W_Q   K = X W_K   V = X W_V          (C, C) each, without bias; a head is d consecutive channels

    As the lambda layer they leave output norm, activation and projection to the block around them.

    Args:
        dim: channels C.
        heads: a divisor of them.

    Raises:
        ValueError: a number below 1, heads that do not divide dim.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        checks.at_least_one(dim=dim, heads=heads)
        if dim % heads:
            raise ValueError(f"heads={heads} does not divide dim={dim}: expected a divisor, for heads of dim / heads")
        self.dim, self.heads, self.depth = dim, heads, dim // heads
        self.project = nn.Linear(dim, 3 * dim, bias=False)
        reset_by(self.project, partial(draw_linear, stds=(dim**-0.5,)))

    def forward(self, x: Float[Tensor, "B C *N"]) -> Float[Tensor, "B C *N"]:
        """Mix over positions.

        Raises:
            TypeError: x is not floating point.
            ValueError: x has other channels or dimensions, or is larger than tables of relative positions.
        """
        checks.floating("x", x)
        self.check(x)
        parts = rearrange(self.project(x.movedim(1, -1)), "b ... (p h d) -> p b h ... d", p=3, h=self.heads)
        query, key, value = parts.unbind(0)  # (B, h, *N, d) each
        return rearrange(self.attend(query, key, value), "b h ... d -> b (h d) ...")

    def check(self, x: Tensor) -> None:
        """Raise ValueError for an input of another shape."""
        ranks = range(3, max(x.ndim, 4) + 1)
        checks.shaped("x", x, f"(B, C, *N) with C = dim={self.dim}", ranks=ranks, channels=self.dim, axis=1)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Float[Tensor, "B h *N d"]:
        """Queries, keys and values (B, h, *N, d) -> what the queries gather."""
        raise NotImplementedError(f"{type(self).__name__} has no attend(query, key, value)")

    def multiply_adds(self, size: Sequence[int]) -> int:
        """Multiply-adds of one input with this many positions per dimension, beside the projections."""
        raise NotImplementedError(f"{type(self).__name__} has no multiply_adds(size)")

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"{self.dim}, heads={self.heads}"


class LinearAttention(Attention):
    """Efficient attention: y_n = softmax_d(q_n) · Σ_m softmax_m(k_m)ᵀ v_m; a (d, d) context for all queries.

    Queries are normalised over their depth, keys over the positions, each channel on its own. No positions: a
    permutation of the inputs permutes the outputs. Any size. Z. Shen et al., "Efficient Attention", WACV 2021.
    """

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Float[Tensor, "B h *N d"]:
        """Time n · d² per head, linear memory."""
        wide = torch.promote_types(key.dtype, torch.float32)  # many positions: weights too small for half precision
        # Positions last: over another dimension torch's softmax adds them up one after another, 2e-5 off at a million
        weights = key.flatten(2, -2).mT.softmax(-1, dtype=wide)  # (B, h, d, n)
        context = products(weights.mT, value.flatten(2, -2).to(wide)).to(value.dtype)  # (B, h, d, v)
        return torch.einsum("bh...d,bhdv->bh...v", query.softmax(-1).to(value.dtype), context)

    def multiply_adds(self, size: Sequence[int]) -> int:
        """n · C · d for the contexts, and as many to apply them."""
        return 2 * math.prod(size) * self.dim * self.depth


class RelativeTable(RelativePositionTable):
    """R[m − n], a vector of a head's depth for each offset along one dimension; the heads share it."""

    density = False  # logits: softmax over positions normalises

    def __init__(self, depth: int, length: int) -> None:
        super().__init__(1, depth, scope=None, max_size=(length,))

    def reset_parameters(self) -> None:
        """Draw the table anew: N(0, 1 / d), as in Bello et al. 2019."""
        draw(self.weight, self.weight.shape[1] ** -0.5)


class RelativeAttention(Attention):
    """Global self-attention with relative positions, for any number of dimensions.

        y_n = Σ_m softmax_m(q_n · (k_m + Σ_a R_a[m_a − n_a]) / √d) v_m          m over all positions, a over dimensions

    One table per dimension, 2N − 1 offsets of depth d, shared by the heads. P. Shaw et al., NAACL 2018; in two
    dimensions I. Bello et al., "Attention Augmented Convolutional Networks", ICCV 2019.

    Fused (`scaled_dot_product_attention`), linear memory, quadratic time: a position's logit is a sum of one number per
    dimension, so it is the product of the query's numbers with zeros and a one, which are appended to the keys.

    Args:
        dim: channels.
        heads: a divisor of them.
        max_size: largest input per dimension; smaller ones use the middle of the tables.

    Raises:
        ValueError: an option that does not fit.
    """

    def __init__(self, dim: int, *, heads: int = 8, max_size: Sequence[int]) -> None:
        super().__init__(dim, heads)
        self.positions = nn.ModuleList(RelativeTable(self.depth, length) for length in max_size)

    @property
    def max_size(self) -> tuple[int, ...]:
        """Largest input per dimension."""
        return tuple(table.taps[0] // 2 + 1 for table in self.tables)

    @property
    def tables(self) -> list[RelativeTable]:
        """Of the dimensions in turn."""
        return [table for table in self.positions if isinstance(table, RelativeTable)]

    def resize(self, max_size: Sequence[int]) -> None:
        """Rescale the tables' offsets to inputs of another size: `RelativePositionTable.resize`."""
        for table, length in zip(self.tables, max_size, strict=True):
            table.resize((length,))

    def check(self, x: Tensor) -> None:
        """Raise ValueError for an input of another shape, or larger than the tables."""
        super().check(x)
        size, most = tuple(x.shape[2:]), self.max_size
        if len(size) != len(most):
            raise ValueError(f"x has shape {tuple(x.shape)}: expected {len(most)} dimensions of positions")
        _check_covered(size, most)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Float[Tensor, "B h *N d"]:
        """Time n² · C, linear memory."""
        size, depth = query.shape[2:-1], self.depth
        query = query * depth**-0.5
        queries, keys = [query], [key]
        for axis, (table, length) in enumerate(zip(self.tables, size, strict=True)):
            offsets = table((length,))[0].to(query.dtype)  # (d, 2N − 1)
            place = torch.arange(length, device=query.device)
            gathered = offsets[:, place[None] - place[:, None] + length - 1]  # (d, N, M), R[m − n]
            moved = query.movedim(2 + axis, 2)  # (B, h, N, ..., d)
            logits = torch.einsum("bhn...d,dnm->bhn...m", moved, gathered).movedim(2, 2 + axis)  # (B, h, *N, M)
            queries.append(logits)
            one = torch.eye(length, device=key.device, dtype=key.dtype)
            one = one.view(*[length if other == axis else 1 for other in range(len(size))], length)
            keys.append(one.expand(*key.shape[:-1], length))  # a one where the key is
        query = torch.cat([part.flatten(2, -2).to(value.dtype) for part in queries], -1)  # (B, h, n, d + Σ N)
        key = torch.cat([part.flatten(2, -2).to(value.dtype) for part in keys], -1)
        # Kernels on the CPU are for values as deep as the keys
        value = F.pad(value.flatten(2, -2), (0, query.shape[-1] - depth))
        output = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return output[..., :depth].unflatten(2, size)

    def multiply_adds(self, size: Sequence[int]) -> int:
        """n² · C each for content logits and values, and n · C · N for the position logits of each dimension."""
        count = math.prod(size)
        return count * self.dim * (2 * count + sum(size))

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"{super().extra_repr()}, max_size={self.max_size}"


def _check_covered(size: tuple[int, ...], max_size: tuple[int, ...]) -> None:
    """Raise ValueError for an input that is larger than tables of relative positions."""
    if any(length > most for length, most in zip(size, max_size, strict=True)):
        raise ValueError(
            f"x has size {size} but the relative positions cover max_size={max_size}: construct the layer for the "
            "larger size, or call resize; of a network, image_size and model.resize(image_size)"
        )


class AxialAttention(nn.Module):
    """Relative self-attention within each row, then within each column: what a pixel sees in two steps is all of them.

        y = columns(rows(x)), each a `RelativeAttention` along one dimension with projections of its own

    J. Ho et al., "Axial Attention in Multidimensional Transformers", 2019; H. Wang et al., "Axial-DeepLab", ECCV 2020,
    whose position terms of keys and values, and norms, are left out: positions act as in the other relative layers.

    Args:
        dim: channels.
        heads: a divisor of them.
        max_size: largest (H, W); smaller inputs use the middle of the tables.

    Raises:
        ValueError: an option that does not fit.
    """

    def __init__(self, dim: int, *, heads: int = 8, max_size: Sequence[int]) -> None:
        super().__init__()
        self.rows = RelativeAttention(dim, heads=heads, max_size=max_size[1:])  # along x
        self.columns = RelativeAttention(dim, heads=heads, max_size=max_size[:1])  # along y

    @property
    def max_size(self) -> tuple[int, int]:
        """Largest (H, W)."""
        return self.columns.max_size[0], self.rows.max_size[0]

    def resize(self, max_size: Sequence[int]) -> None:
        """Rescale the tables' offsets to inputs of another size (H, W)."""
        height, width = max_size
        self.rows.resize((width,))
        self.columns.resize((height,))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Mix along rows, then along columns.

        Raises:
            TypeError: x is not floating point.
            ValueError: x is not (B, C, H, W), or larger than the tables.
        """
        checks.floating("x", x)
        expected = f"(B, C, H, W) with C = dim={self.rows.dim}"
        checks.shaped("x", x, expected, ranks=(4,), channels=self.rows.dim, axis=1)
        _check_covered(tuple(x.shape[2:]), self.max_size)
        batch = x.shape[0]
        x = self.rows(rearrange(x, "b c y x -> (b y) c x"))
        x = self.columns(rearrange(x, "(b y) c x -> (b x) c y", b=batch))
        return rearrange(x, "(b x) c y -> b c y x", b=batch)


SMALL = 4  # pictures of so many windows' pixels are attended to whole: measured on a CPU


class LocalAttention(Attention):
    """Stand-alone self-attention: each pixel attends to the window of R × R pixels around it.

        y_n = Σ_δ softmax_δ(q_n · (k_{n+δ} + r_δ) / √d) v_{n+δ}          r_δ = [row[δ_y], column[δ_x]], d / 2 each

    Windows end at the border: what lies outside the picture takes no part. Any size. P. Ramachandran et al.,
    "Stand-Alone Self-Attention in Vision Models", NeurIPS 2019, whose equation has no √d.

    Args:
        dim: channels.
        heads: a divisor of them, heads of even depth.
        scope: rows and columns of the window, odd, an int or a pair.

    Raises:
        ValueError: an option that does not fit.
    """

    no_weight_decay = ("row", "column")

    def __init__(self, dim: int, *, heads: int = 8, scope: int | Sequence[int] = 7) -> None:
        super().__init__(dim, heads)
        self.scope = checks.per_dimension("scope", scope, 2)
        if min(self.scope) < 1 or not all(taps % 2 for taps in self.scope):
            raise ValueError(f"scope={scope}: expected an odd number of pixels, or a pair, such as 7")
        if self.depth % 2:
            raise ValueError(
                f"heads={heads} of dim={dim} have depth {self.depth}: expected an even one, half for rows and half for "
                f"columns; use heads={heads // 2 or 1} or a dim of multiples of {2 * heads}"
            )
        self.row = nn.Parameter(torch.empty(self.scope[0], self.depth // 2))
        self.column = nn.Parameter(torch.empty(self.scope[1], self.depth // 2))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the tables of positions anew."""
        for table in (self.row, self.column):
            draw(table, self.depth**-0.5)

    def check(self, x: Tensor) -> None:
        """Raise ValueError for an input of another shape."""
        checks.shaped("x", x, f"(B, C, H, W) with C = dim={self.dim}", ranks=(4,), channels=self.dim, axis=1)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Float[Tensor, "B h H W d"]:
        """Time n · R² · C; small pictures whole, n² · C in matrix products, which take less there."""
        query = query * self.depth**-0.5
        small = math.prod(query.shape[2:4]) <= SMALL * math.prod(self.scope)
        return self._whole(query, key, value) if small else self._by_windows(query, key, value)

    def _whole(self, query: Tensor, key: Tensor, value: Tensor) -> Float[Tensor, "B h H W d"]:
        """By the logits of all pairs of pixels."""
        by_row, by_column = query.chunk(2, -1)
        rows = self._pairs(by_row, self.row, 2)[..., :, None]  # (B, h, H, W, H, 1)
        columns = self._pairs(by_column, self.column, 3)[..., None, :]
        size = query.shape[2:4]
        query, key, value = (part.flatten(2, 3) for part in (query, key, value))  # (B, h, n, d)
        logits = (query @ key.mT).unflatten(3, size).unflatten(2, size) + rows + columns  # (B, h, H, W, H, W)
        weights = logits.flatten(4).flatten(2, 3).softmax(-1)  # (B, h, n, n)
        return (weights.to(value.dtype) @ value).unflatten(2, size)

    def _pairs(self, query: Tensor, table: Tensor, axis: int) -> Float[Tensor, "B h H W M"]:
        """Logits of the offsets to all places along an axis, −∞ where they lead out of the window."""
        reach, length = table.shape[0] // 2, query.shape[axis]
        place = torch.arange(length, device=query.device)
        offset = place[None] - place[:, None]  # (N, M), m − n
        gathered = table.to(query.dtype)[offset.clamp(-reach, reach) + reach]  # (N, M, d / 2)
        logits = torch.einsum("bhn...d,nmd->bhn...m", query.movedim(axis, 2), gathered).movedim(2, axis)
        outside = (offset.abs() > reach).view(*[length if other == axis else 1 for other in range(4)], length)
        return logits.masked_fill(outside, -torch.inf)

    def _by_windows(self, query: Tensor, key: Tensor, value: Tensor) -> Float[Tensor, "B h H W d"]:
        """A window's row at a time, so that only logits are kept for all of it."""
        by_row, by_column = query.chunk(2, -1)
        rows = self._positions(by_row, self.row, 2)  # (B, h, H, W, R)
        columns = self._positions(by_column, self.column, 3)
        keys, values = self._windows(key), self._windows(value)  # R views of (B, h, H, W, d, R)
        logits = [
            (query.unsqueeze(-1) * window).sum(-2) + columns + rows[..., index, None]  # (B, h, H, W, R)
            for index, window in enumerate(keys)
        ]
        weights = torch.stack(logits, -2).flatten(-2).softmax(-1).unflatten(-1, self.scope)  # (B, h, H, W, R, R)
        # One sum in the queries' order, whatever dtype autocast gave the softmax
        parts = [(weights[..., index, None, :].to(value.dtype) * window).sum(-1) for index, window in enumerate(values)]
        return torch.stack(parts).sum(0)  # (B, h, H, W, d)

    def _positions(self, query: Tensor, table: Tensor, axis: int) -> Float[Tensor, "B h H W R"]:
        """Logits of the offsets along an axis, −∞ where they lead out of the picture."""
        taps, length = table.shape[0], query.shape[axis]
        place = torch.arange(length, device=query.device)[:, None] + torch.arange(taps, device=query.device) - taps // 2
        outside = (place < 0) | (place >= length)  # (N, R)
        outside = outside.view(*[length if other == axis else 1 for other in range(4)], taps)
        return torch.einsum("bhyxd,rd->bhyxr", query, table.to(query.dtype)).masked_fill(outside, -torch.inf)

    def _windows(self, x: Float[Tensor, "B h H W d"]) -> list[Tensor]:
        """For each row of the window, its columns: views (B, h, H, W, d, R) of x with zeros around it."""
        (rows, columns), height = self.scope, x.shape[2]
        padded = F.pad(x, (0, 0, columns // 2, columns // 2, rows // 2, rows // 2))
        return [padded.narrow(2, row, height).unfold(3, columns, 1) for row in range(rows)]

    def multiply_adds(self, size: Sequence[int]) -> int:
        """n · R² · C each for content logits and values (R² clipped to the map), n · C / 2 · R for each table."""
        clipped = math.prod(min(taps, length) for taps, length in zip(self.scope, size, strict=True))
        return math.prod(size) * self.dim * 2 * clipped + math.prod(size) * self.dim // 2 * sum(self.scope)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"{super().extra_repr()}, scope={self.scope}"

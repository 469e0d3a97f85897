"""The causal content lambda as Triton kernels: parts of the positions at once, none of which waits for the host.

For GPUs. See `kernels/scan.py` for how it is computed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lambda_seq.functional import summing
from lambda_seq.functional.launching import applies, launch, power_of_two, shares
from lambda_seq.functional.problem import Sizes
from lambda_seq.functional.scan import SCANS, Scan, sizes_of
from lambda_seq.functional.summing import laid_out, summed_up
from lambda_seq.functional.work import Work

ROWS = 64  # (position, head), of a tile, at most
CHUNK = 32  # positions of a tile, at most: with more, registers do not hold what one head needs
HEADS = 4  # of a tile, at most
STATE = 2**11  # keys times values that a program holds, at most; in float32, of which products take parts, half as many
WARPS = 4  # of 32 threads, in a program


class Tiles(NamedTuple):
    """Sizes of tiles: powers of two, for products."""

    chunk: int  # positions
    heads: int
    keys: int
    values: int


def tiles(s: Sizes) -> Tiles:
    """Tiles for a problem."""
    heads = min(HEADS, power_of_two(s.H))
    return Tiles(min(CHUNK, ROWS // heads), heads, power_of_two(s.K, 16), power_of_two(s.V, 16))


def supports(s: Sizes, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why it does not apply, None where it may."""
    t, most = tiles(s), STATE // 2 if dtype == torch.float32 else STATE
    reason = applies(s, device, dtype)
    if reason is None and t.keys * t.values > most:
        return f"it is for k · v up to {most} in {dtype}, in powers of two from 16, not {t.keys} · {t.values}"
    return reason


class _Parts:
    """How a sequence is cut, and launches for each part.

    Args:
        sizes: of the problem.
        key_norm: "softmax", "l2" or "none".
    """

    def __init__(self, sizes: Sizes, key_norm: str) -> None:
        rows = summing.tiles(sizes.K, sizes.V).rows
        self.sizes, self.key_norm = sizes, key_norm
        self.count, self.share = shares(sizes.B * sizes.U, -(-sizes.X // rows))
        self.numbers = (sizes.H, sizes.U, sizes.K, sizes.V, sizes.X, self.share * rows, self.count)

    def launch(self, kernel: Any, tensors: tuple[Tensor, ...], u: int | None = None) -> None:
        """Run a kernel for each part, of each u if not of one."""
        s, t = self.sizes, tiles(self.sizes)
        programs = s.B * self.count * (s.U if u is None else 1)
        launch(
            kernel,
            programs,
            tensors,
            self.numbers if u is None else (u, *self.numbers),
            num_warps=WARPS,
            NORM=self.key_norm,
            CHUNK=t.chunk,
            HEADS=t.heads,
            KP=t.keys,
            VP=t.values,
        )

    def carry(self, own: tuple[Tensor, ...], first: tuple[Tensor, ...], reverse: bool) -> tuple[list[Tensor], ...]:
        """What comes before each part (B, U, P, …), or behind it, and what all come to (B, U, …).

        Args:
            own: what each part has.
            first: what comes before all.
            reverse: begin with the last one.
        """
        from lambda_seq.functional.kernels import scan

        s = self.sizes
        before = [torch.empty_like(part) for part in own]
        last = [torch.empty_like(part[:, :, 0]) for part in own]
        launch(
            scan.carry,
            s.B * s.U * s.K,
            (*own, *(part.contiguous() for part in first), *before, *last),
            (s.K, s.V, self.count),
            num_warps=1,
            REVERSE=reverse,
            SOFTMAX=self.key_norm == "softmax",
            VP=power_of_two(s.V, 32),
        )
        return before, last


def forward(
    query: Tensor, key: Tensor, value: Tensor, sums: Tensor, norm: Tensor, top: Tensor, key_norm: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output and the state after; arguments as in `scan.Scan`."""
    from lambda_seq.functional.kernels import scan

    s = sizes_of(query, key, value)
    parts = _Parts(s, key_norm)
    query, key, value = laid_out(query), laid_out(key), laid_out(value)
    own = summed_up(key, value, key_norm, parts.share, parts.count)
    before, (sums, norm, top) = parts.carry(own, (sums, norm, top), reverse=False)
    output = query.new_empty(s.B, s.X, s.H, s.V, dtype=query.dtype if s.U == 1 else torch.float32)
    for u in range(s.U):
        parts.launch(scan.scan, (query, key, value, output, *before), u)
    return output.to(query.dtype).transpose(1, 2), sums, norm[:, :, None], top[:, :, None]


def backward(
    grad: Tensor, grad_sums: Tensor, grad_norm: Tensor, _: Tensor, *inputs: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the inputs of `forward`: a walk forward for those of queries, and one back."""
    from lambda_seq.functional.kernels import scan

    query, key, value, sums, norm, top, key_norm = inputs
    s, softmax = sizes_of(query, key, value), key_norm == "softmax"
    parts = _Parts(s, key_norm)
    grad, query, key, value = laid_out(grad), laid_out(query), laid_out(key), laid_out(value)
    own = summed_up(key, value, key_norm, parts.share, parts.count)
    before, (_, _, after) = parts.carry(own, (sums, norm, top), reverse=False)
    grad_query = query.new_empty(query.shape, dtype=query.dtype if s.U == 1 else torch.float32)
    logs, falls = (key.new_empty(key.shape if key_norm != "none" else (1,), dtype=torch.float32) for _ in range(2))
    for u in range(s.U):
        parts.launch(scan.grad_query, (query, key, value, grad, grad_query, logs, falls, *before), u)
    queries = tuple(torch.empty_like(part) for part in own)
    parts.launch(scan.sum_up_queries, (query, grad, logs, falls, *queries))
    reference = torch.where(after.isneginf(), after, -after)
    behind, (grad_sums, falling, least) = parts.carry(queries, (grad_sums, -grad_norm, reference), reverse=True)
    grad_key, grad_value = key.new_empty(key.shape), value.new_empty(value.shape)
    parts.launch(scan.grad_context, (query, key, value, grad, logs, falls, grad_key, grad_value, *behind))
    if softmax:  # relative to the maximum before the first position
        shrink = (top.squeeze(2) + least).exp()
        grad_sums, falling = grad_sums * shrink[..., None], falling * shrink
    grad_query, grad_key, grad_value = (
        one.transpose(1, 2) for one in (grad_query.to(query.dtype), grad_key, grad_value)
    )
    return grad_query, grad_key, grad_value, grad_sums, -falling[:, :, None], torch.zeros_like(top)


def count(s: Sizes, backward: bool) -> tuple[Work, float]:
    """Work, and floats of temporaries; with the backward pass or without.

    Products are those of whole tiles.
    """
    t = tiles(s)
    rows = summing.tiles(s.K, s.V).rows
    parts, share = shares(s.B * s.U, -(-s.X // rows))
    chunks = s.B * s.U * (s.X // (share * rows) * (share * rows // t.chunk) + -(-(s.X % (share * rows)) // t.chunk))
    state, heads = t.keys * t.values, -(-s.H // t.heads) * t.heads * t.chunk
    total = s.B * s.U * -(-s.X // rows) * rows * state  # of `sum_up`
    near, far = heads * t.chunk * (t.keys + t.values), heads * state
    queries, outputs, keys, values = s.N * s.H * s.K, s.outputs, s.N * s.U * s.K, s.N * s.U * s.V
    states = s.B * s.U * parts * s.K * (s.V + 2)
    one = Work(
        products=total + chunks * (near + far + t.chunk * state),
        streamed=2 * (keys + values) + queries + outputs + 4 * states,
        calls=4 + s.U,
    )
    if not backward:
        return one, float(2 * states)
    # Products of the walk forward as above; back, sums of queries, and each of near and far twice
    work = Work(
        products=total + chunks * (3 * near + 3 * far + 3 * t.chunk * state),
        streamed=5 * (keys + values) + 4 * queries + 3 * outputs + 8 * states + 6 * keys,
        calls=16 + s.U,
    )
    return one + work, float(4 * states + 2 * keys)


SCANS.register(
    Scan("triton_scan", "chunks in parts as Triton kernels, on GPUs", forward, backward, count, supports, False)
)

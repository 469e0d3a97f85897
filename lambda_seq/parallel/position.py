"""The position lambda of a sequence that several processes share, in one of three ways.

"halo": a local scope needs the values that neighbours hold within its reach, r · v numbers, whatever the length.
"state": sums of exponentials, causal, need the running sums of all earlier positions, s · v numbers.
"channels": any scope. Values are dealt out by channel, so that each process has all positions of some of them; their
lambdas, by FFT, go back to the processes whose queries they meet: n / P · (k + 1) · v numbers each. Its FFT stays in
float32, other than that of `functional.fft`: a part that is 10,000 times quieter than the rest has errors of 1e-3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from lambda_seq.functional.api import lambda_layer
from lambda_seq.functional.exponentials import Exponentials, basis, turn
from lambda_seq.functional.operators import without_autocast
from lambda_seq.functional.packing import packed_lambda_layer
from lambda_seq.functional.position.fft import FFTCorrelation
from lambda_seq.functional.problem import as_image, clip, origin
from lambda_seq.parallel import collectives
from lambda_seq.parallel.layout import Layout, neighbours
from lambda_seq.parallel.packing import SplitPacking

CHUNK = 2**21  # floats of the lambdas that are exchanged together, at least one key's


def halo(
    query: Float[Tensor, "B H N K"],
    value: Float[Tensor, "B U N V"],
    embedding: Float[Tensor, "U K R"],
    layout: Layout,
    group: dist.ProcessGroup,
    causal: bool,
    algorithm: str,
    packing: SplitPacking | None = None,
) -> Float[Tensor, "B H N V"]:
    """The position part from this chunk's values and those within reach of it."""
    before, after = reach(embedding, causal)
    output = _alone(query, value, embedding, packing, causal, algorithm)
    front, back = before, after  # positions that are asked for, alike on all processes
    if packing is not None:
        front, back = min(before, packing.reach), min(after, packing.ahead)
    if not front and not back:
        return output
    left, right = neighbours(value, layout, group, front, back, 2)
    if packing is not None:
        left = left.masked_fill(~packing.seen(left.shape[2])[:, None, :, None], 0)
        right = right.masked_fill(~packing.seen(right.shape[2], front=False)[:, None, :, None], 0)
    # What neighbours add to the outputs at the ends. Also where there are none: all processes go backward alike.
    count = query.shape[2]
    if front:
        near = _beyond(query[:, :, :before], left, embedding, causal, algorithm, front=True)
        if packing is not None:
            near = near.masked_fill(~packing.in_head[:, None, : near.shape[2], None], 0)
        output = output + F.pad(near, (0, 0, 0, count - near.shape[2]))
    if back:
        near = _beyond(query[:, :, -after:], right, embedding, causal, algorithm, front=False)
        if packing is not None:
            near = near.masked_fill(~packing.in_tail[:, None, count - near.shape[2] :, None], 0)
        output = output + F.pad(near, (0, 0, count - near.shape[2], 0))
    return output


def _alone(
    query: Tensor, value: Tensor, embedding: Tensor, packing: SplitPacking | None, causal: bool, algorithm: str
) -> Tensor:
    """The position part from this chunk's values alone."""
    options: dict[str, Any] = {"causal": causal, "algorithm": algorithm}
    if packing is None:
        return lambda_layer(query, None, value, embedding, **options)
    return packed_lambda_layer(query, None, value, embedding, packing, **options)


def _beyond(query: Tensor, halo: Tensor, embedding: Tensor, causal: bool, algorithm: str, *, front: bool) -> Tensor:
    """The position part of some queries from the values in front of them, or behind them, alone."""
    others, count = halo.shape[2], query.shape[2]
    queries = F.pad(query, (0, 0, others, 0) if front else (0, 0, 0, others))
    values = F.pad(halo, (0, 0, 0, count) if front else (0, 0, count, 0))
    output = lambda_layer(queries, None, values, embedding, causal=causal, algorithm=algorithm)
    return output[:, :, others:] if front else output[:, :, :count]


def reach(embedding: Tensor, causal: bool) -> tuple[int, int]:
    """Positions that a query sees before its own, and after it."""
    (before,) = origin(embedding.shape[2:], causal)
    return before, embedding.shape[-1] - 1 - before


def state(
    query: Float[Tensor, "B H N K"],
    value: Float[Tensor, "B U N V"],
    embedding: Exponentials,
    layout: Layout,
    group: dist.ProcessGroup,
    algorithm: str,
    packing: SplitPacking | None = None,
) -> Float[Tensor, "B H N V"]:
    """The position part of causal sums of exponentials: this chunk's, and what earlier chunks' sums add."""
    longest = query.shape[2] if packing is None else max(packing.own_longest, 1)
    kernel = embedding.kernel(longest).to(query.dtype)
    output = _alone(query, value, kernel, packing, True, algorithm)
    if packing is not None:  # later chunks see the last document
        value = value.masked_fill(~packing.in_tail[:, None, :, None], 0)
    sums = _again(embedding.advance, embedding.empty(value), value)  # (B, U, S, V), at the end of the chunk
    everyone = collectives.gathered(sums, group)  # (P, B, U, S, V)
    # Positions from the end of each chunk to the last one before this chunk; later chunks count nothing
    distances = [layout.start - stop for stop in layout.bounds[1:]]
    there = torch.tensor([distance >= 0 for distance in distances], device=value.device)[:, None]  # (P, 1)
    if packing is not None:
        there = packing.linked  # (P, B)
    powers = basis(
        embedding.rates, embedding.frequencies, torch.tensor(distances, device=value.device).clamp_min(0)
    )  # (P, S)
    everyone = everyone.masked_fill(~there[:, :, None, None, None], 0)
    turned = turn(everyone.mT, powers[:, None, None, None], embedding.frequencies.shape[0], sign=-1).mT
    added = _again(embedding.read, query, turned.sum(0), 1)
    return output + (added if packing is None else added.masked_fill(~packing.in_head[:, None, :, None], 0))


def _again(function: Any, *arguments: Any) -> Tensor:
    """Call a function whose intermediate results are large; its backward pass computes them again."""
    result: Tensor = checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
    return result


def channels(
    query: Float[Tensor, "B H N K"],
    value: Float[Tensor, "B U N V"],
    embedding: Float[Tensor, "U K R"],
    layout: Layout,
    group: dist.ProcessGroup,
    causal: bool,
) -> Float[Tensor, "B H N V"]:
    """The position part by lambdas of whole value channels, a few keys at a time."""
    embedding, first = clip(embedding, origin(embedding.shape[2:], causal), (layout.length,))
    deal = _Deal(layout, group, value, query.shape[-1])
    return _Channels.apply(query, deal.values(value), embedding, deal, first[0])


class _Deal:
    """Who has which channels of all positions, beside who has which positions of all channels."""

    def __init__(self, layout: Layout, group: dist.ProcessGroup, value: Tensor, dim_key: int) -> None:
        self.layout, self.group, self.dim_key = layout, group, dim_key
        self.batch, self.intra, self.count, self.dim_value = value.shape
        ranks = group.size()
        widths = [(self.dim_value + index) // ranks for index in reversed(range(ranks))]
        self.widths, self.own = widths, widths[layout.rank]

    def values(self, value: Float[Tensor, "B U N V"]) -> Float[Tensor, "B v U M"]:
        """All positions of this process's channels."""
        pieces = value.split(self.widths, -1)
        shapes = [(self.batch, self.intra, size, self.own) for size in self.layout.sizes]
        everything = torch.cat(collectives.exchanged(pieces, shapes, self.group), 2)
        return everything.permute(0, 3, 1, 2).to(torch.promote_types(value.dtype, torch.float32)).contiguous()

    def to_positions(self, lambdas: Float[Tensor, "B v k M"]) -> Float[Tensor, "B V k N"]:
        """All channels of this process's positions."""
        shapes = [(self.batch, width, lambdas.shape[2], self.count) for width in self.widths]
        return torch.cat(collectives.exchanged(lambdas.split(self.layout.sizes, -1), shapes, self.group), 1)

    def to_channels(self, lambdas: Float[Tensor, "B V k N"]) -> Float[Tensor, "B v k M"]:
        """The way back."""
        shapes = [(self.batch, self.own, lambdas.shape[2], size) for size in self.layout.sizes]
        return torch.cat(collectives.exchanged(lambdas.split(self.widths, 1), shapes, self.group), -1)

    def parts(self) -> Iterator[slice]:
        """Keys whose lambdas are exchanged together; the same on all processes."""
        floats = self.batch * self.layout.length * max(self.widths)
        step = max(1, CHUNK // floats)
        for start in range(0, self.dim_key, step):
            yield slice(start, min(start + step, self.dim_key))


class _Channels(torch.autograd.Function):
    """y_n^h = Σ_k q_nk^h λ_nk, with the lambdas of whole channels; the backward pass computes them again."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, values: Tensor, embedding: Tensor, deal: _Deal, origin: int
    ) -> Float[Tensor, "B H N V"]:
        ctx.save_for_backward(query, values, embedding)
        ctx.deal, ctx.origin = deal, origin
        with without_autocast(query.device):
            output = values.new_zeros(deal.batch, deal.dim_value, query.shape[1], deal.count)  # (B, V, H, N)
            queries = query.permute(0, 3, 1, 2).to(values.dtype)  # (B, K, H, N)
            for keys, correlation in _by_keys(values, embedding, deal, origin):
                lambdas = deal.to_positions(_lambdas(correlation, values))  # (B, V, k, N)
                for index, key in enumerate(range(keys.start, keys.stop)):
                    output.addcmul_(queries[:, None, key], lambdas[:, :, index, None])
        return output.permute(0, 2, 3, 1).to(query.dtype, memory_format=torch.contiguous_format)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, values, embedding = ctx.saved_tensors
        deal: _Deal = ctx.deal
        with without_autocast(query.device):
            grads = grad.permute(0, 3, 1, 2).to(values.dtype)  # (B, V, H, N)
            queries = query.permute(0, 3, 1, 2).to(values.dtype)  # (B, K, H, N)
            grad_query, grad_embedding = values.new_empty(queries.shape), torch.zeros_like(embedding)
            for keys, correlation in _by_keys(values, embedding, deal, ctx.origin):
                lambdas = deal.to_positions(_lambdas(correlation, values))  # (B, V, k, N)
                for index, key in enumerate(range(keys.start, keys.stop)):
                    grad_query[:, key] = torch.einsum("bvhn,bvn->bhn", grads, lambdas[:, :, index])
                    lambdas[:, :, index] = torch.einsum("bvhn,bhn->bvn", grads, queries[:, key])
                whole = deal.to_channels(lambdas)  # the lambdas' gradients, (B, v, k, M)
                if values.numel():
                    correlation.add_gradient(slice(0, deal.own), slice(0, whole.shape[2]), whole.unsqueeze(3))
                    grad_embedding[:, keys] = correlation.embedding_gradient()[:, :, 0].to(embedding.dtype)
            grad_values = correlation.value_gradient()[:, :, :, 0] if values.numel() else torch.zeros_like(values)
        return grad_query.permute(0, 2, 3, 1).to(query.dtype), grad_values.to(values.dtype), grad_embedding, None, None


def _by_keys(values: Tensor, embedding: Tensor, deal: _Deal, origin: int) -> Iterator[tuple[slice, FFTCorrelation]]:
    """The correlation of the values with a few keys at a time, as spectra of all of them would not be shared."""
    correlation = None
    for keys in deal.parts():
        part = as_image(embedding[:, keys].to(values.dtype))
        if correlation is None:
            correlation = FFTCorrelation(part, (1, deal.layout.length), (0, origin))
            if values.numel():
                correlation.load(values.unsqueeze(3))  # (B, v, U, 1, M)
        else:
            correlation.take(part)
        yield keys, correlation


def _lambdas(correlation: FFTCorrelation, values: Tensor) -> Float[Tensor, "B v k M"]:
    keys = correlation.kernel.shape[1]
    if not values.numel():  # more processes than channels
        return values.new_empty(values.shape[0], 0, keys, values.shape[-1])
    return correlation.lambdas(slice(0, values.shape[1]), slice(0, keys)).squeeze(3)

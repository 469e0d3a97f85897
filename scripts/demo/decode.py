"""One more token of a causal layer after a context of N positions, from what the method keeps of it.

A decoder maps x (B, dim) and a state to y (B, dim) and the state after it. `fill` makes the state after a context of
any length at once, with random numbers in it; from `empty` a decoder must compute what its causal layer does at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from benchmarks import peers
from benchmarks.measuring import Step, WrongResultError
from benchmarks.methods import Case
from torch import Tensor, nn

from lambda_seq import LambdaLayer1d
from lambda_seq.models import state_bytes

CHECKED = 70  # positions at which results are checked


class Cache(NamedTuple):
    """Keys and values (B, h, room, d) of `seen` positions; they are written in place."""

    keys: Tensor
    values: Tensor
    seen: int


class AttentionDecoder(nn.Module):
    """Attention of the newest position to all before it, from a cache of keys and values with room for one more."""

    def __init__(self, attend: peers.Attend, case: Case) -> None:
        super().__init__()
        self.heads, self.attend = case.heads, attend
        self.project = nn.Linear(case.dim, 3 * case.dim, bias=False)

    def empty(self, batch: int, room: int = CHECKED) -> Cache:
        """The state before the first position."""
        depth = self.project.in_features // self.heads
        keys, values = (self.project.weight.new_empty(batch, self.heads, room, depth) for _ in range(2))
        return Cache(keys, values, 0)

    def fill(self, batch: int, count: int) -> Cache:
        """The state after `count` positions."""
        cache = self.empty(batch, count + 1)
        return Cache(cache.keys.normal_(), cache.values.normal_(), count)

    def parts(self, x: Tensor) -> Tensor:
        """Query, key and value (3, B, h, T, d) of (B, T, dim)."""
        return self.project(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def forward(self, x: Tensor, state: Cache) -> tuple[Tensor, Cache]:
        """(B, dim), state -> (B, dim), state."""
        query, key, value = self.parts(x[:, None])
        keys, values, seen = state
        keys[:, :, seen : seen + 1], values[:, :, seen : seen + 1] = key, value
        output = self.attend(query, keys[:, :, : seen + 1], values[:, :, : seen + 1])
        return output.flatten(1), Cache(keys, values, seen + 1)

    def whole(self, x: Tensor) -> Tensor:
        """The causal layer, (B, N, dim)."""
        query, key, value = self.parts(x)
        place = torch.arange(x.shape[1], device=x.device)
        visible = self.visible(place[:, None] - place)
        return peers.materialised(query, key, value, visible).transpose(1, 2).flatten(2)

    def visible(self, distance: Tensor) -> Tensor:
        """Whether a position so far back is seen."""
        return distance >= 0


class LocalDecoder(AttentionDecoder):
    """The same to the last `scope` positions, of which the cache keeps all but the newest."""

    def __init__(self, case: Case) -> None:
        super().__init__(peers.fused, case)
        self.scope = case.scope

    def empty(self, batch: int, room: int = 0) -> Cache:
        """The state before the first position."""
        return super().empty(batch, room)

    def fill(self, batch: int, count: int) -> Cache:
        """The state after `count` positions."""
        cache = self.empty(batch, min(count, self.scope - 1))
        return Cache(cache.keys.normal_(), cache.values.normal_(), count)

    def forward(self, x: Tensor, state: Cache) -> tuple[Tensor, Cache]:
        """(B, dim), state -> (B, dim), state."""
        query, key, value = self.parts(x[:, None])
        keys, values = torch.cat([state.keys, key], 2), torch.cat([state.values, value], 2)
        output = self.attend(query, keys, values).flatten(1)
        first = max(0, keys.shape[2] - self.scope + 1)
        return output, Cache(keys[:, :, first:], values[:, :, first:], state.seen + 1)

    def visible(self, distance: Tensor) -> Tensor:
        """Whether a position so far back is seen."""
        return (distance >= 0) & (distance < self.scope)


class LinearDecoder(AttentionDecoder):
    """Linear attention: running sums of exp(k) vᵀ and exp(k), over their largest exponent so far."""

    def __init__(self, case: Case) -> None:
        super().__init__(peers.fused, case)

    def empty(self, batch: int, room: int = 0) -> Any:
        """The state before the first position."""
        depth = self.project.in_features // self.heads
        zeros = self.project.weight.new_zeros(batch, self.heads, depth, depth + 2)
        most, total, sums = zeros.split([1, 1, depth], -1)
        return most - math.inf, total, sums

    def fill(self, batch: int, count: int) -> Any:
        """The state after `count` positions."""
        most, total, sums = self.empty(batch)
        return torch.zeros_like(most), total + count, torch.randn_like(sums)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(B, dim), state -> (B, dim), state."""
        query, key, value = self.parts(x[:, None])
        most, total, sums = state
        key = key.mT  # (B, h, d, 1)
        after = torch.maximum(most, key)
        old, new = (most - after).exp(), (key - after).exp()
        total, sums = total * old + new, sums * old + new * value
        return (query.softmax(-1) @ (sums / total)).flatten(1), (after, total, sums)

    def whole(self, x: Tensor) -> Tensor:
        """The causal layer, with a softmax of its own up to each position."""
        query, key, value = self.parts(x)
        place = torch.arange(x.shape[1], device=x.device)
        hidden = (place[:, None] < place)[..., None]  # (N, M, 1)
        weights = key[:, :, None].masked_fill(hidden, -torch.inf).softmax(3)  # (B, h, N, M, d)
        return torch.einsum("bhnd,bhnmd,bhmv->bhnv", query.softmax(-1), weights, value).transpose(1, 2).flatten(2)


class OursDecoder(nn.Module):
    """Our causal layer, a step at a time."""

    def __init__(self, case: Case, **options: Any) -> None:
        super().__init__()
        room = max(case.size[0] + 1, CHECKED)
        self.layer = LambdaLayer1d(
            case.dim,
            heads=case.heads,
            dim_key=case.dim_key,
            causal=True,
            norm="rms",
            **{"scope": None, "max_length": room, **options},
        )

    def empty(self, batch: int) -> Any:
        """The state before the first position."""
        return self.layer.init_state(batch)

    def fill(self, batch: int, count: int) -> Any:
        """The state after `count` positions."""
        x = self.layer.project.weight.new_empty(batch, min(count, 8), self.layer.dim).normal_()
        _, state = self.layer.step(x, self.empty(batch))
        position: Any = self.layer.position
        reach = 0 if position is None or state.sums is not None else position.reach
        shape = (batch, 1, min(count, reach), self.layer.dim_value)
        return replace(state, seen=count, values=state.values.new_empty(shape).normal_())

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(B, dim), state -> (B, dim), state."""
        return self.layer.step(x, state)

    def whole(self, x: Tensor) -> Tensor:
        """The causal layer by the definition."""
        return peers.ours_by("naive", self.layer, Case((1,)))(x)


class Published(NamedTuple):
    """Values (B, room, V) of `seen` positions, written in place, and running sums of the content lambda."""

    values: Tensor
    seen: int
    total: Tensor
    sums: Tensor


class PublishedDecoder(OursDecoder):
    """The published layer with a cache of values: embeddings of all positions so far gathered, then their lambda."""

    def empty(self, batch: int, room: int = CHECKED) -> Any:
        """The state before the first position."""
        weight, layer = self.layer.project.weight, self.layer
        total = weight.new_zeros(batch, layer.dim_key, 1)
        return Published(
            weight.new_empty(batch, room, layer.dim_value), 0, total, total.expand(-1, -1, layer.dim_value)
        )

    def fill(self, batch: int, count: int) -> Any:
        """The state after `count` positions."""
        state = self.empty(batch, count + 1)
        return Published(state.values.normal_(), count, state.total + count, torch.randn_like(state.sums))

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(B, dim), state -> (B, dim), state."""
        layer: Any = self.layer
        values, seen, total, sums = state
        query, value, key = layer.project(x).split(layer.parts, -1)
        query = layer.norm_query(query).unflatten(-1, (layer.heads, -1))  # (B, H, K)
        values[:, seen] = value = layer.norm_value(value)
        weight = key.exp()[..., None]  # (B, K, 1)
        total, sums = total + weight, sums + weight * value[:, None]
        offsets = torch.arange(seen, -1, -1, device=x.device)
        table = layer.position((layer.position.taps[0],))[0]  # (K, R), the newest last
        embeddings = table.mT[table.shape[1] - 1 - offsets]  # (M, K)
        position = torch.einsum("mk,bmv->bkv", embeddings, values[:, : seen + 1])
        output = torch.einsum("bhk,bkv->bhv", query, sums / total + position)
        return output.flatten(1), Published(values, seen + 1, total, sums)


@dataclass(frozen=True)
class Decoding:
    """A way to decode; time and memory grow with `growth`, powers of the context's length."""

    label: str
    build: Callable[[Case], Any]
    growth: tuple[str, ...] = ("0", "1")
    ours: bool = False


def _local(case: Case) -> OursDecoder:
    return OursDecoder(case, scope=case.scope, max_length=None)


CONSTANT = ("0",)
DECODERS = {
    "materialised": Decoding("materialised attention", partial(AttentionDecoder, peers.materialised)),
    "fused": Decoding("fused attention", partial(AttentionDecoder, peers.fused)),
    "local-attention": Decoding("local attention", LocalDecoder, CONSTANT),
    "linear-attention": Decoding("linear attention", LinearDecoder, CONSTANT),
    "published": Decoding("published lambda", PublishedDecoder),
    "content": Decoding("ours, content only", partial(OursDecoder, position=False), CONSTANT, ours=True),
    "local": Decoding("ours, local", _local, CONSTANT, ours=True),
    "exponential": Decoding("ours, exponential", partial(OursDecoder, position="exponential"), CONSTANT, ours=True),
    "global": Decoding("ours, global table", OursDecoder, ours=True),
}


def new_decoder(name: str, case: Case) -> Any:
    """The decoder in the dtype and on the device of the case, always with the same weights."""
    torch.manual_seed(2102)
    return DECODERS[name].build(case).to(case.device, getattr(torch, case.dtype)).eval()


@torch.inference_mode()
def verify_decoder(name: str, case: Case) -> None:
    """Compare, in float64, a stream of steps with the whole causal layer; raises WrongResultError."""
    small = replace(case, size=(CHECKED,), dtype="float64", scope=min(case.scope, 9))
    decoder = new_decoder(name, small)
    x = torch.randn(2, CHECKED, case.dim, dtype=torch.float64, device=case.device)
    state, outputs = decoder.empty(2), []
    for token in x.unbind(1):
        output, state = decoder(token, state)
        outputs.append(output)
    expected = decoder.whole(x)
    off = float((torch.stack(outputs, 1) - expected).abs().max() / expected.abs().max())
    if not off < 1e-9:
        raise WrongResultError(f"in steps the output is off by {off:.1e}, 1e-09 is allowed")


def step_of_decoder(name: str, case: Case) -> Step:
    """One more token after the context; its `kept` are bytes of weights and state."""
    with torch.inference_mode():
        decoder = new_decoder(name, case)
        state = decoder.fill(case.batch, case.size[0])
        x = torch.randn(case.batch, case.dim, device=case.device).to(getattr(torch, case.dtype))

    @torch.inference_mode()
    def step() -> None:
        decoder(x, state)

    step.kept = state_bytes([*decoder.state_dict().values(), state])  # type: ignore[attr-defined]
    return step

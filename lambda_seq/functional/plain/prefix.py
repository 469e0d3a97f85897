"""The causal content lambda of any length: within short chunks pair by pair, and a prefix of the states between them.

In a chunk of C positions E_nm = exp(k_m − a_n), m ≤ n, is written out, relative to the running maximum a_n, so that
nothing vanishes however keys rise: n · C · k numbers. States of the chunks, relative to the maxima at their ends, are
added up in the same way, by blocks of them, then by blocks of blocks, and what is left all at once. The letters:
`functional/scan.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lambda_seq.functional.chunks import Carry, finite
from lambda_seq.functional.reference import inverse_root

CHUNK = 16  # positions
BLOCK = 64  # states that are added up at once
LEVELS = 2  # of blocks; what is left, one state for 65,536 positions, is added up at once
EMPTY = (0.0, 0.0, -torch.inf)  # the fields of a state of nothing


def scan(
    query: Float[Tensor, "B H N K"],
    key: Float[Tensor, "B U N K"],
    value: Float[Tensor, "B U N V"],
    sums: Float[Tensor, "B U K V"],
    norm: Float[Tensor, "B U 1 K"],
    top: Float[Tensor, "B U 1 K"],
    key_norm: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `lambda_seq::scan` gives: the output (B, H, N, V), and the fields of the state after."""
    wide, length, softmax = sums.dtype, query.shape[2], key_norm == "softmax"
    # An empty one more where the length is not known: torch takes a size of one for something else
    chunks = (length + CHUNK - 1) // CHUNK + (not isinstance(length, int))
    padding = (0, 0, 0, chunks * CHUNK - length)
    hidden = -torch.inf if softmax else 0.0
    queries = F.pad(query.to(wide), padding).transpose(1, 2).unflatten(1, (chunks, CHUNK))  # (B, J, C, H, K)
    keys = F.pad(key.to(wide), padding, value=hidden).unflatten(2, (chunks, CHUNK))  # (B, U, J, C, K)
    values = F.pad(value.to(wide), padding).unflatten(2, (chunks, CHUNK))  # (B, U, J, C, V)
    lower = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=key.device).tril()[..., None]  # (n, m, 1)
    seen = keys.unsqueeze(3).masked_fill(~lower, hidden)  # (B, U, J, C, C, K)
    # Other norms have no maxima: relative to 0 everywhere, nothing shrinks
    tops = seen.amax(4) if softmax else torch.zeros_like(keys)  # (B, U, J, C, K)

    weights = (keys - finite(tops[:, :, :, -1:])).exp() if softmax else keys
    added = {"softmax": weights, "l2": keys.square(), "none": torch.zeros_like(keys)}[key_norm]
    own = Carry(weights.mT @ values, added.sum(3, keepdim=True), tops[:, :, :, -1:])  # of each chunk
    first = Carry(sums, norm, top if softmax else torch.zeros_like(top))
    states = _prefix(Carry(*(torch.cat([one[:, :, None], some], 2) for one, some in zip(first, own, strict=True))))
    before = Carry(*(state.narrow(2, 0, chunks) for state in states))
    after = Carry(*(state.narrow(2, chunks, 1) for state in states))

    reference = finite(torch.maximum(tops, before.top))  # a_n, (B, U, J, C, K)
    shrink = (before.top - reference).exp() if softmax else torch.ones_like(reference)
    pairs = (seen - reference.unsqueeze(4)).exp() if softmax else seen
    squares = pairs.square() if key_norm == "l2" else pairs
    norms = squares.sum(4) + shrink * before.norm
    scale = torch.ones_like(norms)  # 1 / d
    if softmax:
        scale = torch.where(norms > 0, 1 / norms, 0)
    elif key_norm == "l2":
        scale = inverse_root(norms)
    scaled = queries[:, None] * scale.unsqueeze(4)  # q̃, (B, U, J, C, H, K)
    inside = (scaled @ pairs.mT).flatten(3, 4) @ values  # (B, U, J, C·H, V)
    outside = (scaled * shrink.unsqueeze(4)).flatten(3, 4) @ before.sums
    output = (inside + outside).sum(1).unflatten(2, (CHUNK, -1)).flatten(1, 2)  # (B, J·C, H, V)
    output = output.narrow(1, 0, length).to(query.dtype).transpose(1, 2)
    return output, after.sums.squeeze(2), after.norm.squeeze(2), after.top.squeeze(2) if softmax else top.clone()


def _prefix(states: Carry, levels: int = LEVELS) -> Carry:
    """The states (B, U, J, ·, ·) of all chunks up to each."""
    count = states.top.shape[2]
    if not levels or (isinstance(count, int) and count <= BLOCK):
        return _together(states)
    blocks = (count + BLOCK - 1) // BLOCK + (not isinstance(count, int))
    padding = (0, 0, 0, 0, 0, blocks * BLOCK - count)
    padded = (F.pad(part, padding, value=fill) for part, fill in zip(states, EMPTY, strict=True))
    inside = _together(Carry(*(part.unflatten(2, (blocks, BLOCK)) for part in padded)))  # (B, U, J / 64, 64, ·, ·)
    ends = _prefix(Carry(*(part[:, :, :, -1] for part in inside)), levels - 1)
    earlier = (part.narrow(2, 0, blocks - 1) for part in ends)  # of each block, what the one before ends with
    before = (F.pad(part, (0, 0, 0, 0, 1, 0), value=fill) for part, fill in zip(earlier, EMPTY, strict=True))
    found = _added(Carry(*(part.unsqueeze(3) for part in before)), inside)
    return Carry(*(part.flatten(2, 3).narrow(2, 0, count) for part in found))


def _together(states: Carry) -> Carry:
    """The same along the third dimension from behind, for each j a sum over all i up to it: J² · k numbers."""
    places = torch.arange(states.top.shape[-3], device=states.top.device)
    later = (places > places[:, None])[..., None]  # (j, i, 1)
    seen = states.top.squeeze(-2).unsqueeze(-3).masked_fill(later, -torch.inf)  # (..., j, i, K)
    tops = seen.amax(-2)  # (..., j, K)
    weights = (seen - finite(tops).unsqueeze(-2)).exp()
    both = torch.cat([states.sums, states.norm.mT], -1)  # (..., i, K, V + 1)
    found = (weights.movedim(-1, -3) @ both.transpose(-3, -2)).transpose(-3, -2)  # (..., j, K, V + 1)
    depth = states.sums.shape[-1]
    return Carry(found[..., :depth], found[..., depth:].mT, tops.unsqueeze(-2))


def _added(first: Carry, second: Carry) -> Carry:
    """Both, relative to the greater maximum."""
    top = torch.maximum(first.top, second.top)
    one, other = ((state.top - finite(top)).exp() for state in (first, second))
    return Carry(one.mT * first.sums + other.mT * second.sums, one * first.norm + other * second.norm, top)

"""The causal content lambda of any length: within short chunks pair by pair, and a prefix of the states between them.

In a chunk of C positions E_nm = exp(k_m − a_n), m ≤ n, is written out, relative to the running maximum a_n, so that
nothing vanishes however keys rise: n · C · k numbers. States of the chunks, relative to the maxima at their ends, are
added up by doubling: after i rounds each has those of the 2^i chunks that end with it (W. D. Hillis and G. L. Steele,
1986). The letters: `functional/scan.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lambda_seq.functional.chunks import Carry, finite
from lambda_seq.functional.reference import inverse_root

CHUNK = 16  # positions
ROUNDS = 24  # of doubling, where the number of chunks is not known: enough for CHUNK · 2²⁴ positions


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


def _prefix(states: Carry) -> Carry:
    """The states (B, U, J, ·, ·) of all chunks up to each."""
    count = states.top.shape[2]
    places = torch.arange(count, device=states.top.device)
    for step in (1 << index for index in range(ROUNDS)):
        if isinstance(count, int) and step >= count:
            break
        earlier = Carry(*(state.index_select(2, (places - step).clamp_min(0)) for state in states))
        there = (places >= step)[:, None, None]
        earlier_top = earlier.top.masked_fill(~there, -torch.inf)
        top = torch.maximum(earlier_top, states.top)
        shrinks = [(one - finite(top)).exp() for one in (earlier_top, states.top)]
        sums = shrinks[0].mT * earlier.sums + shrinks[1].mT * states.sums
        states = Carry(sums, shrinks[0] * earlier.norm + shrinks[1] * states.norm, top)
    return states

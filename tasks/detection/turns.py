"""Lists of several processes as the one that a single process would have."""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import Any

from torch import distributed


def in_turn(own: list[Any]) -> list[Any]:
    """Items of all processes, which have taken turns: the first of each, then the second of each, and so on.

    All processes have to ask; each of them has all items then.
    """
    if not distributed.is_available() or not distributed.is_initialized():
        return own
    every: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(every, own)
    nothing = object()
    return [item for item in chain.from_iterable(zip_longest(*every, fillvalue=nothing)) if item is not nothing]

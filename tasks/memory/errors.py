"""Errors that say that there is no memory left, whoever raises them."""

from __future__ import annotations

import re

import torch

# What torch and its libraries say when they get none. oneDNN says the last two where its code finds no room; it has no
# "primitive descriptor" for an operation that it does not know.
WORDS = re.compile(
    "can't allocate memory|not enough memory|out of memory|bad_alloc|nsufficient memory|Cannot allocate memory"
    "|Unable to allocate|[Ff]ailed to allocate|tried to allocate|could not create a memory"
    "|could not create a primitive(?! descriptor)|could not execute a primitive"
)


def says_no_memory(error: BaseException) -> bool:
    """Whether an error is of memory: of Python, of torch on a GPU, or of its libraries on the CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, (RuntimeError, OSError)) and WORDS.search(str(error)) is not None

"""What is said of data while they are loaded."""

from __future__ import annotations

import logging

from lightning.pytorch.utilities import rank_zero_only

log = logging.getLogger(__name__)
_said: set[str] = set()


@rank_zero_only
def note(message: str) -> None:
    """Say in one line what was guessed, left out or changed: once, and by one of several processes."""
    if message not in _said:
        _said.add(message)
        log.warning("%s", message)


def some(names: list[str], most: int = 10) -> str:
    """A list of names for a message, of which the last may be left out."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

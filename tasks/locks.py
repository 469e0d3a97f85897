"""A file that is one process's alone while it has it open."""

from __future__ import annotations

from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def lock(file: IO[Any]) -> None:
    """Lock an open file until it is closed, however its process ends; files opened by the same process exclude too.

    Raises:
        BlockingIOError: it is locked.
        OSError: it cannot be, on this system or by its file system.
    """
    if fcntl is None:
        raise OSError("Python has no locks on this system")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

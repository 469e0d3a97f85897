"""Memory that a process may still take: of the machine, or as much as its container or its shell allows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
# Files of a control group, of version 2 and of version 1: the limit, what is taken, and what of that goes when needed
VERSIONS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory() -> int:
    """Bytes that this process may take: what the machine has, and control groups and `ulimit -v` leave."""
    rooms = [_kilobytes(Path("/proc/meminfo"), "MemAvailable") or _all_memory(), *_rooms_of_groups()]
    if (room := _room_of_shell()) is not None:
        rooms.append(room)
    return max(min(rooms), 0)


def available_on_gpu(index: int | None = None) -> int:
    """Bytes of a GPU that are free, or that torch holds without using them."""
    import torch

    held = torch.cuda.memory_reserved(index) - torch.cuda.memory_allocated(index)
    return torch.cuda.mem_get_info(index)[0] + held


def _rooms_of_groups(root: Path = CGROUPS, own: Path = OWN) -> Iterator[int]:
    """What is left in each control group of this process, as far as there are limits."""
    for folder in _groups(root, own):
        for limit, taken, cache in VERSIONS:
            most, now = _number(folder / limit), _number(folder / taken)
            if most is not None and now is not None:
                yield most - now + (_entry(folder / "memory.stat", cache) or 0)


def _groups(root: Path, own: Path) -> Iterator[Path]:
    """Folders of the control groups of memory that this process is in, and of those above."""
    with suppress(OSError):
        for line in own.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            top = root / "memory" if controllers else root
            folder = top / path.lstrip("/")
            if not folder.is_dir():  # a container sees its own group as the top one
                folder = top
            while True:
                yield folder
                if folder == top:
                    break
                folder = folder.parent


def _number(file: Path) -> int | None:
    """The number in a file; None without one, as of a limit that is "max"."""
    with suppress(OSError, ValueError):
        return int(file.read_text(encoding="utf-8"))
    return None


def _entry(file: Path, name: str) -> int | None:
    """The number behind a name in a file."""
    with suppress(OSError, ValueError):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.split()[:1] == [name]:
                return int(line.split()[1])
    return None


def _room_of_shell() -> int | None:
    """What `ulimit -v` leaves of address space; None where there is no such limit."""
    try:
        import resource
    except ModuleNotFoundError:  # of Windows
        return None
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most == resource.RLIM_INFINITY:
        return None
    return most - (_kilobytes(Path("/proc/self/status"), "VmSize") or 0)


def _kilobytes(file: Path, name: str) -> int | None:
    """Bytes of an entry of files such as /proc/meminfo; None where there is none."""
    found = _entry(file, f"{name}:")
    return None if found is None else found * 1024


def _all_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

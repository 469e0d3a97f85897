"""What becomes of memory on the CPU that a step frees: it stays with the process, and the next step takes it again.

By default glibc gives large blocks back to the system at once, which hands them out again page by page, zeroed: a
quarter of a step's time on raw audio, little on others (`scripts/kept_memory.py`).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
NEVER = -1  # trims nothing
MOST = 2**31 - 1  # bytes of a block that comes from the heap, as large as the call can say; older versions: 32 MiB
OLDER = 2**25
CHOSEN = ("MALLOC_", "GLIBC_TUNABLES")  # variables by which a person has chosen already


def keep_freed(variables: Mapping[str, str] = os.environ) -> bool:
    """Let this process keep what it frees; whether it will.

    It will not where there is no glibc, and where variables such as MALLOC_TRIM_THRESHOLD_ say what is to happen.
    """
    if any(name.startswith(CHOSEN) for name in variables):
        return False
    try:
        library = ctypes.CDLL(None)
        _, mallopt = library.gnu_get_libc_version, library.mallopt
    except (AttributeError, OSError, TypeError):  # another C library; on Windows None is no name of one
        return False
    large = mallopt(M_MMAP_THRESHOLD, MOST) or mallopt(M_MMAP_THRESHOLD, OLDER)
    return bool(large and mallopt(M_TRIM_THRESHOLD, NEVER))

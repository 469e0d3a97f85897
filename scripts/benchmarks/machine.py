"""The machine under a measurement: its name, its free memory, a budget, peaks, and what others do on it meanwhile."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

LIBC = ctypes.CDLL(None)
DISTURBING = 0.2  # share of the cores that a measurement needs which others may take
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def synchronise(device: str) -> None:
    """Wait for what a GPU still has to do."""
    if device == "cuda":
        torch.cuda.synchronize()


def timed(run: Callable[[], object], device: str) -> float:
    """Seconds that a call takes, with what it leaves a GPU to do."""
    synchronise(device)
    start = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - start


def give_back_freed(at_once: bool) -> None:
    """Whether freed memory goes back to the system at once, so that peaks are of what is in use (glibc).

    Otherwise as glibc does by itself after a while: it keeps blocks of up to 32 MiB, which is faster. Of a measurement
    of many steps it is to be called first of all: what was freed before stays as holes in the heap, which later blocks
    fill, and which do not go back.
    """
    if hasattr(LIBC, "mallopt"):
        LIBC.mallopt(M_MMAP_THRESHOLD, 2**17 if at_once else 2**25)
        LIBC.mallopt(M_TRIM_THRESHOLD, 2**17 if at_once else 2**26)


class Peak:
    """Peak memory from here on: of the process (Linux: VmHWM, set back first), or of torch's allocator on a GPU."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
            return
        gc.collect()
        if platform.system() == "Linux":
            if hasattr(LIBC, "malloc_trim"):
                LIBC.malloc_trim(0)  # freed memory that the process still holds would hide the peak
            with suppress(OSError):  # not allowed: a peak below an earlier one is then not seen
                Path("/proc/self/clear_refs").write_text("5")
        self.before = _proc_status("VmRSS") or _max_rss()

    def read(self) -> tuple[int, int]:
        """Peak bytes over what was there at the beginning, and in all."""
        on_gpu = self.device == "cuda"
        highest = torch.cuda.max_memory_allocated() if on_gpu else _proc_status("VmHWM") or _max_rss()
        return max(0, highest - self.before), highest


def _max_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def _proc_status(name: str) -> int | None:
    """Bytes of an entry of /proc/self/status; None where there is none."""
    return _kilobytes("/proc/self/status", name)


def _kilobytes(file: str, name: str) -> int | None:
    with suppress(OSError):
        for line in Path(file).read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


@contextmanager
def budget(size: int, device: str = "cpu") -> Iterator[None]:
    """Let torch take `size` bytes more, not one beyond: allocations fail as they do when memory is full.

    On Linux a limit on the process's data; other systems have none, and their own memory is the budget. On a GPU the
    limit is torch's allocator's.
    """
    if device == "cuda":
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + size) / whole))
        yield
        return
    data = _proc_status("VmData")
    if data is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = data + size if hard == resource.RLIM_INFINITY else min(data + size, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def busy_seconds() -> float | None:
    """Seconds that all cores together have been at work since the start of the machine; None where not known."""
    try:
        user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    except (OSError, ValueError):
        return None
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


class Others:
    """What other programs do on this machine from here on; time that a host machine takes counts with them."""

    def __init__(self) -> None:
        self._begin, self._busy, self._own = time.perf_counter(), busy_seconds(), time.process_time()

    def share(self) -> float | None:
        """Their share of all cores, from 0 to 1; None where not known."""
        busy = busy_seconds()
        if busy is None or self._busy is None:
            return None
        whole = (time.perf_counter() - self._begin) * (os.cpu_count() or 1)
        return max(0.0, (busy - self._busy - (time.process_time() - self._own)) / whole)


def disturbs(share: float | None, threads: int) -> bool:
    """Whether others leave so few cores that a measurement with so many threads has to share them."""
    cores = os.cpu_count() or 1
    return share is not None and share * cores > cores - min(threads, cores) + DISTURBING * min(threads, cores)


def load() -> str:
    """How busy the machine is, in words; "" where not known, and where it is not."""
    with suppress(OSError, AttributeError):
        wanted, cores = os.getloadavg()[0], os.cpu_count() or 1
        if wanted > DISTURBING * cores:
            return f"the machine is busy: its load is {wanted:.1f}, of {cores} cores"
    return ""


def available_memory() -> int:
    """Bytes that are free on this machine, or all it has where that is not known."""
    return _kilobytes("/proc/meminfo", "MemAvailable") or _all_memory()


def _all_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def describe(threads: int, device: str) -> dict[str, Any]:
    """What figures depend on besides the code."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        name = models[0].split(":")[1].strip() if models else name
    found = {
        "processor": name,
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(_all_memory() / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    return found

"""How a section of the GPU report is run: cell after cell in a process of its own, as long as there is time.

A cell is what is recorded at once and never twice. One that fails costs itself; one that ends the process, or leaves
the GPU unusable, costs a new process for those behind it.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any

import torch
from benchmarks.measuring import Outcome, outcome_of
from benchmarks.recording import Record
from benchmarks.reporting import Table

LOADING = 300.0  # seconds that a process may take to begin its first cell
BROKEN = ("CUDA error", "AcceleratorError", "CUBLAS_STATUS", "cuDNN error")  # after which a process is of no use
PRELOAD = ("torch", "numpy", "rich", "torch._dynamo", "lambda_seq", "lambda_seq.models", "gpu.sections")


@dataclass(frozen=True)
class Settings:
    """What all cells are told.

    Args:
        device: "cuda" or "cpu".
        tiny: sizes that a core of a CPU does in seconds, to see whether everything works.
        scale: of the times that cells take by themselves, 1 for nine minutes in all.
        threads: of torch.
    """

    device: str = "cuda"
    tiny: bool = False
    scale: float = 1.0
    threads: int = 1

    def sized(self, whole: Any, tiny: Any) -> Any:
        """One of two, by `tiny`."""
        return tiny if self.tiny else whole

    @property
    def patience(self) -> float:
        """Seconds over which a step is repeated."""
        return 0.005 if self.tiny else 0.15 * self.scale


Part = Table | str


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Args:
        name: of the command line.
        title: of the report.
        seconds: of nine minutes; what a section leaves goes to those behind it.
        cells: keys of what is to be measured, the most important first.
        run: one of them; what it returns is recorded. Importable, as it travels to another process.
        parts: tables, and sentences, of what was recorded.
        grace: seconds that the last cell may take longer.
    """

    name: str
    title: str
    seconds: float
    cells: Callable[[Settings], Sequence[Record]]
    run: Callable[[Record, Settings], Record]
    parts: Callable[[Sequence[Record], Settings], Iterable[Part]]
    grace: float = 15.0


Keep = Callable[[Record, Record], None]


def run_section(section: Section, keys: Sequence[Record], settings: Settings, seconds: float, keep: Keep) -> None:
    """Run cells, keeping each as soon as it is done, until all are or the time is over.

    Args:
        section: of the cells.
        keys: of those that there are no records of.
        settings: what cells are told.
        seconds: after which no cell is begun; that processes load what they need is not counted.
        keep: takes key and record.
    """
    left, waiting = seconds, list(keys)
    while waiting and left > 0:
        done, begun = 0, 0.0
        for outcome, first, taken in _outcomes(section, waiting, settings, left):
            found = {"status": outcome.status, "message": outcome.message, "taken": round(taken, 2)}
            keep(waiting[done], {**found, **(outcome.value or {})})
            done, begun = done + 1, first
        if not done:
            return
        waiting, left = waiting[done:], left - (time.monotonic() - begun)


def _outcomes(
    section: Section, keys: Sequence[Record], settings: Settings, seconds: float
) -> Iterator[tuple[Outcome, float, float]]:
    """What cells come to in one process, when its first one began, and their own seconds; it may end before they do."""
    context = _context(settings.device)
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(send, section.run, list(keys), settings, seconds))
    process.start()
    send.close()
    first, begun = time.monotonic(), time.monotonic()
    until, working, done = first + LOADING, False, 0
    try:
        while True:
            if not receive.poll(max(0.0, until - time.monotonic())):
                if working:
                    taken = time.monotonic() - begun
                    yield Outcome("out of time", f"not done after {taken:.0f} s"), first, taken
                return
            try:
                word, outcome = receive.recv()
            except EOFError:
                process.join()
                if process.exitcode and (working or not done):
                    yield _ended(process.exitcode), first, time.monotonic() - begun
                return
            if word == "begun":
                begun = time.monotonic()
                if not done:
                    first, until = begun, begun + seconds + section.grace
            elif word == "done":
                done += 1
                yield outcome, first, time.monotonic() - begun
            working = word == "begun"
    finally:
        if process.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # with what cells have started
        process.kill()
        process.join()
        receive.close()


def _ended(code: int) -> Outcome:
    """Of a process that ended in the middle of a cell."""
    if code == -signal.SIGKILL:
        return Outcome("out of memory", "the system ended the process")
    return Outcome("failed", f"the process ended with {signal.Signals(-code).name if code < 0 else code}")


def _context(device: str) -> SpawnContext | ForkServerContext:
    """New processes on a GPU, whose driver survives no fork; on a CPU, forks of one that has loaded everything."""
    if device == "cuda":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    return context


def _work(
    send: Connection,
    run: Callable[[Record, Settings], Record],
    keys: Sequence[Record],
    settings: Settings,
    seconds: float,
) -> None:
    """In the new process: the cells, as long as there is time and the device works."""
    end = time.monotonic() + seconds
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    warnings.simplefilter("ignore")  # those of other packages
    torch.set_num_threads(settings.threads)
    for key in keys:
        if time.monotonic() > end:
            break
        send.send(("begun", None))
        outcome = outcome_of(run, key, settings)
        send.send(("done", outcome))
        if any(words in outcome.message for words in BROKEN):
            break
        gc.collect()
        if settings.device == "cuda":
            torch.cuda.synchronize()  # an error that nobody has seen yet ends the process here, not the next cell
            torch.cuda.empty_cache()

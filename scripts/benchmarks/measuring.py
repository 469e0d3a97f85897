"""Time and peak memory of one step of something, in a process of its own.

A fresh process starts without another method's cache, fragments or leaks. In it, in this order: a warm-up, which loads
code and checks results at a small size; the inputs; the baseline; one step under a budget, whose peak is recorded; more
steps, of which the fastest counts. Seconds and bytes throughout.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, Literal

import torch

from benchmarks.machine import Others, Peak, budget, give_back_freed, timed
from lambda_seq.tasks.memory.errors import says_no_memory

Step = Callable[[], object]
Status = Literal[
    "measured", "predicted", "out of memory", "out of time", "wrong result", "not installed", "failed", "not run"
]

# What processes have loaded as they begin, and what torch loads as it is first used
PRELOAD = ("torch", "numpy", "torch.fx.experimental.symbolic_shapes", "torch._dynamo", "lambda_seq")


class WrongResultError(Exception):
    """A method computes something else than it should; it is not timed."""


class NotInstalledError(Exception):
    """An optional package is missing; the message says how to install it."""


@dataclass(frozen=True)
class Job:
    """What to measure. Both functions must be importable, as they travel to another process.

    Args:
        prepare: makes the inputs and returns one step.
        warm_up: runs first, at a small size; raises WrongResultError if a result is wrong.
    """

    prepare: Callable[[], Step]
    warm_up: Callable[[], object] | None = None


@dataclass(frozen=True)
class Limits:
    """Where and how long to measure.

    Args:
        budget: bytes that the process may take for inputs and steps together.
        deadline: seconds until the process is ended.
        seconds: repeat the step until so much time is spent in it, three times at least unless that takes 10 s.
        threads: of torch.
        device: "cpu" or "cuda".
    """

    budget: int
    deadline: float = 600.0
    seconds: float = 2.0
    threads: int = 2
    device: str = "cpu"


@dataclass(frozen=True)
class Measurement:
    """What was found; numbers are None unless `status` is "measured" or "predicted"."""

    status: Status
    message: str = ""
    seconds: float | None = None  # the fastest step
    median: float | None = None  # the median step
    repeats: int = 0
    peak_bytes: int | None = None  # of the first step, over inputs and parameters
    total_bytes: int | None = None  # the same with inputs, parameters and Python
    held_bytes: int | None = None  # of all steps, over inputs and parameters, with freed memory that malloc keeps
    others: float | None = None  # share of all cores that other processes took meanwhile

    def __bool__(self) -> bool:
        return self.status in ("measured", "predicted")


def measure(job: Job, limits: Limits) -> Measurement:
    """Time and peak memory of a job's step, in a fresh process."""
    outcome = in_fresh_process(_measure_here, job, limits, limits=limits)
    if outcome.status == "measured":
        return Measurement(**outcome.value)
    return Measurement(outcome.status, outcome.message)


@dataclass(frozen=True)
class Outcome:
    """What a function in a fresh process came to."""

    status: Status
    message: str = ""
    value: Any = None


def in_fresh_process(
    function: Callable[..., Any], *arguments: Any, limits: Limits, preload: Sequence[str] = PRELOAD
) -> Outcome:
    """Run an importable function in a process that has computed nothing, within the deadline of `limits`.

    On a CPU it is a copy of one that has loaded the modules of `preload`, always the same ones in a program, which
    starts in a fraction of the time; for a GPU, whose driver survives no fork, it is a new Python.
    """
    context = _context(limits.device, preload)
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(send, limits.threads, function, arguments), daemon=True)
    process.start()
    send.close()
    try:
        if not receive.poll(limits.deadline):
            return Outcome("out of time", f"not done after {limits.deadline:.0f} s")
        outcome: Outcome = receive.recv()
        return outcome
    except EOFError:
        process.join()
        code = process.exitcode or 0
        if code == -signal.SIGKILL:
            return Outcome("out of memory", "the system ended the process")
        return Outcome("failed", f"the process ended with {signal.Signals(-code).name if code < 0 else code}")
    finally:
        process.kill()
        process.join()
        receive.close()


def _context(device: str, preload: Sequence[str]) -> SpawnContext | ForkServerContext:
    if device == "cuda" or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context


def recorded(function: Callable[..., Any], *arguments: Any, limits: Limits) -> dict[str, Any]:
    """What to keep of a function in a fresh process: "status", "message", and the dict it returns if all is well."""
    outcome = in_fresh_process(function, *arguments, limits=limits)
    return {"status": outcome.status, "message": outcome.message, **(outcome.value or {})}


def _child(send: Connection, threads: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    warnings.simplefilter("ignore")  # those of other packages
    torch.set_num_threads(threads)
    send.send(outcome_of(function, *arguments))


def outcome_of(function: Callable[..., Any], *arguments: Any) -> Outcome:
    """What a function comes to in this process: its value, or what went wrong."""
    try:
        return Outcome("measured", value=function(*arguments))
    except WrongResultError as error:
        return Outcome("wrong result", str(error))
    except NotInstalledError as error:
        return Outcome("not installed", str(error))
    except Exception as error:
        status: Status = "out of memory" if says_no_memory(error) else "failed"
        return Outcome(status, f"{type(error).__name__}: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:300]


def _measure_here(job: Job, limits: Limits) -> dict[str, Any]:
    if job.warm_up is not None:
        job.warm_up()
    gc.collect()
    with budget(limits.budget, limits.device):
        step = job.prepare()
        give_back_freed(at_once=True)
        memory = Peak(limits.device)
        others = Others()
        times = [timed(step, limits.device)]
        peak, total = memory.read()
        give_back_freed(at_once=False)
        while sum(times) < limits.seconds or (len(times) < 3 and sum(times) < 10):
            times.append(timed(step, limits.device))
    share = others.share()
    held = memory.read()[0]
    return asdict(
        Measurement("measured", "", min(times), statistics.median(times), len(times), peak, total, held, share)
    )

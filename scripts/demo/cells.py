"""Cells of the memory demo: a section, a method and a length. How one is measured, which is next, what is predicted."""

from __future__ import annotations

import gc
import itertools
import math
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from benchmarks.machine import Others, Peak, budget, disturbs, give_back_freed, timed
from benchmarks.measuring import PRELOAD as MODULES
from benchmarks.measuring import Limits, Outcome, Step, in_fresh_process
from benchmarks.methods import Case
from benchmarks.recording import Record

from demo.decode import DECODERS, step_of_decoder, verify_decoder
from demo.encoder import step_of_encoder, step_of_layer, verify_in_encoder, verify_in_layer
from demo.layers import METHODS

GROWTH: dict[str, Callable[[Any], Any]] = {
    "0": lambda n: n**0.0,
    "1": lambda n: n,
    "log": lambda n: n * np.log2(n),
    "1.5": lambda n: n**1.5,
    "2": lambda n: n**2,
}
FAILED = ("out of memory", "wrong result", "failed", "not installed")  # longer ones are not tried
# Loaded before processes begin, with what a first backward pass and optimiser load
PRELOAD = (*MODULES, "demo.cells")


@dataclass(frozen=True)
class Section:
    """A thing to measure of each method: `step(name, case)`, and its check `verify(name, case)`."""

    title: str
    step: Callable[[str, Case], Step]
    verify: Callable[[str, Case], None]
    share: float  # of the time of a run, with what sections before it have left
    decoding: bool = False

    def methods(self, dims: int) -> list[str]:
        """Names of the methods for sequences (1) or images (2)."""
        if self.decoding:
            return list(DECODERS) if dims == 1 else []
        return [name for name, method in METHODS.items() if dims in method.dims]

    def label(self, name: str) -> str:
        """What tables call a method."""
        return DECODERS[name].label if self.decoding else METHODS[name].label

    def growth(self, name: str, quantity: str) -> tuple[str, ...]:
        """Powers of the number of positions that "peak_bytes" or "seconds" may grow with."""
        if self.decoding:
            return DECODERS[name].growth
        return METHODS[name].memory if quantity == "peak_bytes" else METHODS[name].time


SECTIONS = {
    "layer": Section("A training step of one layer", step_of_layer, verify_in_layer, 0.7),
    "decode": Section("One more token of one layer", step_of_decoder, verify_decoder, 0.1, decoding=True),
    "encoder": Section("A training step of a whole encoder", step_of_encoder, verify_in_encoder, 0.2),
}


class Patience(NamedTuple):
    """How long to wait: `limit` seconds for one step; repeat steps while they have taken less than `repeat`."""

    limit: float
    repeat: float


def key_of(section: str, method: str, case: Case) -> Record:
    """What a cell's record is found by."""
    return {"section": section, "method": method, **asdict(case), "size": list(case.size)}


def case_of(key: Record) -> Case:
    """The case in a cell's key."""
    return Case(
        **{name: value for name, value in key.items() if name not in ("section", "method", "size")},
        size=tuple(key["size"]),
    )


def positions_of(record: Record) -> int:
    """Positions of a cell."""
    return math.prod(record["key"]["size"])


# Measuring


def verify(section: str, method: str, case: Case, limits: Limits) -> Record:
    """Check a method in a process of its own: a record without numbers, "measured" if it computes what it should."""
    outcome = in_fresh_process(SECTIONS[section].verify, method, case, limits=limits, preload=PRELOAD)
    return {"status": outcome.status, "message": outcome.message}


def measure(key: Record, patience: Patience, limits: Limits) -> Record:
    """Peak memory and time of a cell, or why there are none, in a process of its own under the budget of `limits`.

    What other programs disturb is measured again, once; the better one of both counts, and says if it was disturbed.
    """
    found = _measure_once(key, patience, limits)
    threads = limits.threads if limits.device == "cpu" else 1  # one feeds a GPU
    if disturbs(found["others"], threads):
        again = _measure_once(key, patience, limits)
        if again["status"] == "measured":
            # Others only add to times: the shorter one is nearer to what a step takes
            found = min(found, again, key=lambda one: (disturbs(one["others"], threads), one["seconds"]))
        found["taken"] = 2
    return {**found, "disturbed": disturbs(found["others"], threads)}


def _measure_once(key: Record, patience: Patience, limits: Limits) -> Record:
    limits = replace(limits, deadline=limits.deadline + patience.limit)
    outcome = in_fresh_process(measure_here, key, patience, limits.budget, limits=limits, preload=PRELOAD)
    status, message = how_it_ended(outcome, f"one step not done after {patience.limit:g} s")
    numbers = {"seconds": None, "peak_bytes": None, "repeats": 0, "others": None, **(outcome.value or {})}
    return {"status": status, "message": message, **numbers, "budget": limits.budget, "limit": patience.limit}


def how_it_ended(outcome: Outcome, too_slow: str) -> tuple[str, str]:
    """Status and message of a process that `at_most` may have ended."""
    if outcome.status == "failed" and signal.SIGALRM.name in outcome.message:
        return "too slow", too_slow
    return ("too slow" if outcome.status == "out of time" else outcome.status), outcome.message


def measure_here(key: Record, patience: Patience, size: int) -> Record:
    """The same in this process, which a step that takes too long ends by SIGALRM.

    The peak counts all that the process takes beyond Python, torch and loaded code: weights, inputs and one step; the
    budget is for the same. Freed memory goes back to the system at once while it is measured.
    """
    gc.freeze()  # what is loaded is not garbage; looking through it three times would take longer than most steps
    prepare, case = SECTIONS[key["section"]].step, case_of(key)
    short = replace(case, size=tuple(min(length, 16) for length in case.size))
    warm = prepare(key["method"], short)
    warm()
    del warm
    gc.collect()
    with budget(size, case.device):
        give_back_freed(at_once=True)
        before = Peak(case.device).before
        step = prepare(key["method"], case)
        memory = Peak(case.device)
        memory.before = before
        others = Others()
        with at_most(patience.limit):
            times = [timed(step, case.device)]
        peak = max(memory.read()[0], getattr(step, "kept", 0))
        give_back_freed(at_once=False)
        while sum(times) < patience.repeat and len(times) < 1000:
            times.append(timed(step, case.device))
        share = others.share()
    return {"seconds": min(times), "peak_bytes": peak, "repeats": len(times), "others": share}


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """End this process by SIGALRM if that takes longer, in the middle of an operation too."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


# Which lengths


def to_try(
    records: Sequence[Record], positions: int, budget: int, growth: Mapping[str, Sequence[str]], patience: Patience
) -> bool:
    """Whether a method should be tried at a length, after what its shorter ones have come to.

    Not after a failure. After a step that took too long, or if this one is predicted to take half as long again as
    allowed, only if the length should not fit into the budget, which is then seen.
    """
    shorter = [record for record in records if positions_of(record) < positions]
    if any(record["status"] in FAILED for record in shorter):
        return False
    found = {quantity: points(shorter, quantity) for quantity in growth}
    bytes_, time = (predictor(found[quantity], growth[quantity]) for quantity in ("peak_bytes", "seconds"))
    if bytes_ is not None and bytes_(positions) > budget:
        return True
    if any(record["status"] == "too slow" for record in shorter):
        return False
    return time is None or time(positions) < 1.5 * patience.limit


# Predictions


def points(records: Sequence[Record], quantity: str) -> list[tuple[int, float]]:
    """What was measured: (positions, value), shortest first."""
    return sorted((positions_of(one), float(one[quantity])) for one in records if one["status"] == "measured")


def predictor(found: Sequence[tuple[int, float]], growth: Sequence[str]) -> Callable[[int], float] | None:
    """A sum of some of these powers of N, none with a negative factor and the last always there, by least squares of
    the relative errors; None without points."""
    if not found:
        return None
    lengths, values = (np.array(column, float) for column in zip(*found, strict=True))
    *lower, last = growth
    best: tuple[float, list[str], Any] | None = None
    for count in range(min(len(lower), len(found) - 1) + 1):
        for chosen in itertools.combinations(lower, count):
            names = [*chosen, last]
            matrix = np.stack([GROWTH[name](lengths) / values for name in names], 1)
            factors, *_ = np.linalg.lstsq(matrix, np.ones(len(lengths)), rcond=None)
            error = float(np.square(matrix @ factors - 1).sum())
            if (factors >= 0).all() and (best is None or error < best[0]):
                best = error, names, factors
    assert best is not None  # one power with positive values has a positive factor
    _, names, factors = best
    return lambda n: float(sum(factor * GROWTH[name](float(n)) for name, factor in zip(names, factors, strict=True)))


def check(found: Sequence[tuple[int, float]], growth: Sequence[str]) -> tuple[int, float] | None:
    """How far a prediction from all but the two longest lengths is off at the longest, 4 times as long as it has seen.

    (positions, relative error with its sign); None if fewer than five lengths were measured.
    """
    if len(found) < 5:
        return None
    expected = predictor(found[:-2], growth)
    assert expected is not None
    positions, value = found[-1]
    return positions, expected(positions) / value - 1


def slope(found: Sequence[tuple[int, float]], last: int = 5) -> float | None:
    """Power of N that the last lengths grow with, by least squares of logarithms; None for fewer than two."""
    if len(found) < 2:
        return None
    lengths, values = (np.log(np.array(column, float)) for column in zip(*found[-last:], strict=True))
    return float(np.polyfit(lengths, values, 1)[0])

"""Section memory: lengths double until each method fails, by the memory of the device: the cells of memory_demo.py."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from benchmarks.machine import available_memory
from benchmarks.measuring import outcome_of
from benchmarks.methods import Case
from benchmarks.recording import Record
from benchmarks.reporting import seconds, size
from demo.cells import SECTIONS, Patience, key_of, measure_here, to_try
from demo.layers import METHODS
from demo.picture import Panel, draw
from demo.picture import size_text as bytes_text
from demo.report import QUANTITIES, Results, short_size, summary
from memory_demo import line_of

from gpu.running import Part, Section, Settings

FIRST, LAST = 12, 26  # powers of two of the lengths
SLOW = 2.5  # seconds of a step, after which longer ones are not tried
SHARE = 0.9  # of the memory that is free


def cells(settings: Settings) -> list[Record]:
    """Methods, each at all lengths: what a length comes to decides whether the next is tried."""
    names = settings.sized([name for name, method in METHODS.items() if 1 in method.dims], ["materialised", "local"])
    return [{"method": name} for name in names]


def lengths(settings: Settings) -> list[int]:
    """Positions, rising."""
    return [2**power for power in settings.sized(range(FIRST, LAST + 1), (6, 7))]


def case(settings: Settings) -> Case:
    """What all cells share."""
    sizes = {"dim": 16, "heads": 2, "dim_key": 4} if settings.tiny else {}
    return Case((1,), dtype="bfloat16" if settings.device == "cuda" else "float32", device=settings.device, **sizes)


def run(key: Record, settings: Settings) -> Record:
    """Check a method, then double the length until it fails."""
    base, name = case(settings), key["method"]
    if settings.device == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0)
        budget = int(SHARE * torch.cuda.mem_get_info()[0])
    else:
        budget = settings.sized(int(SHARE * available_memory()), 2**31)
    SECTIONS["layer"].verify(name, base)
    found: list[Record] = []
    growth = {quantity: SECTIONS["layer"].growth(name, quantity) for quantity in QUANTITIES}
    patience = Patience(SLOW, settings.sized(0.05, 0.0))
    for length in lengths(settings):
        cell = key_of("layer", name, Case(**{**vars(base), "size": (length,)}))
        if not to_try(found, length, budget, growth, patience):
            break
        outcome = outcome_of(measure_here, cell, Patience(60.0, patience.repeat), budget)
        numbers = {"seconds": None, "peak_bytes": None, "repeats": 0, **(outcome.value or {})}
        slow = outcome.status == "measured" and numbers["seconds"] > SLOW
        found.append({"key": cell, "status": outcome.status, "message": outcome.message, **numbers})
        if settings.device == "cuda":
            torch.cuda.empty_cache()
        if slow or outcome.status != "measured":
            break
    return {"cells": found, "budget": budget}


def results(records: Sequence[Record], settings: Settings) -> Results | None:
    """As the memory demo has them; None without any."""
    found = [cell for one in records for cell in one.get("cells", ())]
    if not found:
        return None
    sizes = sorted({tuple(cell["key"]["size"]) for cell in found})
    return Results(["layer"], sizes, found, max(one.get("budget", 0) for one in records))


def parts(records: Sequence[Record], settings: Settings) -> Iterator[Part]:
    """What each method comes to."""
    whole = results(records, settings)
    if whole is not None:
        yield f"Each cell may take {size(whole.budget)}, weights and inputs included; the last takes over {SLOW:g} s."
        yield summary(whole, "layer")
    yield from (f"{one['key']['method']}: {one['status']}, {one['message']}" for one in records if "cells" not in one)


def picture(file: Path, records: Sequence[Record], settings: Settings) -> None:
    """Memory and time of each method against length."""
    whole = results(records, settings)
    if whole is None or not any(one["status"] == "measured" for one in whole.records):
        return
    units = {"peak_bytes": bytes_text, "seconds": seconds}
    panels = [
        Panel(
            title,
            [line_of(whole, "layer", name, quantity) for name in whole.methods("layer")],
            (float(whole.budget), f"budget {size(whole.budget)}") if quantity == "peak_bytes" else None,
            units[quantity],
        )
        for quantity, title in (("peak_bytes", "Peak memory against length"), ("seconds", "Time against length"))
    ]
    base = case(settings)
    subtitle = f"{base.dim} channels, {base.heads} heads, {base.dtype}, local scope {base.scope}"
    positions = [math.prod(one) for one in whole.sizes]
    draw(file, SECTIONS["layer"].title, subtitle, panels, positions, [short_size(one) for one in whole.sizes])
    file.with_suffix(".svg").unlink(missing_ok=True)


SECTION = Section("memory", "Memory until it is full", 50, cells, run, parts)

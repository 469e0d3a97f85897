"""Section long: one training step of a layer at a million positions and more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from benchmarks import comparing, peers
from benchmarks.machine import Peak, timed
from benchmarks.methods import Case
from benchmarks.recording import Record
from benchmarks.reporting import Table, seconds, size

from gpu.running import Part, Section, Settings

LENGTHS = (2**20, 2**22)
NAMES = ("local", "global", "content")


def cells(settings: Settings) -> list[Record]:
    """Layers, and lengths."""
    dtypes = ("bfloat16", "float32") if settings.device == "cuda" else ("float32",)
    sizes = {"dim": 16, "heads": 2, "dim_key": 4} if settings.tiny else {}
    return [
        comparing.key_of(name, Case((length,), dtype=dtype, device=settings.device, **sizes))
        for dtype in dtypes
        for name in settings.sized(NAMES, NAMES[:1])
        for length in settings.sized(LENGTHS, (256, 1024))
    ]


def run(key: Record, settings: Settings) -> Record:
    """Peak over inputs and weights of the first step, and the time of the second."""
    case, method = comparing.case_of(key), peers.METHODS[key["method"]]
    method.verify(case)
    method.prepare(replace(case, size=(64,)))()
    step = method.prepare(case)
    memory = Peak(case.device)
    first = timed(step, case.device)
    peak, whole = memory.read()
    return {"first": first, "seconds": timed(step, case.device), "peak_bytes": peak, "total_bytes": whole}


def growth(records: Sequence[Record]) -> float | None:
    """The greatest ratio of peaks over the ratio of lengths, of layers that were measured at both."""
    ratios = []
    for one in records:
        for other in records:
            alike = {**one["key"], "size": 0} == {**other["key"], "size": 0}
            shorter, longer = one["key"]["size"][0], other["key"]["size"][0]
            if alike and shorter < longer and one.get("peak_bytes") and other.get("peak_bytes"):
                ratios.append(other["peak_bytes"] / one["peak_bytes"] / (longer / shorter))
    return max(ratios, default=None)


def parts(records: Sequence[Record], settings: Settings) -> Iterator[Part]:
    """One table."""
    rows = [
        (
            f"{peers.METHODS[one['key']['method']].label}, {one['key']['dtype']}",
            f"{one['key']['size'][0]:,}",
            size(one.get("peak_bytes")),
            size(one.get("total_bytes")),
            seconds(one.get("seconds")),
            "" if one["status"] == "measured" else f"{one['status']}: {one['message']}",
        )
        for one in records
    ]
    columns = ("layer", "positions", "peak over inputs", "in all", "a step", "not measured")
    yield Table("A training step of one layer with its projections, 256 channels", columns, tuple(rows))


SECTION = Section("long", "A million positions", 20, cells, run, parts)

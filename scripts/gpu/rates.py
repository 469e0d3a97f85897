"""Section rates: what `LF.calibrate` measures, whether the plan then chooses well, rates fitted to whole algorithms."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple
from typing import Any

import torch
from benchmarks import plan_grid
from benchmarks.comparing import case_of, key_of
from benchmarks.methods import Case
from benchmarks.recording import Record
from benchmarks.reporting import Table

from gpu.running import Part, Section, Settings
from lambda_seq import functional as LF
from lambda_seq.functional.rates import cache_file

ENOUGH = 1.3  # a choice within so many times the fastest is good
POINTS = (  # size, batch, dim, scope; None global
    *(((16384,), 1, 256, 127), ((65536,), 1, 256, 127), ((16384,), 1, 256, None), ((65536,), 1, 256, 23)),
    *(((56, 56), 32, 64, 23), ((14, 14), 128, 256, 23), ((4096,), 8, 256, None), ((1024,), 64, 256, 31)),
    *(((4096,), 1, 256, 3), ((262144,), 1, 256, 1023), ((64, 64), 8, 64, None), ((28, 28), 64, 128, 7)),
)
TINY = (((256,), 1, 16, 3), ((128,), 1, 16, None))


def cells(settings: Settings) -> list[Record]:
    """Calibrations, then points of the plan's grid."""
    dtypes = ("bfloat16", "float32", "float16") if settings.device == "cuda" else ("float32",)
    found: list[Record] = [{"what": "calibrate", "dtype": dtype} for dtype in dtypes]
    for dtype in dtypes[:2]:
        for size, batch, dim, scope in settings.sized(POINTS, TINY):
            width = 2 * max(size) - 1 if scope is None else scope
            case = Case(size, batch, dim, scope=width, dtype=dtype, device=settings.device)
            found.append({"what": "point", **key_of("plan", case)})
    return found


def run(key: Record, settings: Settings) -> Record:
    """One of them."""
    if key["what"] == "calibrate":
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = asdict(LF.calibrate(settings.device, getattr(torch, key["dtype"])))
        return {"rates": found, "said": [str(one.message) for one in said]}
    case = point(key)
    return {"passes": plan_grid.measure_point(case, longest=settings.sized(0.5, 0.05))}


def point(key: Record) -> Case:
    """The case of a point."""
    return case_of({name: value for name, value in key.items() if name != "what"})


def measured(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Points as the plan's grid has them."""
    return [
        {"key": {name: value for name, value in one["key"].items() if name != "what"}, **one["passes"]}
        for one in records
        if "passes" in one
    ]


def choices(records: Sequence[Record]) -> list[float]:
    """Time of what the plan chose over that of the fastest, of each pass of each point."""
    return plan_grid.ratios(measured(records))


def constants(name: str, found: LF.Rates) -> str:
    """A line of `lambda_seq/functional/rates.py`."""
    numbers = ('float("inf")' if math.isinf(value) else f"{value:.3g}" for value in astuple(found))
    return f'"{name}": Rates({", ".join(numbers)}),'


def parts(records: Sequence[Record], settings: Settings) -> Iterator[Part]:
    """Lines to paste, and a table of choices."""
    lines = [
        f"{constants(settings.device, LF.Rates(**one['rates']))}  # {one['key']['dtype']}, by calibrate()"
        for one in records
        if "rates" in one
    ]
    yield from (f"calibrate() warned: {words}" for one in records for words in one.get("said", ()))
    points = measured(records)
    for dtype in dict.fromkeys(one["key"]["dtype"] for one in points):
        some = [one for one in points if one["key"]["dtype"] == dtype]
        try:
            fitted = plan_grid.fit(some)
        except ImportError:
            lines.append("# scipy is not installed: no rates fitted to whole algorithms")
            continue
        better = sum(ratio <= ENOUGH for ratio in plan_grid.ratios(some, fitted))
        lines.append(
            f"{constants(settings.device, fitted)}  # {dtype}, fitted to {len(some)} shapes, with which {better} of "
            f"{2 * len(some)} choices are within {ENOUGH}"
        )
    if lines:
        yield "For `DEFAULTS` of `lambda_seq/functional/rates.py`:\n\n```python\n" + "\n".join(lines) + "\n```"
        yield f"`{cache_file().name}` has what `LF.calibrate` found; LAMBDA_SEQ_CACHE names its folder."
    if points:
        columns = ("shape", "pass", "chosen", "time", "fastest", "ratio", "not measured")
        found = choices(records)
        within = sum(ratio <= ENOUGH for ratio in found)
        yield f"{within} of {len(found)} choices within {ENOUGH} times the fastest; worst {max(found):.2f}."
        yield Table("Choices, the worst first", columns, tuple(plan_grid.rows(points)))


SECTION = Section("rates", "Rates, and the plan's choices", 35, cells, run, parts)

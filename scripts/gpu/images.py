"""Section images: two-dimensional layers with projections, scope 23, beside pip's lambda-networks and the limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from benchmarks import comparing, peers
from benchmarks.methods import Case, Method, layer_method
from benchmarks.recording import Record
from benchmarks.reporting import Table, number, seconds, size
from torch import nn

from gpu.running import Part, Section, Settings
from gpu.timing import fastest, kernels

CASES = (  # as in a ResNet-50's stages, then a square of global scope
    *(Case((56, 56), batch=32, dim=64, scope=23), Case((28, 28), batch=32, dim=128, scope=23)),
    *(comparing.PHOTO, comparing.SQUARE),
)
NAMES = ("local", "convolved", "lambda-networks", "products", "copy")


def convolved(case: Case) -> nn.Module:
    """Our layer by direct convolutions, cuDNN's on a GPU: how the paper computes it."""
    layer: Any = peers.ours("local", case)
    layer.algorithm = "convolution"
    return layer


METHODS: dict[str, Method] = {
    **peers.METHODS,
    "convolved": layer_method("lambda convolution, as in the paper", convolved, partial(peers.ours_by, "naive")),
}


def cells(settings: Settings) -> list[Record]:
    """Each method in each case."""
    dtypes = ("bfloat16", "float32") if settings.device == "cuda" else ("float32",)
    cases = settings.sized(CASES, (Case((9, 9), batch=2, dim=16, scope=5),))
    return [
        comparing.key_of(name, replace(case, dtype=dtype, device=settings.device))
        for case in cases
        for dtype in dtypes
        for name in settings.sized(NAMES, NAMES[:3])
    ]


def run(key: Record, settings: Settings) -> Record:
    """Check, then time a training step."""
    method, case = METHODS[key["method"]], comparing.case_of(key)
    method.verify(case)
    step = method.prepare(case)
    step()
    if case.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    found = {"both": fastest(step, case.device, settings.patience), "both_kernels": kernels(step, case.device, 0.1)}
    peak = torch.cuda.max_memory_allocated() if case.device == "cuda" else None
    return {**found, "peak_bytes": peak}


def ratio(records: Sequence[Record], case: Case, ours: str = "local", peer: str = "lambda-networks") -> float | None:
    """How many times faster than a peer, as called; None if one of them has no right result."""
    found = [
        one["both"]
        for name in (ours, peer)
        for one in records
        if one["key"] == comparing.key_of(name, case) and one["status"] == "measured"
    ]
    return found[1] / found[0] if len(found) == 2 else None


def parts(records: Sequence[Record], settings: Settings) -> Iterator[Part]:
    """A table for each case."""
    for case in dict.fromkeys(comparing.case_of(one["key"]) for one in records):
        rows = []
        for one in records:
            if comparing.case_of(one["key"]) == case:
                method = METHODS[one["key"]["method"]]
                against = ratio(records, case, peer=one["key"]["method"]) if not method.limit else None
                rows.append(
                    (
                        method.label,
                        seconds(one.get("both")),
                        seconds(one.get("both_kernels")),
                        "" if against is None or one["key"]["method"] == "local" else f"{number(against)}×",
                        size(one.get("peak_bytes")),
                        "" if one["status"] == "measured" else f"{one['status']}: {one['message']}",
                    )
                )
        title = f"{case}, dim {case.dim}, scope {case.scope}, {case.dtype}, forward + backward"
        columns = ("method", "as called", "kernels", "ours is faster", "memory", "not measured")
        yield Table(title, columns, tuple(rows))


SECTION = Section("images", "Two-dimensional layers", 20, cells, run, parts)

"""Seconds of calls on a device: as they are made, and of their kernels alone."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from benchmarks.machine import synchronise, timed

ROUND = 0.02  # seconds of a round of calls, which are timed together
CALLS = 200  # in it at most


def fastest(run: Callable[[], object], device: str, seconds: float) -> float:
    """Time of a call in the fastest of several rounds, with what it takes to make it; after two calls to warm up."""
    run()
    once = timed(run, device)
    count = max(1, min(CALLS, int(min(ROUND, seconds) / max(once, 1e-9))))
    best, until = once, time.perf_counter() + seconds
    while True:
        best = min(best, _round(run, count, device) / count)
        if time.perf_counter() > until:
            return best


def _round(run: Callable[[], object], count: int, device: str) -> float:
    if device != "cuda":
        begin = time.perf_counter()
        for _ in range(count):
            run()
        return time.perf_counter() - begin
    begin_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin_event.record()
    for _ in range(count):
        run()
    end_event.record()
    end_event.synchronize()
    return begin_event.elapsed_time(end_event) / 1e3


def kernels(run: Callable[[], object], device: str, seconds: float) -> float | None:
    """Time of a call's kernels, without the time to launch them: of a CUDA graph of it.

    None where there is no GPU, or where a call cannot be recorded, as it asks the GPU for a number.
    """
    if device != "cuda":
        return None
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            run()
    except RuntimeError:
        synchronise(device)
        return None
    return fastest(graph.replay, device, seconds)

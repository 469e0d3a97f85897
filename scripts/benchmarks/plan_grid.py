"""Does the plan choose well? Every candidate measured over a grid of shapes, and the rates that fit the times best."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.comparing import case_of
from benchmarks.machine import timed
from benchmarks.methods import Case
from benchmarks.reporting import seconds
from lambda_seq import functional as LF
from lambda_seq.functional.plan import candidates
from lambda_seq.functional.position.registry import REGISTRY
from lambda_seq.functional.problem import Problem, Sizes
from lambda_seq.functional.rates import rates

PASSES = ("forward", "backward")
SLOWEST = 6.0  # candidates predicted to take more times the best's time (and 5 ms) are not measured
ROUNDS = 7

LENGTHS, DIMS, SCOPES = (256, 1024, 4096, 16384, 65536), (64, 256, 1024), (3, 23, 127, 1023, None)
IMAGES = (  # batch, side, dim, scope
    *((8, 7, 512, 23), (8, 14, 256, 23), (8, 28, 128, 23), (8, 56, 64, 23), (8, 56, 64, 7), (8, 56, 64, 3)),
    *((32, 8, 64, 7), (1, 64, 64, None), (1, 128, 64, 23), (4, 28, 128, 7), (16, 14, 256, 7), (2, 112, 64, 23)),
)
BATCHES = ((64, 64, 64, 31), (64, 784, 64, 31), (16, 2048, 64, 31), (8, 1024, 128, None), (32, 1024, 64, 23))


def grid(case: Case, full: bool) -> Iterator[Case]:
    """Cases with the heads, depth and device of the one given; without `full`, some of them in its dtype."""
    for dtype in ("float32", "bfloat16") if full else (case.dtype,):
        case = replace(case, dtype=dtype)
        lengths, dims = (LENGTHS, DIMS) if full else (LENGTHS[:4], DIMS[:2])
        scopes = SCOPES if full else (3, 127, None)
        sequences = [(1, (n,), dim, scope) for n in lengths for dim in dims for scope in scopes]
        sequences += [(batch, (n,), dim, scope) for batch, n, dim, scope in (BATCHES if full else BATCHES[:1])]
        images = [(b, (side, side), dim, scope) for b, side, dim, scope in (IMAGES if full else IMAGES[3:8])]
        seen = set()
        for batch, size, dim, scope in sequences + images:
            widest = 2 * size[0] - 1  # as good as global
            point = replace(case, batch=batch, size=size, dim=dim, scope=min(scope or widest, widest))
            if point not in seen:
                seen.add(point)
                yield point


def describe(case: Case) -> str:
    """A case of the grid in a few words."""
    scope = "global" if case.scope == 2 * case.size[0] - 1 else f"scope {case.scope}"
    return f"{case}, dim {case.dim}, {scope}, {case.dtype}"


def measure_point(case: Case, longest: float) -> dict[str, Any]:
    """Time every candidate, forward and backward apart; only the promising, and none over `longest` predicted seconds.

    Returns:
        For each pass the algorithm chosen, and seconds predicted and measured by candidate.
    """
    *tensors, grad = _tensors(case, case.device)
    plan = LF.plan(tensors[0], None, tensors[1], tensors[2])
    _load_libraries(case, [candidate.name for candidate in plan.candidates])
    passes: dict[str, Any] = {}
    for index, chosen in enumerate((plan.algorithm, plan.backward_algorithm)):
        predicted = {candidate.name: candidate.seconds[index] for candidate in plan.candidates}
        most = min(longest, SLOWEST * min(predicted.values()) + 0.005)
        promising = [name for name, guess in predicted.items() if guess <= most or name == chosen]
        measured = _times([_pass(index, name, tensors, grad) for name in promising], case.device)
        passes[PASSES[index]] = {
            "chosen": chosen,
            "predicted": predicted,
            "measured": dict(zip(promising, measured, strict=True)),
        }
    return passes


def _load_libraries(case: Case, algorithms: Sequence[str]) -> None:
    """Run everything once at a small size: a process's first FFT takes more than a second, whatever its length."""
    *tensors, grad = _tensors(replace(case, batch=1, size=tuple(min(32, n) for n in case.size), scope=3), case.device)
    for name in algorithms:
        for index in range(len(PASSES)):
            _pass(index, name, tensors, grad)()


def _tensors(case: Case, device: str) -> list[Tensor]:
    """Query, value, embedding and a gradient for the output, laid out in memory as the layers do."""
    options: dict[str, Any] = {"device": device, "dtype": getattr(torch, case.dtype)}
    dim_value = case.dim // case.heads

    def channels_last(channels: int, depth: int) -> Tensor:
        return torch.randn(case.batch, *case.size, channels, depth, **options).movedim(-2, 1)

    taps = [case.scope] * len(case.size)
    embedding = torch.randn(1, case.dim_key, *taps, **options).requires_grad_()
    query, value = channels_last(case.heads, case.dim_key), channels_last(1, dim_value)
    return [query.requires_grad_(), value.requires_grad_(), embedding, channels_last(case.heads, dim_value)]


def _pass(index: int, algorithm: str, tensors: Sequence[Tensor], grad: Tensor) -> Callable[[], object]:
    query, value, embedding = tensors

    def forward() -> Tensor:
        return LF.lambda_layer(query, None, value, embedding, algorithm=algorithm)

    if index == 0:
        return torch.no_grad()(forward)
    output = forward()
    return lambda: torch.autograd.grad(output, tensors, grad, retain_graph=True)


def _times(runs: Sequence[Callable[[], object]], device: str) -> list[float]:
    """The fastest of some rounds for each, in turns, so that a disturbance meets all of them."""
    best = [float("inf")] * len(runs)
    start = time.perf_counter()
    for turn in range(ROUNDS + 1):
        for index, run in enumerate(runs):
            elapsed = timed(run, device)
            if turn > 0 or elapsed > 1:  # a slow one needs no warm-up
                best[index] = min(best[index], elapsed)
        if max(best) < float("inf") and time.perf_counter() - start > 1.5 * len(runs):
            break
    return best


def rows(records: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A table of all choices, the worst first."""
    found = []
    for record in records:
        for name in PASSES:
            measured, chosen = record[name]["measured"], record[name]["chosen"]
            best = min(measured, key=measured.__getitem__)
            skipped = ", ".join(sorted(record[name]["predicted"].keys() - measured.keys()))
            ratio = measured[chosen] / measured[best]
            fastest = f"{best} {seconds(measured[best])}"
            case = case_of(record["key"])
            found.append(
                (ratio, (describe(case), name, chosen, seconds(measured[chosen]), fastest, f"{ratio:.2f}", skipped))
            )
    return [row for _, row in sorted(found, key=lambda pair: -pair[0])]


def ratios(records: Sequence[dict[str, Any]], speed: LF.Rates | None = None) -> list[float]:
    """Chosen over best, for each pass of each record; `speed` chooses anew, by other rates."""
    found = []
    for record in records:
        for index, name in enumerate(PASSES):
            measured, chosen = record[name]["measured"], record[name]["chosen"]
            if speed is not None:
                case = case_of(record["key"])
                where = _sizes(case), torch.device(case.device), getattr(torch, case.dtype)
                again = [one for one in candidates(*where, speed) if one.name in measured]
                chosen = min(again, key=lambda candidate: candidate.seconds[index]).name
            found.append(measured[chosen] / min(measured.values()))
    return found


def _sizes(case: Case) -> Sizes:
    query, value, embedding, _ = _tensors(replace(case, batch=1), "meta")
    return Problem.of(query, None, value, embedding).sizes._replace(B=case.batch)


def present_rates(case: Case) -> LF.Rates:
    """What the plan goes by now."""
    return rates(torch.device(case.device), getattr(torch, case.dtype))


def fit(records: Sequence[dict[str, Any]]) -> LF.Rates:
    """The rates with which the counted work explains the measured times best, in relative terms.

    Least squares without negative times per unit, points far off weighing less in each round. Work that no candidate
    measured has gets a rate of infinity.
    """
    import numpy as np
    from scipy.optimize import nnls

    rows = []
    for record in records:
        sizes = _sizes(case_of(record["key"]))
        for index, name in enumerate(PASSES):
            for algorithm, measured in record[name]["measured"].items():
                if not REGISTRY[algorithm].trusted:
                    continue  # a kernel has a factor of its own, by `calibrate`
                count = REGISTRY[algorithm].count
                work = count(sizes, False)[0]
                if index == 1:
                    work = count(sizes, True)[0] - work
                rows.append([amount / measured for amount in astuple(work)])
    shares = np.array(rows)  # (measurements, kinds of work): per measured second
    scale = shares.max(0)
    scale[scale == 0] = 1
    weights = np.ones(len(rows))
    per_unit = np.zeros(len(scale))
    for _ in range(20):
        scaled, _ = nnls(shares / scale * weights[:, None], weights)
        per_unit = scaled / scale
        off = np.abs(np.log(np.maximum(shares @ per_unit, 1e-3)))
        weights = 1 / np.sqrt(np.maximum(off, 0.1))
    return LF.Rates(*(float(1 / unit) if unit else float("inf") for unit in per_unit))

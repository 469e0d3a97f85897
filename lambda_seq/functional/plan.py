"""The cost model: what each algorithm would do for a problem, how long that takes here, and which one is fastest.

A candidate's work is counted, not guessed: multiply-adds of matrix products, of convolutions, operations of FFTs,
numbers streamed through cache, calls of torch; each algorithm counts its own. Its time is the work divided by six rates
of the machine (`rates.py`); that of a kernel, corrected by how long it took when it was tried there (`calibration.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lambda_seq.functional import applying
from lambda_seq.functional.algorithm import REGISTRIES, Algorithm
from lambda_seq.functional.calibration import kernels, not_used
from lambda_seq.functional.position.registry import REGISTRY
from lambda_seq.functional.problem import Problem, Sizes
from lambda_seq.functional.rates import Rates, guessed, rates
from lambda_seq.functional.work import Work


@dataclass(frozen=True)
class Candidate:
    """One algorithm for the position lambda, or for the content lambda, forward and backward.

    The two passes stand alone, as a backward pass starts from the inputs: each may take the algorithm that suits it.
    """

    name: str
    multiply_adds: tuple[float, float]
    seconds: tuple[float, float]  # predicted
    peak_bytes: tuple[float, float]  # temporaries, results and gradients beside the inputs


@dataclass(frozen=True)
class Plan:
    """Which algorithm computes the position lambda, and the content lambda, in each pass; prints as a table."""

    problem: Problem
    candidates: tuple[Candidate, ...]  # fastest forward first; empty where there is nothing to choose
    unsupported: tuple[tuple[str, str], ...] = ()  # other algorithms, and why they do not apply
    unused: tuple[tuple[str, str], ...] = ()  # those that apply, and why "auto" does not take them all the same
    guessed: bool = False  # whether nothing was measured on a device of this type, so that times are guesses
    content: tuple[Candidate, ...] = ()  # for the content lambda, fastest forward first

    @property
    def algorithm(self) -> str:
        """Name of the fastest candidate forward; "content" where there is no position lambda, or no position."""
        return self.candidates[0].name if self.candidates else "content"

    @property
    def backward_algorithm(self) -> str:
        """Name of the fastest candidate backward."""
        if not self.candidates:
            return "content"
        return min(self.candidates, key=lambda candidate: candidate.seconds[1]).name

    @property
    def content_algorithms(self) -> tuple[str, ...]:
        """Names of the fastest candidates for the content lambda, forward and backward; empty without one."""
        if not self.content:
            return ()
        return self.content[0].name, min(self.content, key=lambda candidate: candidate.seconds[1]).name

    def __str__(self) -> str:
        problem, sizes = self.problem, self.problem.sizes
        head = (
            f"lambda layer, batch {sizes.B}, size {_by(problem.size)}, heads {sizes.H}, k {sizes.K}, v {sizes.V}, "
            f"intra {sizes.U}, {problem.dtype}, {problem.device}"
        )
        reasons = [f"{name} not used: {reason}" for name, reason in self.unused]
        reasons += [f"{name} does not apply: {reason}" for name, reason in self.unsupported]
        content = []
        if len(self.content) > 1:
            forward, backward = self.content_algorithms
            content = [f"content lambda: {forward} forward, {backward} backward"]
        if not self.candidates or problem.scope is None:
            what = "nothing in it" if problem.scope else "content only: one reduction over positions"
            return "\n".join([head, *(content or [f"{what}, nothing to choose"]), *reasons])
        causal = ", causal" if problem.causal else ""
        columns = ("multiply-adds", "peak memory", "predicted")
        lines = [
            head,
            f"position lambda, scope {_by(problem.scope)}{causal}: the least predicted time wins, in each pass",
            f"{'':<15}{'forward':>14}{'':>28}{'backward':>16}",
            f"{'algorithm':<15}" + "".join(f"{column:>14}" for column in columns * 2),
        ]
        for candidate in self.candidates:
            line = f"{candidate.name:<15}"
            for index, chosen in enumerate((self.algorithm, self.backward_algorithm)):
                line += (
                    f"{candidate.multiply_adds[index]:>14.3g}{_bytes(candidate.peak_bytes[index]):>14}"
                    f"{candidate.seconds[index] * 1e3:>11.3g} ms"
                )
                line = f"{line[:-3]}*ms" if candidate.name == chosen else line
            lines.append(line)
        lines.append("* chosen")
        if self.guessed:
            lines.append(
                f"predicted times are guesses: nothing was measured on {problem.device}; run "
                f"lambda_seq.functional.calibrate({str(problem.device)!r}, {problem.dtype})"
            )
        return "\n".join([*lines, *content, *reasons])


def plan(
    query: Float[Tensor, "B H *N K"],
    key: Float[Tensor, "B U *N K"] | None,
    value: Float[Tensor, "B U *N V"],
    embedding: Float[Tensor, "U K *R"] | None,
    *,
    mask: Bool[Tensor, "B *N"] | None = None,
    causal: bool = False,
    key_norm: str = "softmax",
    device: torch.device | str | None = None,
) -> Plan:
    """What `lambda_layer` would do with these arguments, and what each algorithm would cost.

    Args:
        query, key, value, embedding, mask, causal, key_norm: as for `lambda_layer`. Only their shapes and dtypes count:
            tensors on the meta device ask about sizes that do not fit in memory.
        device: where it would run; None for the tensors' own, or the CPU for meta tensors.

    Returns:
        The plan; `str(plan)` is a table, `plan.algorithm` and `plan.backward_algorithm` are what "auto" takes.
    """
    problem = Problem.of(query, key, value, embedding, mask, causal, key_norm)
    if device is None:
        device = "cpu" if query.device.type == "meta" else query.device
    problem = problem.on(torch.device(device))
    if problem.empty:
        return Plan(problem, ())
    parts = {"position": problem.sizes._replace(content=problem.content and not causal)} if problem.scope else {}
    if problem.content:
        parts["scan" if causal else "content"] = problem.sizes.of_content(causal)
    device, dtype = problem.device, problem.dtype
    speed, slowness = rates(device, dtype), kernels(device, dtype)
    found: dict[str, tuple[Candidate, ...]] = {}
    unsupported: dict[str, str] = {}
    unused: dict[str, str] = {}
    for part, sizes in parts.items():
        usable: list[Algorithm] = []
        for name, algorithm in REGISTRIES[part].items():
            reason = algorithm.supports(sizes, device, dtype)
            if reason is not None:
                unsupported[name] = reason
                continue
            reason = not_used(algorithm, device, dtype)
            if reason is not None:
                unused[name] = reason
            else:
                usable.append(algorithm)
        found[part] = candidates(sizes, device, dtype, speed, usable, slowness)
    return Plan(
        problem,
        found.pop("position", ()),
        tuple(unsupported.items()),
        tuple(unused.items()),
        guessed(device, dtype),
        *found.values(),
    )


def fastest(
    sizes: Sizes,
    device: torch.device,
    dtype: torch.dtype,
    backward: bool,
    registry: Mapping[str, Algorithm] = REGISTRY,
) -> Algorithm:
    """The algorithm of a registry to take for one pass, at the current rates of the device."""
    proved = kernels(device, dtype)
    usable = tuple(algorithm for name, algorithm in registry.items() if algorithm.trusted or name in proved)
    return _fastest(sizes, device, dtype, rates(device, dtype), backward, usable, tuple(proved.items()))


@lru_cache(maxsize=4096)
def _fastest(
    sizes: Sizes,
    device: torch.device,
    dtype: torch.dtype,
    speed: Rates,
    backward: bool,
    algorithms: tuple[Algorithm, ...],
    slowness: tuple[tuple[str, tuple[float, float]], ...],
) -> Algorithm:
    found = candidates(sizes, device, dtype, speed, algorithms, dict(slowness))
    if not found:
        raise ValueError(f"algorithm='auto': no algorithm is for {sizes}, {dtype}, {device}; use algorithm='naive'")
    name = min(found, key=lambda candidate: candidate.seconds[backward]).name
    return next(algorithm for algorithm in algorithms if algorithm.name == name)


def candidates(
    sizes: Sizes,
    device: torch.device,
    dtype: torch.dtype,
    speed: Rates,
    algorithms: Sequence[Algorithm] | None = None,
    slowness: Mapping[str, tuple[float, float]] | None = None,
) -> tuple[Candidate, ...]:
    """All algorithms that apply, or those of some, at the given rates; fastest forward first.

    `slowness` says how much longer than the rates predict some take, forward and backward.
    """
    found = []
    output, training = dtype.itemsize * sizes.outputs, dtype.itemsize * (sizes.outputs + sizes.gradients)
    for algorithm in REGISTRY.values() if algorithms is None else algorithms:
        if algorithm.supports(sizes, device, dtype) is not None:
            continue
        (forward, temporary), (both, both_temporary) = (_count(algorithm, sizes, done) for done in (False, True))
        backward = both - forward
        slower = (slowness or {}).get(algorithm.name, (1.0, 1.0))
        found.append(
            Candidate(
                algorithm.name,
                (forward.multiply_adds, backward.multiply_adds),
                (forward.seconds(speed) * slower[0], backward.seconds(speed) * slower[1]),
                (4 * temporary + output, 4 * both_temporary + training),
            )
        )
    return tuple(sorted(found, key=lambda candidate: candidate.seconds[0]))


def _count(algorithm: Algorithm, sizes: Sizes, backward: bool) -> tuple[Work, float]:
    """Of an algorithm, and of adding a content lambda to what it gives where it does not do that itself."""
    work, floats = algorithm.count(sizes, backward)
    if algorithm.fuses or not sizes.content:
        return work, floats
    more, beside = applying.count(sizes, backward)
    return work + more, max(floats, beside)


def _by(size: tuple[int, ...]) -> str:
    return " × ".join(map(str, size))


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"

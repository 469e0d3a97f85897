"""The cost model: what each algorithm would do for a problem, how long that takes here, and which one is fastest.

A candidate's work is counted, not guessed: multiply-adds of matrix products, of convolutions, operations of FFTs,
numbers streamed through cache, calls of torch. Its time is the work divided by six rates of the machine (`rates.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lambda_seq.functional import channelwise, windows
from lambda_seq.functional.banded import block_length, largest_temporary
from lambda_seq.functional.dense import CHUNK as DENSE_CHUNK
from lambda_seq.functional.fft import transform_lengths
from lambda_seq.functional.operators import chunk_floats
from lambda_seq.functional.problem import Problem
from lambda_seq.functional.rates import Rates, rates

ROW = 180  # measured


@dataclass(frozen=True)
class Work:
    """What has to be done, in one pass; adds up."""

    products: float = 0  # multiply-adds of matrix products
    streamed: float = 0  # numbers read and written by everything that is no product, and by products beside them
    transforms: float = 0  # operations of FFTs, 2.5 · P · log2 P each
    convolutions: float = 0  # multiply-adds of convolutions forward
    convolution_gradients: float = 0  # multiply-adds of convolutions backward
    calls: float = 0  # torch operations

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def __sub__(self, other: Work) -> Work:
        return Work(*(getattr(self, name) - getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def multiply_adds(self) -> float:
        """Arithmetic, in multiply-adds: an operation of an FFT counts half."""
        return self.products + self.convolutions + self.convolution_gradients + self.transforms / 2

    def seconds(self, speed: Rates) -> float:
        """Predicted time at the rates of a machine."""
        return (
            self.products / speed.products
            + self.streamed / speed.streamed
            + self.transforms / speed.transforms
            + self.convolutions / speed.convolutions
            + self.convolution_gradients / speed.convolution_gradients
            + self.calls / speed.calls
        )


@dataclass(frozen=True)
class Candidate:
    """One algorithm for the position lambda, forward and backward.

    The two passes stand alone, as a backward pass starts from the inputs: each may take the algorithm that suits it.
    """

    name: str
    multiply_adds: tuple[float, float]
    seconds: tuple[float, float]  # predicted
    peak_bytes: tuple[float, float]  # temporaries, results and gradients beside the inputs


@dataclass(frozen=True)
class Plan:
    """Which algorithm computes the position lambda in each pass, and why; prints as a table."""

    problem: Problem
    candidates: tuple[Candidate, ...]  # fastest forward first; empty for content only

    @property
    def algorithm(self) -> str:
        """Name of the fastest candidate forward; "content" where there is no position lambda."""
        return self.candidates[0].name if self.candidates else "content"

    @property
    def backward_algorithm(self) -> str:
        """Name of the fastest candidate backward."""
        if not self.candidates:
            return "content"
        return min(self.candidates, key=lambda candidate: candidate.seconds[1]).name

    def __str__(self) -> str:
        problem = self.problem
        head = (
            f"lambda layer, batch {problem.batch}, size {_by(problem.size)}, heads {problem.heads}, "
            f"k {problem.dim_key}, v {problem.dim_value}, intra {problem.intra}, {problem.dtype}, {problem.device}"
        )
        if not self.candidates or problem.scope is None:
            return f"{head}\ncontent only: one reduction over positions, nothing to choose"
        causal = ", causal" if problem.causal else ""
        columns = ("multiply-adds", "peak memory", "predicted")
        lines = [
            head,
            f"position lambda, scope {_by(problem.scope)}{causal}: the least predicted time wins, in each pass",
            f"{'':<12}{'forward':>14}{'':>28}{'backward':>16}",
            f"{'algorithm':<12}" + "".join(f"{column:>14}" for column in columns * 2),
        ]
        for candidate in self.candidates:
            line = f"{candidate.name:<12}"
            for index, chosen in enumerate((self.algorithm, self.backward_algorithm)):
                line += (
                    f"{candidate.multiply_adds[index]:>14.3g}{_bytes(candidate.peak_bytes[index]):>14}"
                    f"{candidate.seconds[index] * 1e3:>11.3g} ms"
                )
                line = f"{line[:-3]}*ms" if candidate.name == chosen else line
            lines.append(line)
        return "\n".join([*lines, "* chosen"])


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
    if problem.scope is None:
        return Plan(problem, ())
    sizes = Sizes.of(problem)
    return Plan(problem, candidates(sizes, rates(problem.device, problem.dtype)))


def fastest(sizes: Sizes, device: torch.device, dtype: torch.dtype, backward: bool) -> str:
    """The algorithm to take for one pass, at the current rates of the device."""
    return _fastest(sizes, rates(device, dtype), backward)


@lru_cache(maxsize=4096)
def _fastest(sizes: Sizes, speed: Rates, backward: bool) -> str:
    return min(candidates(sizes, speed), key=lambda candidate: candidate.seconds[backward]).name


def candidates(sizes: Sizes, speed: Rates) -> tuple[Candidate, ...]:
    """All algorithms for the position lambda at the given rates, fastest forward first."""
    found = []
    for name, count in COUNTS.items():
        (forward, temporary), (both, both_temporary) = count(sizes, False), count(sizes, True)
        backward = both - forward
        found.append(
            Candidate(
                name,
                (forward.multiply_adds, backward.multiply_adds),
                (forward.seconds(speed), backward.seconds(speed)),
                (4 * temporary + sizes.results(False), 4 * both_temporary + sizes.results(True)),
            )
        )
    return tuple(sorted(found, key=lambda candidate: candidate.seconds[0]))


@dataclass(frozen=True)
class Sizes:
    """The position part of a problem as the algorithms see it: always two-dimensional."""

    B: int
    H: int
    U: int
    K: int
    V: int
    Y: int
    X: int
    RY: int
    RX: int
    origin: tuple[int, int]
    itemsize: int

    @classmethod
    def of(cls, problem: Problem) -> Sizes:
        """From a problem with a position lambda; a sequence is an image of one row."""
        assert problem.scope is not None
        rows, columns = problem.size if len(problem.size) == 2 else (1, *problem.size)
        scope_rows, scope_columns = problem.scope if len(problem.scope) == 2 else (1, *problem.scope)
        origin = (0, scope_columns - 1) if problem.causal else ((scope_rows - 1) // 2, (scope_columns - 1) // 2)
        return cls(
            problem.batch,
            problem.heads,
            problem.intra,
            problem.dim_key,
            problem.dim_value,
            rows,
            columns,
            scope_rows,
            scope_columns,
            origin,
            problem.dtype.itemsize,
        )

    @classmethod
    def of_tensors(cls, query: Tensor, value: Tensor, embedding: Tensor, origin: Sequence[int]) -> Sizes:
        """From the arguments of a position operator."""
        batch, heads, rows, columns, dim_key = query.shape
        intra, dim_value = value.shape[1], value.shape[-1]
        scope_rows, scope_columns = embedding.shape[2:]
        sizes = (batch, heads, intra, dim_key, dim_value, rows, columns, scope_rows, scope_columns)
        return cls(*sizes, origin=(origin[0], origin[1]), itemsize=query.itemsize)

    @property
    def N(self) -> int:  # noqa: N802
        """Positions in the batch."""
        return self.B * self.Y * self.X

    def chunk(self, most: int) -> int:
        """Floats of a chunk's largest temporary."""
        return chunk_floats(most, self.N * self.H * self.V)

    def results(self, training: bool) -> float:
        """Bytes of the output, and of the gradients of query, value and embedding."""
        output = self.N * self.H * self.V
        gradients = self.N * (self.H * self.K + self.U * self.V) + self.U * self.K * self.RY * self.RX
        return self.itemsize * (output + gradients * training)


def _matmul(batch: float, m: float, n: float, k: float) -> Work:
    """A (batched) matrix product: the multiply-adds, and the operands and the result going by."""
    return Work(products=batch * m * n * k, streamed=batch * (m * k + k * n + m * n), calls=1)


def _window_blocks(s: Sizes, weights: Callable[[int, int], int]) -> tuple[int, int, int, float, Work]:
    """Block, context, number of blocks, chunks, and the work of laying out windows; the geometry of `Windows`."""
    block = block_length(s.RX, s.X)
    across = -(-s.X // block)
    context = s.RY * (block + s.RX - 1) * s.U
    per_chunk = max(1, s.chunk(windows.CHUNK) // weights(block, context))
    length = across if s.Y == 1 else s.Y
    together = max(1, per_chunk // length)
    parts = -(-s.B // together) * -(-length // per_chunk) * (1 if s.Y == 1 else across)
    blocks = s.B * s.Y * across
    # Rows are copied once per chunk of rows; windows of several batch entries once more each.
    copied = 0.0 if s.Y == 1 else s.B * across * (s.Y + parts / across * (s.RY - 1)) * context / s.RY * s.V
    if min(together, s.B) > 1:
        copied += blocks * context * s.V
    return block, context, blocks, parts, Work(streamed=2 * copied + 2 * s.N * s.U * s.V, calls=6 + 8 * parts)


def _banded(s: Sizes, training: bool) -> tuple[Work, float]:
    block, context, blocks, chunks, layout = _window_blocks(
        s, lambda block, context: largest_temporary(block, s.H, s.V, context)
    )
    rows, taps = block * s.H, s.RY * s.RX * s.U
    weights = _matmul(1, blocks * rows, taps, s.K) + Work(streamed=2 * blocks * rows * taps, calls=4 * chunks)
    apply = _matmul(blocks, rows, s.V, context)
    work = layout + weights + apply + Work(streamed=2 * blocks * rows * s.V, calls=3 * chunks)
    padded = blocks * block * (s.U * s.V) * (1 + (s.RY - 1) / s.Y) + s.B * s.RX * s.U * s.V
    temporary = padded + 2 * s.chunk(windows.CHUNK)
    if training:
        overlap = Work(streamed=3 * blocks * context * s.V, calls=chunks * (s.RY if s.Y > 1 else context / block))
        work += work + weights + apply + overlap + _matmul(1, blocks * rows, taps, s.K) + Work(calls=8 * chunks)
        temporary = 2 * padded + 4 * s.chunk(windows.CHUNK)
    return work, temporary


def _toeplitz(s: Sizes, training: bool) -> tuple[Work, float]:
    block, context, blocks, chunks, layout = _window_blocks(s, lambda block, context: max(block * s.K, context) * s.V)
    positions = blocks * block
    lambdas = _matmul(blocks, block * s.K, s.V, context)
    # Products of single positions, (H, K) × (K, V): the loop over them costs more than their arithmetic.
    apply = Work(products=3 * positions * s.H * s.K * s.V, streamed=2 * positions * s.K * s.V)
    work = layout + lambdas + apply + Work(streamed=2 * positions * s.H * s.V, calls=6 * chunks)
    padded = positions * s.U * s.V * (1 + (s.RY - 1) / s.Y)
    matrix = block * s.K * context
    temporary = padded + 2 * s.chunk(windows.CHUNK) + matrix
    if training:
        overlap = Work(streamed=3 * blocks * context * s.V, calls=chunks * (s.RY if s.Y > 1 else context / block))
        transpose = Work(streamed=2 * blocks * (block * s.K + context) * s.V)
        work += layout + lambdas + lambdas + lambdas + apply + apply + overlap + transpose + Work(calls=14 * chunks)
        temporary = 2 * padded + 4 * s.chunk(windows.CHUNK) + 2 * matrix
    return work, temporary


def _dense(s: Sizes, training: bool) -> tuple[Work, float]:
    row = s.X * s.H * s.Y * s.X * s.U
    most = s.chunk(DENSE_CHUNK)
    height = min(s.Y, max(1, most // row))
    width = s.X if height > 1 else min(s.X, max(1, most * s.X // row))
    whole = height == s.Y and width == s.X
    together = min(s.B, max(1, most // (row * s.Y))) if whole else 1
    chunks = -(-s.B // together) * -(-s.Y // height) * -(-s.X // width)
    taps = (s.Y + height - 1) * (s.X + width - 1) * s.U
    queries, context = s.N * s.H, s.Y * s.X * s.U
    weights = _matmul(1, queries, taps, s.K) + Work(streamed=2 * queries * context, calls=6 * chunks)
    apply = Work(products=queries * context * s.V, streamed=queries * context + chunks * together * context * s.V)
    # Weights of an image are put in order by short rows; beginning one costs as much as ROW numbers of a long copy.
    rows = ROW * queries * s.Y if s.Y > 1 else 0.0
    weights += Work(streamed=rows)
    work = weights + apply + Work(streamed=2 * s.N * (s.U + s.H) * s.V, calls=8 + 6 * chunks)
    table = (2 * s.Y - 1) * (2 * s.X - 1) * s.K * s.U
    together_weights = together * height * width * s.H * (taps + context)
    temporary = s.N * s.U * s.V + table + together_weights
    if training:
        scatter = Work(streamed=queries * (3 * taps + 2 * context) + rows, calls=16 * chunks)
        work += weights + apply + apply + _matmul(1, queries, s.K, taps) + _matmul(1, s.K, taps, queries) + scatter
        temporary = 2 * (s.N * s.U * s.V + table) + 3 * together_weights
    return work, temporary


def _channel_loops(s: Sizes, points: float, training: bool) -> tuple[Work, float]:
    """What `channelwise` does around its correlations: layouts, and the query applied to n · k · v lambdas."""
    pairs = s.B * s.V * s.K
    positions = s.Y * s.X
    group = min(channelwise.GROUP, s.V)
    floats = s.chunk(channelwise.CHUNK)
    batch = min(s.B, max(1, floats // int(s.K * points * group)))
    groups = -(-s.B // batch) * -(-s.V // group)
    together = max(channelwise.PAIRS, floats // int(batch * points))  # pairs (k, v)
    keys = min(s.K, together)
    chunks = groups * -(-group // max(1, together // keys)) * -(-s.K // keys)
    work = Work(
        streamed=pairs * positions * (1 + 3 * s.H) + 4 * s.N * s.H * (s.K + s.V),
        calls=8 * groups + chunks * (8 + 2 * keys),
    )
    scratch = 3 * batch * points * min(together, group * s.K)
    temporary = s.N * s.H * s.K + batch * positions * group * (s.U + s.H) + scratch
    if training:
        applied = Work(streamed=pairs * positions * (6 * s.H + 2))
        work += work + applied + Work(calls=chunks * (2 * s.H + 10))
        temporary += s.N * s.H * s.K + batch * positions * group * (2 * s.U + s.H)
    return work, temporary


def _fft(s: Sizes, training: bool) -> tuple[Work, float]:
    lengths = transform_lengths((s.Y, s.X), (s.RY, s.RX), s.origin)
    points = math.prod(lengths)
    loops, temporary = _channel_loops(s, points, training)
    once = 2.5 * points * math.log2(points)
    pairs = s.B * s.V * s.K
    kernels = s.U * s.K
    work = loops + Work(
        transforms=once * (pairs + s.B * s.V * s.U + kernels), streamed=3 * points * (pairs * s.U + kernels)
    )
    temporary += points * kernels
    if training:
        work += Work(
            transforms=once * (2 * pairs + 2 * s.B * s.V * s.U + 2 * kernels), streamed=12 * points * pairs * s.U
        )
        temporary += 3 * points * kernels
    return work, temporary


def _convolution(s: Sizes, training: bool) -> tuple[Work, float]:
    loops, temporary = _channel_loops(s, s.Y * s.X, training)
    products = float(s.N) * s.V * s.K * s.U * s.RY * s.RX
    work = loops + Work(convolutions=products)
    if training:
        work += Work(convolutions=products, convolution_gradients=2 * products)
    return work, temporary


COUNTS: dict[str, Callable[[Sizes, bool], tuple[Work, float]]] = {
    "banded": _banded,
    "dense": _dense,
    "toeplitz": _toeplitz,
    "convolution": _convolution,
    "fft": _fft,
}


def _by(size: tuple[int, ...]) -> str:
    return " × ".join(map(str, size))


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"

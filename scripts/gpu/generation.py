"""Section generation: what a token of a language model takes, step by step and by a CUDA graph of the step."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from benchmarks.machine import timed
from benchmarks.measuring import WrongResultError
from benchmarks.recording import Record
from benchmarks.reporting import Table, seconds
from torch import Tensor

from gpu.running import Part, Section, Settings
from lambda_seq import create_model
from lambda_seq.models.sequence.generation import GenerativeModel

KINDS: dict[str, dict[str, Any]] = {"local": {}, "exponential": {"scope": None, "position": "exponential"}}
TOKENS, PROMPT = 200, 300  # after a prompt that fills the state


def cells(settings: Settings) -> list[Record]:
    """Networks, positions and rows."""
    return [
        {"network": network, "positions": kind, "rows": rows, "dtype": dtype}
        for network in settings.sized(("lambda_lm_base", "lambda_lm"), ("lambda_lm_tiny",))
        for kind in KINDS
        for rows in settings.sized((1, 32), (2,))
        for dtype in settings.sized(("bfloat16",), ("float32",))
    ]


def run(key: Record, settings: Settings) -> Record:
    """Median of tokens both ways, which have to be the same tokens, and what recording takes once."""
    torch.manual_seed(0)
    model = create_model(key["network"], **KINDS[key["positions"]])
    assert isinstance(model, GenerativeModel)
    model.to(settings.device, getattr(torch, key["dtype"])).eval()
    count, length = settings.sized((TOKENS, PROMPT), (12, 70))
    prompt = torch.randint(1, model.vocab_size, (key["rows"], length), device=settings.device)
    found: Record = {}
    tokens = []
    for name, graph in (("plain", False), ("graph", True)):
        model.generate(prompt, 4, seed=0, cuda_graph=graph)  # loads kernels
        steps = model.generate_steps(prompt, count, seed=0, cuda_graph=graph)
        drawn: list[Tensor] = []
        take = partial(_take, steps, drawn)
        times = [timed(take, settings.device) for _ in range(count)]
        found[name] = statistics.median(times[3:])
        found[f"{name}_begin"] = sum(times[1:3])  # a graph is recorded with the third token
        tokens.append(torch.stack(drawn, 1))
    if not torch.equal(*tokens):
        raise WrongResultError("a CUDA graph of the step gives other tokens")
    return found


def _take(steps: Iterator[Tensor], drawn: list[Tensor]) -> None:
    drawn.append(next(steps))


def parts(records: Sequence[Record], settings: Settings) -> Iterator[Part]:
    """One table."""
    rows = []
    for one in records:
        key, plain, graph = one["key"], one.get("plain"), one.get("graph")
        rows.append(
            (
                f"{key['network']}, {key['positions']}, {key['dtype']}, batch {key['rows']}",
                seconds(plain),
                seconds(graph),
                "" if plain is None or graph is None else f"{plain / graph:.2f}",
                seconds(None if graph is None else max(0.0, one["graph_begin"] - 2 * graph)),
                "" if one["status"] == "measured" else f"{one['status']}: {one['message']}",
            )
        )
    columns = ("", "a token", "by a CUDA graph", "times as fast", "recording it", "not measured")
    yield Table("A generated token, sampling included", columns, tuple(rows))


SECTION = Section("generation", "Generation", 15, cells, run, parts)

"""Memory of training on one sequence of any length, in pieces: python scripts/long_training.py [options]

A small language model takes the gradient of a whole sequence by `lambda_seq.models.backward_in_pieces`: as it is, and
cut where a piece begins. Time, and peak memory over the weights and the sequence, are measured in a process of its own
for each length, after a check that the gradients in pieces are those of the whole.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from benchmarks.command_line import add_machine, add_results, open_recorder, positive
from benchmarks.machine import Peak, available_memory, describe, give_back_freed, timed
from benchmarks.measuring import Limits, WrongResultError, recorded
from benchmarks.recording import Record
from benchmarks.reporting import Table, number, seconds, show, size
from torch import Tensor
from torch.nn import functional as F

from lambda_seq.models import LambdaLM, backward_in_pieces

KINDS: dict[str, dict[str, Any]] = {
    "local": {"scope": 127},
    "exponential": {"scope": None, "position": "exponential"},
    "content": {"position": False},
}
GRADIENTS = ("cut", "whole")
BYTES = 256
EQUAL = 1.05  # times the shortest sequence's


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; 0, or 1 if something failed, was wrong or grew though it should not, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(arguments)
    command = ["python", "scripts/long_training.py", *arguments]
    machine = describe(options.threads, options.device)
    recorder = open_recorder(options.out / "long_training.json", command, machine, options.resume)
    shared = {name: getattr(options, name) for name in ("piece", "dim", "depth", "device")}
    keys: list[Record] = [
        {"kind": kind, "gradient": gradient, "length": length, **shared}
        for length in options.lengths
        for gradient in options.gradients
        for kind in options.kinds
    ]
    limits = Limits(int(0.9 * available_memory()), options.deadline, threads=options.threads, device=options.device)
    run = partial(recorded, measure, limits=limits)
    recorder.run(keys, lambda key: f"{key['kind']}, {key['gradient']}, {key['length']:,}", run)
    found = [{**record["key"], **record} for record in recorder.records if record["status"] == "measured"]
    lines = growth(found)
    failures = [record for record in recorder.records if record["status"] != "measured"]
    notes = [line for line, _ in lines]
    notes += [f"{record['key']}: {record['status']}, {record['message']}" for record in failures]
    show([table(found, options)], notes, recorder)
    return 130 if recorder.interrupted else int(bool(failures) or not all(equal for _, equal in lines))


def measure(key: Record) -> Record:
    """Time and peak memory of the gradient of one sequence."""
    give_back_freed(at_once=True)  # before anything leaves holes in the heap
    build = partial(create, key["kind"], key["dim"], key["depth"])
    verify(build().double())
    model = build().to(key["device"])
    tokens = torch.randint(0, BYTES, (1, key["length"]), device=key["device"])
    targets = tokens.roll(-1, 1)
    run = partial(backward_in_pieces, model, loss=Nats(targets), length=key["piece"], cut=key["gradient"] == "cut")
    run(tokens[:, : 2 * key["piece"]])  # loads code, and makes the gradients
    memory = Peak(key["device"])
    took = timed(partial(run, tokens), key["device"])
    return {"seconds": took, "bytes": memory.read()[0]}


class Nats:
    """The mean cross entropy of a sequence, its share of a piece.

    Args:
        targets: ids (1, N) of the tokens that follow.
    """

    def __init__(self, targets: Tensor) -> None:
        self.targets = targets

    def __call__(self, logits: Tensor, where: slice) -> Tensor:
        """Of the logits at these positions."""
        target = self.targets[:, where].flatten()
        return F.cross_entropy(logits.flatten(0, 1), target, reduction="sum") / self.targets.shape[1]


def create(kind: str, dim: int, depth: int) -> LambdaLM:
    """A language model of bytes with such positions."""
    torch.manual_seed(0)
    return LambdaLM(dim=dim, depth=depth, vocab_size=BYTES, **KINDS[kind])


def verify(model: LambdaLM) -> None:
    """Raise WrongResultError unless the gradients in pieces are those of the whole."""
    tokens = torch.randint(0, BYTES, (1, 300))
    nats = Nats(tokens.roll(-1, 1))
    nats(model(tokens), slice(None)).backward()
    expected = [weight.grad for weight in model.parameters()]
    model.zero_grad()
    backward_in_pieces(model, tokens, nats, 77)
    for weight, grad in zip(model.parameters(), expected, strict=True):
        if grad is not None:
            off = ((weight.grad - grad).abs().max() / grad.abs().max().clamp_min(1e-30)).item()  # type: ignore[operator]
            if not off < 1e-9:
                raise WrongResultError(f"in pieces a gradient is off by {off:.1e}, 1e-09 is allowed")


def table(found: Sequence[Record], options: argparse.Namespace) -> Table:
    """A row for each kind, gradient and length."""
    order = {kind: place for place, kind in enumerate(KINDS)}
    rows = tuple(
        (
            one["kind"],
            one["gradient"],
            f"{one['length']:,}",
            size(one["bytes"]),
            seconds(one["seconds"]),
            number(one["length"] / one["seconds"]),
        )
        for one in sorted(found, key=lambda one: (order[one["kind"]], one["gradient"], one["length"]))
    )
    title = f"Gradients of one sequence in pieces of {options.piece:,}, {options.dim} channels, {options.depth} blocks"
    return Table(title, ("position", "gradient", "length", "peak memory", "time", "tokens/s"), rows)


def growth(found: Sequence[Record]) -> list[tuple[str, bool]]:
    """Of each kind what the longest sequence takes, in the shortest's; False where it should be equal and is not."""
    lines = []
    for kind in KINDS:
        for gradient in GRADIENTS:
            same = [one for one in found if (one["kind"], one["gradient"]) == (kind, gradient)]
            if len(same) < 2:
                continue
            short, long = (limit(same, key=lambda one: one["length"]) for limit in (min, max))
            peaks = [one["bytes"] for one in same]
            ratio = max(peaks) / min(peaks) if gradient == "cut" else long["bytes"] / short["bytes"]
            equal = ratio <= EQUAL
            line = (
                f"{kind}, gradient {gradient}: {short['length']:,} to {long['length']:,} positions take memory within "
                f"{ratio:.2f} times{'' if equal or gradient == 'whole' else ', which is more than 5 %'}"
            )
            lines.append((line, equal or gradient == "whole"))
    return lines


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = command.add_argument
    lengths = [2**17, 2**20, 2**22, 2**24]
    add("--lengths", type=positive(1), nargs="+", default=lengths, metavar="N", help="%(default)s")
    add("--kinds", nargs="+", choices=tuple(KINDS), default=list(KINDS), help="of position embeddings (all)")
    add("--gradients", nargs="+", choices=GRADIENTS, default=GRADIENTS, help="cut where a piece begins, or not (both)")
    add("--piece", type=positive(1), default=2**14, help="positions of a piece (%(default)s)")
    add("--dim", type=positive(8), default=32, help="channels (%(default)s)")
    add("--depth", type=positive(1), default=2, help="blocks (%(default)s)")
    add("--deadline", type=float, default=1200, help="seconds until a measurement is ended (%(default)s)")
    add_machine(command, threads=2)
    add_results(command, "outputs/benchmark")
    return command


if __name__ == "__main__":
    sys.exit(main())

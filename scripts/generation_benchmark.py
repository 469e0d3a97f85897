"""What a generated token costs after contexts of any length: python scripts/generation_benchmark.py [options]

A language model reads a prompt in pieces, then generates token by token. Time and memory of the tokens are measured, in
a process of its own for each context and kind of position embedding, after a check that the model computes the same in
pieces as at once. Memory is that of the weights, and of the process over model and prompt at its peak. Rounds are gone
through one after the other and the best counts, so that a busy minute does not meet one context alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from benchmarks.command_line import add_machine, add_results, open_recorder
from benchmarks.machine import Peak, available_memory, describe, give_back_freed, timed
from benchmarks.measuring import Limits, WrongResultError, recorded
from benchmarks.recording import Record
from benchmarks.reporting import Series, Table, number, plot_curves, seconds, show, size

from lambda_seq.models import create_model, state_bytes
from lambda_seq.models.sequence.generation import GenerativeModel

KINDS: dict[str, dict[str, Any]] = {
    "local": {},
    "exponential": {"scope": None, "position": "exponential"},
    "content": {"position": False},
    "multiscale": {"scope": None, "position": "multiscale"},
    "table": {"scope": None, "position": "table"},
}
EQUAL = 1.1  # times the shortest context's


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; 0, or 1 if something failed, was wrong or grew though it should not, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    command = ["python", "scripts/generation_benchmark.py", *arguments]
    file = options.out / "generation.json"
    recorder = open_recorder(file, command, describe(options.threads, options.device), options.resume)
    shared = {name: getattr(options, name) for name in ("network", "scope", "prefill", "tokens", "device")}
    keys: list[Record] = [
        {"kind": kind, "context": context, "round": turn, **shared}
        for turn in range(options.rounds)
        for context in options.contexts
        for kind in options.kinds
    ]
    limits = Limits(int(0.9 * available_memory()), options.deadline, threads=options.threads, device=options.device)
    run = partial(recorded, measure, limits=limits)
    recorder.run(keys, lambda key: f"{key['kind']}, {key['context']:,}, round {key['round'] + 1}", run)
    found, lines = best(recorder.records), growth(recorder.records)
    notes = [f"{kind}: {line}" for kind, line, _ in lines]
    failures = [record for record in recorder.records if record["status"] != "measured"]
    notes += [f"{record['key']}: {record['status']}, {record['message']}" for record in failures]
    show([table(found, options)], notes, recorder)
    series = [
        Series(
            kind, style, tuple((one["context"], 1e3 * one["seconds"], False) for one in found if one["kind"] == kind)
        )
        for style, kind in enumerate(KINDS)
    ]
    plot_curves(recorder.file.with_suffix(".png"), f"A generated token, {options.network}", "milliseconds", series)
    return 130 if recorder.interrupted else int(bool(failures) or not all(equal for *_, equal in lines))


def measure(key: Record) -> Record:
    """Time and memory of generated tokens; sizes in bytes."""
    give_back_freed(at_once=True)  # before anything leaves holes in the heap
    build = partial(create, key["network"], key["kind"], key["scope"])
    verify(build(length=300))
    model = build(length=key["context"] + key["tokens"]).to(key["device"])
    state: list[Any] = []
    step = model.step_features

    def noted(tokens: torch.Tensor, before: Any) -> Any:
        features, after = step(tokens, before)
        state[:] = [after]
        return features, after

    model.step_features = noted  # type: ignore[method-assign, assignment]
    prompt = torch.randint(1, model.vocab_size, (1, key["context"]), device=key["device"])
    model.generate(prompt[:, : key["prefill"]], 2, seed=0, prefill=key["prefill"])  # loads code
    state.clear()
    memory, begin = Peak(key["device"]), time.perf_counter()
    tokens = model.generate_steps(prompt, key["tokens"], seed=0, prefill=key["prefill"])
    next(tokens)
    reading = time.perf_counter() - begin
    read_bytes, weights = memory.read()[0], state_bytes(list(model.state_dict().values()))
    before = memory.before
    memory = Peak(key["device"])  # of the tokens, over what was there before the prompt was read
    memory.before = before
    times = [timed(partial(next, tokens), key["device"]) for _ in range(key["tokens"] - 1)]
    return {
        "seconds": statistics.median(times),
        "prefill_seconds": reading,
        "prefill_bytes": weights + read_bytes,
        "bytes": weights + memory.read()[0],
        "state_bytes": state_bytes(state),
        "constant_state": model.constant_state,
    }


def create(network: str, kind: str, scope: int, *, length: int) -> GenerativeModel:
    """The language model of this name with such positions."""
    torch.manual_seed(0)
    options = {"scope": scope, **KINDS[kind], **({"max_length": length} if kind == "table" else {})}
    model = create_model(network, **options)
    assert isinstance(model, GenerativeModel)
    return model.eval()


@torch.inference_mode()
def verify(model: GenerativeModel) -> None:
    """Raise WrongResultError unless pieces give what the whole gives."""
    model = model.double()
    tokens, state, pieces = torch.randint(1, model.vocab_size, (2, 300)), model.init_state(2), []
    for piece in tokens.split([1, 100, 1, 1, 197], 1):
        features, state = model.step_features(piece, state)
        pieces.append(model.head(features))
    expected = model(tokens)
    off = ((torch.cat(pieces, 1) - expected).abs().max() / expected.abs().max()).item()
    if not off < 1e-9:
        raise WrongResultError(f"in pieces the output is off by {off:.1e}, 1e-09 is allowed")


def best(records: Sequence[Record]) -> list[Record]:
    """Of each kind and context the round of the fastest median, with the least memory of all rounds."""
    found: dict[tuple[str, int], Record] = {}
    for record in records:
        if record["status"] == "measured":
            one = {**record["key"], **record}
            same = found.setdefault((one["kind"], one["context"]), one)
            peaks = {name: min(same[name], one[name]) for name in ("bytes", "prefill_bytes")}
            found[one["kind"], one["context"]] = {**min(same, one, key=lambda each: each["seconds"]), **peaks}
    return list(found.values())


def table(found: Sequence[Record], options: argparse.Namespace) -> Table:
    """A row for each kind and context."""
    rows = [
        (
            one["kind"],
            f"{one['context']:,}",
            seconds(one["seconds"]),
            f"{one['state_bytes'] / 2**10:,.1f} KiB",
            size(one["bytes"]),
            number(one["context"] / one["prefill_seconds"]),
            size(one["prefill_bytes"]),
        )
        for one in sorted(found, key=lambda one: (list(KINDS).index(one["kind"]), one["context"]))
    ]
    title = f"Generation with {options.network}, prompts read {options.prefill:,} tokens at once"
    columns = ("position", "context", "per token", "state", "memory", "prompt tokens/s", "memory for it")
    return Table(title, columns, tuple(rows))


def growth(records: Sequence[Record]) -> list[tuple[str, str, bool]]:
    """Of each kind what the longest context costs, in the shortest's; False where it should be equal and is not."""
    lines, found = [], best(records)
    for kind in KINDS:
        of_kind = sorted((one for one in found if one["kind"] == kind), key=lambda one: one["context"])
        if len(of_kind) < 2:
            continue
        short, long = of_kind[0], of_kind[-1]
        ratios = {name: long[name] / short[name] for name in ("seconds", "state_bytes", "bytes")}
        equal = max(ratios.values()) <= EQUAL
        line = (
            f"a token after {long['context']:,} takes {ratios['seconds']:.2f} times as long as after "
            f"{short['context']:,}, with {ratios['state_bytes']:.2f} times the state and {ratios['bytes']:.2f} "
            f"times the memory: {'equal within 10 %' if equal else 'more'}"
        )
        lines.append((kind, line, equal or not long["constant_state"]))
    return lines


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = command.add_argument
    add("--contexts", type=int, nargs="+", default=[1024, 4096, 16384, 65536], metavar="N", help="%(default)s")
    add("--kinds", nargs="+", choices=tuple(KINDS), default=list(KINDS), help="of position embeddings (all)")
    add("--network", default="lambda_lm_small", help="a language model of the registry (%(default)s)")
    add("--scope", type=int, default=127, help="of local positions (%(default)s)")
    add("--tokens", type=int, default=200, help="generated and timed; the median counts (%(default)s)")
    add("--prefill", type=int, default=1024, help="tokens of the prompt read at once (%(default)s)")
    add("--rounds", type=int, default=3, help="%(default)s")
    add("--deadline", type=float, default=600, help="seconds until a measurement is ended (%(default)s)")
    add_machine(command, threads=1)
    add_results(command, "outputs/benchmark")
    return command


if __name__ == "__main__":
    sys.exit(main())

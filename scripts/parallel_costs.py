"""What a layer costs when processes share its sequence: python scripts/parallel_costs.py [options]

One training step (forward and backward) of one lambda layer, batch 1, on chunks of a sequence, after a check that
outputs and gradients are those of one process. Counted are the bytes that a process sends, beside those of a ring
attention of as many channels, and measured its peak memory over inputs and weights beside that of a single process with
the whole sequence. Ring attention (H. Liu et al., "Ring Attention with Blockwise Transformers", 2023) passes keys and
values around, and in the backward pass their gradients too: 6 · n / P · d · (P − 1) floats.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from benchmarks.command_line import add_results, open_recorder
from benchmarks.machine import Peak, available_memory, describe, give_back_freed
from benchmarks.measuring import Limits, Outcome, WrongResultError, in_fresh_process
from benchmarks.recording import Record
from benchmarks.reporting import Table, show, size

from lambda_seq import LambdaLayer1d, parallel

KINDS: dict[str, dict[str, Any]] = {
    "local": {},
    "local causal": {"causal": True},
    "content": {"position": False},
    "exponential causal": {"scope": None, "position": "exponential", "causal": True},
    "global": {"scope": None},
}
STATES = ("local", "local causal", "content", "exponential causal")  # whose bytes do not depend on the length
MOST = 0.3  # peak memory of one of four processes, of a single one's; of as many as P in proportion
CHECKED = 301  # positions of the check, which no number of processes divides
LIMIT = 8  # times the numbers of a content lambda and a scope's values that a step may send


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; 0, or 1 if something failed or costs more than it should, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(arguments)
    file = options.out / "parallel_costs.json"
    command = ["python", "scripts/parallel_costs.py", *arguments]
    recorder = open_recorder(file, command, describe(1, "cpu"), options.resume)
    names = ("lengths", "dim", "heads", "dim_key", "scope", "norm")
    shared = {name: getattr(options, name) for name in names}
    keys: list[Record] = [
        {"kind": kind, "processes": processes, **shared}
        for kind in options.kinds
        for processes in (1, options.processes)
    ]
    recorder.run(keys, lambda key: f"{key['kind']}, {key['processes']} processes", measured)
    lines, fine = judged(recorder.records)
    failures = [record for record in recorder.records if record["status"] != "measured"]
    lines += [f"{record['key']}: {record['status']}, {record['message']}" for record in failures]
    show([traffic_table(recorder.records), memory_table(recorder.records)], lines, recorder)
    return 130 if recorder.interrupted else int(bool(failures) or not fine)


def measured(key: Record) -> Record:
    """Bytes sent and peak memory of the process that has most of it."""
    ranks = key["processes"]
    limits = Limits(int(0.9 * available_memory()), threads=1)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(ranks) as pool:
        file = str(Path(folder) / "store")
        run = partial(in_fresh_process, one_process, key, limits=limits)
        outcomes: list[Outcome] = list(pool.map(lambda rank: run(rank, file), range(ranks)))
    bad = next((outcome for outcome in outcomes if outcome.status != "measured"), None)
    if bad is not None:
        return {"status": bad.status, "message": bad.message}
    most = max(outcomes, key=lambda outcome: sum(outcome.value["sent"][-1].values()))
    peak = max(outcome.value["peak_bytes"] for outcome in outcomes)
    return {"status": "measured", "message": "", "peak_bytes": peak, "sent": most.value["sent"]}


def one_process(key: Record, rank: int, file: str) -> Record:
    """One of the processes: the check, then a step of each length, whose bytes are counted; the peak is the last's."""
    ranks = key["processes"]
    store = dist.FileStore(file, ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=timedelta(seconds=300))
    mesh = parallel.make_mesh(ranks)
    verify(key, mesh)
    sent = []
    for length in sorted(key["lengths"]):
        layer = make_layer(key, length)
        if ranks > 1:
            parallel.parallelize(layer, mesh)
        # As many positions as a chunk has, of its own numbers: a process never has the whole sequence
        count = length // ranks + (rank < length % ranks)
        x = torch.randn(1, count, key["dim"], requires_grad=True)
        give_back_freed(at_once=True)
        dist.barrier()
        memory = Peak()
        with parallel.count_traffic() as traffic:
            layer(x).square().mean().backward()
        peak, _ = memory.read()
        sent.append(dict(traffic.sent))
        del layer, x
    dist.destroy_process_group()
    return {"peak_bytes": peak, "sent": sent}


def make_layer(key: Record, length: int) -> LambdaLayer1d:
    """The layer of this kind."""
    torch.manual_seed(0)
    options = {name: key[name] for name in ("heads", "dim_key", "scope", "norm")} | KINDS[key["kind"]]
    most = max(length, CHECKED) if options["scope"] is None else None  # of a global table
    return LambdaLayer1d(key["dim"], max_length=most, **options)


def verify(key: Record, mesh: Any) -> None:
    """Raise WrongResultError unless the processes together compute what one does."""
    layer = make_layer(key, CHECKED).double()
    whole = torch.randn(1, CHECKED, key["dim"], dtype=torch.float64)

    grad = torch.randn(1, CHECKED, key["dim"], dtype=torch.float64)

    def results(x: torch.Tensor, grad: torch.Tensor) -> list[torch.Tensor]:
        x.requires_grad_()
        y = layer(x)
        return [y.detach(), *torch.autograd.grad(y, [x, *layer.parameters()], grad)]

    expected = results(whole.clone(), grad)
    with parallel.sequence_parallel(layer, mesh):
        parts = results(parallel.shard_sequence(whole, mesh), parallel.shard_sequence(grad, mesh))
    found = [parallel.gather_sequence(part, mesh) for part in parts[:2]]
    found += [parallel.sum_over_sequence(grad, mesh) for grad in parts[2:]]
    off = max(((one - two).abs().max() / two.abs().max()).item() for one, two in zip(found, expected, strict=True))
    if not off < 1e-9:
        raise WrongResultError(f"in chunks the result is off by {off:.1e}, 1e-09 is allowed")


def numbers(key: Record) -> int:
    """Of a content lambda, and of the values within a local scope."""
    values = key["dim"] // key["heads"]
    reach = key["scope"] if key["kind"].startswith("local") else 0
    return (key["dim_key"] + reach) * values


def ring_bytes(key: Record, length: int) -> float:
    """That a process of a ring attention sends in a step, float32."""
    return 4 * 6 * length / key["processes"] * key["dim"] * (key["processes"] - 1)


def judged(records: Sequence[Record]) -> tuple[list[str], bool]:
    """What the figures say of each kind, and whether that is as it should be."""
    lines, fine = [], True
    found = {(one["key"]["kind"], one["key"]["processes"]): one for one in records if one["status"] == "measured"}
    for (kind, processes), one in found.items():
        if processes == 1:
            continue
        key, sent = one["key"], [sum(parts.values()) for parts in one["sent"]]
        if kind in STATES:
            same, times = min(sent) == max(sent), max(sent) / (4 * numbers(key))
            fine &= same and (kind == "exponential causal" or times <= LIMIT)
            lines.append(
                f"{kind}: {'the same bytes' if same else 'bytes that differ'} for all lengths, {times:.1f} times the "
                f"{numbers(key):,} floats of a content lambda{' and a scope' if 'local' in kind else ''}"
            )
        if (kind, 1) in found:
            share = one["peak_bytes"] / found[kind, 1]["peak_bytes"]
            fine &= share <= MOST * 4 / processes
            lines.append(f"{kind}: {share:.3f} times the memory of a single process at {max(key['lengths']):,}")
    return lines, fine


def traffic_table(records: Sequence[Record]) -> Table:
    """Bytes sent, a row for each kind and length."""
    rows = []
    for record in records:
        key = record["key"]
        if record["status"] != "measured" or key["processes"] == 1:
            continue
        for length, parts in zip(sorted(key["lengths"]), record["sent"], strict=True):
            sent, ring = sum(parts.values()), ring_bytes(key, length)
            each = (f"{parts.get(name, 0):,}" for name in ("all_reduce", "all_gather", "all_to_all"))
            rows.append((key["kind"], f"{length:,}", f"{sent:,}", *each, f"{ring:,.0f}", f"{ring / sent:,.1f}×"))
    columns = ("layer", "n", "bytes sent", "all-reduce", "all-gather", "all-to-all", "ring attention", "its bytes")
    return Table("A training step of one layer: bytes that a process sends", columns, tuple(rows))


def memory_table(records: Sequence[Record]) -> Table:
    """Peak memory, a row for each measurement."""
    rows = [
        (
            record["key"]["kind"],
            f"{max(record['key']['lengths']):,}",
            str(record["key"]["processes"]),
            size(record["peak_bytes"]),
        )
        for record in records
        if record["status"] == "measured"
    ]
    columns = ("layer", "n", "processes", "peak of a process")
    return Table("Peak memory of a training step over inputs and weights", columns, tuple(rows))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = command.add_argument
    add("--lengths", type=int, nargs="+", default=[16384, 262144], metavar="N", help="%(default)s")
    add("--kinds", nargs="+", choices=tuple(KINDS), default=list(KINDS), help="of layers (all)")
    add("--processes", type=int, default=4, help="that share a sequence (%(default)s)")
    add("--dim", type=int, default=128, help="channels (%(default)s)")
    add("--heads", type=int, default=4, help="%(default)s")
    add("--dim-key", type=int, default=16, help="%(default)s")
    add("--scope", type=int, default=127, help="of local layers (%(default)s)")
    add("--norm", choices=("batch", "rms", "layer", "none"), default="batch", help="of queries, values (%(default)s)")
    add_results(command, "outputs/benchmark")
    return command


if __name__ == "__main__":
    sys.exit(main())

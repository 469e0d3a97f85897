"""What it brings that trainings on the CPU keep the memory that steps free: python scripts/kept_memory.py [options]

`lambda-seq` tells glibc so, see `lambda_seq/tasks/memory/heap.py`. Some networks train here for some steps, as glibc
has it by default and so, each in a process of its own, one way after the other in each round. Compared are seconds of
the processor, which other programs disturb less than those of the clock, and the peak memory of the process.
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
import torch.nn.functional as F
from benchmarks.command_line import add_results, open_recorder, positive
from benchmarks.machine import Peak, available_memory, describe
from benchmarks.measuring import Limits, recorded
from benchmarks.recording import Record
from benchmarks.reporting import Table, seconds, show, size

from lambda_seq.models import create_model
from lambda_seq.tasks.memory.heap import keep_freed

CLASSES = 10
NETWORKS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {  # name, options, shape of a batch
    "a second of audio, batch 32": (
        "lambda_encoder",
        {"stem": "waveform", "strides": [8, 4, 4], "dim": 64, "depth": 3, "scope": 31, "norm": "batch"},
        (32, 16_000),
    ),
    "784 pixels, batch 64": (
        "lambda_encoder",
        {"stem": "features", "strides": [4], "dim": 64, "depth": 4, "scope": 43, "norm": "batch"},
        (64, 784, 1),
    ),
    "8,192 numbers, batch 4": (
        "lambda_encoder",
        {"stem": "features", "dim": 64, "depth": 2, "scope": 127},
        (4, 8_192, 1),
    ),
    "pictures of 160², batch 4": ("lambda_resnet26t", {}, (4, 3, 160, 160)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; 0, or 1 if something failed, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(arguments)
    command = ["python", "scripts/kept_memory.py", *arguments]
    recorder = open_recorder(options.out / "kept_memory.json", command, describe(1, "cpu"), options.resume)
    keys: list[Record] = [
        {"network": name, "kept": kept, "round": turn, "steps": options.steps}
        for turn in range(options.rounds)
        for name in options.networks
        for kept in (False, True)
    ]
    limits = Limits(int(0.9 * available_memory()), threads=1)
    run = partial(recorded, measure, limits=limits)
    recorder.run(keys, lambda key: f"{key['network']}, {'kept' if key['kept'] else 'by default'}", run)
    failures = [record for record in recorder.records if record["status"] != "measured"]
    notes = ["Of seconds the median over rounds, ± half of the range of the ratios; of memory the median."]
    notes += [f"{record['key']}: {record['status']}, {record['message']}" for record in failures]
    show([table(recorder.records)], notes, recorder)
    return 130 if recorder.interrupted else int(bool(failures))


def measure(key: Record) -> Record:
    """Seconds of a step, and the peak of the process in bytes.

    Raises:
        RuntimeError: the C library takes no such wish.
    """
    name, options, shape = NETWORKS[key["network"]]
    torch.manual_seed(0)
    network = create_model(name, num_classes=CLASSES, **options).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    x, labels = torch.randn(shape), torch.randint(CLASSES, shape[:1])
    if key["kept"] and not keep_freed({}):
        raise RuntimeError("this C library is no glibc, or one that refuses")
    memory, times = Peak(), []
    for _ in range(2 + key["steps"]):
        begin = time.process_time()
        optimizer.zero_grad()
        F.cross_entropy(network(x), labels).backward()
        optimizer.step()
        times.append(time.process_time() - begin)
    return {"seconds": statistics.median(times[2:]), "bytes": memory.read()[1]}  # the first ones load code


def table(records: Sequence[Record]) -> Table:
    """A row for each network."""
    columns = ("network", "a step by default", "kept", "ratio", "peak by default", "kept", "ratio")
    measured = [record for record in records if record["status"] == "measured"]
    rows = []
    for name in NETWORKS:
        own = [one for one in measured if one["key"]["network"] == name]
        ways = [{one["key"]["round"]: one for one in own if one["key"]["kept"] == kept} for kept in (False, True)]
        rounds = sorted(ways[0].keys() & ways[1].keys())
        if not rounds:
            continue
        times, peaks = ([[way[turn][what] for turn in rounds] for way in ways] for what in ("seconds", "bytes"))
        ratios = [kept / plain for plain, kept in zip(*times, strict=True)]
        plain, kept = map(statistics.median, peaks)
        rows.append(
            (
                name,
                *(seconds(statistics.median(way)) for way in times),
                f"{statistics.median(ratios):.2f} ± {(max(ratios) - min(ratios)) / 2:.2f}",
                *(size(peak) for peak in (plain, kept)),
                f"{kept / plain:.2f}",
            )
        )
    return Table("Memory that steps free, kept", columns, tuple(rows))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = command.add_argument
    add("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), metavar="NAME", help="only these")
    add("--steps", type=positive(1), default=8, help="of each training, of which the median counts (%(default)s)")
    add("--rounds", type=positive(1), default=5, help="trainings of each kind (%(default)s)")
    add_results(command, "scripts/results")
    return command


if __name__ == "__main__":
    sys.exit(main())

"""Compile all Triton kernels for GPUs that need not be here: python scripts/compile_kernels.py [options]

Each kernel is compiled in each form in which it is launched, for every compute capability, dtype and shape asked for.
What is recorded is what decides whether a GPU can run it: shared memory of a program, registers of a thread, and what
it spills, at the assembler's full optimisation. --quick leaves registers out. Needs Triton, and neither GPU nor driver.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from benchmarks.command_line import add_results, open_recorder
from benchmarks.machine import describe
from benchmarks.measuring import outcome_of
from benchmarks.recording import Record
from benchmarks.reporting import Table, show
from gpu.compiling import SHAPES, compiled, missing

# Bytes of shared memory that a program may have
SHARED = {"8.0": 163 * 1024, "8.6": 99 * 1024, "8.9": 99 * 1024, "9.0": 227 * 1024}
DTYPES, PARTS = ("float32", "bfloat16", "float16"), ("position", "content", "scan")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile; 0, or 1 if a kernel does not compile or fit, 2 if nothing can be compiled, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(arguments)
    fault = missing()
    if fault:
        print(f"error: {fault}", file=sys.stderr)
        return 2
    import triton

    command = ["python", "scripts/compile_kernels.py", *arguments]
    machine = {"triton": triton.__version__, **describe(1, "cpu")}
    recorder = open_recorder(options.out / "kernels.json", command, machine, options.resume)
    keys: list[Record] = [
        {"capability": capability, "dtype": dtype, "shape": shape, "parts": options.parts, "quick": options.quick}
        for shape, capability, dtype in product(options.shapes, options.capabilities, options.dtypes)
    ]
    recorder.run(keys, lambda key: f"{key['capability']}, {key['dtype']}, {key['shape']}", one)
    failures = [
        f"{record['key']}: {record['status']}, {record['message']}" for record in recorder.records if wrong(record)
    ]
    show([table(recorder.records)], failures, recorder)
    return 130 if recorder.interrupted else int(bool(failures))


def one(key: Record) -> Record:
    """The kernels of one cell."""
    capability = int(key["capability"].replace(".", ""))
    dtype, shape = getattr(torch, key["dtype"]), SHAPES[key["shape"]]
    outcome = outcome_of(lambda: compiled(capability, dtype, shape, tuple(key["parts"]), key["quick"]))
    found: Record = {"status": outcome.status, "message": outcome.message, "kernels": outcome.value or []}
    limit = SHARED[key["capability"]]
    large = [name for name, shared, *_ in found["kernels"] if shared > limit]
    return {**found, "status": "does not fit", "message": f"{large}: over {limit}"} if large else found


def wrong(record: Record) -> bool:
    """Whether a kernel does not compile, or not fit."""
    return record["status"] != "measured"


def table(records: Sequence[Record]) -> Table:
    """A line for each cell, with the greatest of all its kernels."""
    rows = []
    for record in records:
        key, kernels = record["key"], record["kernels"]
        shared = max((kernel[1] for kernel in kernels), default=None)
        registers = [kernel[2:] for kernel in kernels if len(kernel) > 2]
        spilled: dict[str, int] = {}
        for name, _, *found in kernels:
            short = ".".join(name.split(".")[-2:])
            spilled[short] = max(spilled.get(short, 0), *found[1:], 0)
        spilling = [f"{name} {count:,} B" for name, count in sorted(spilled.items()) if count]
        rows.append(
            (
                key["capability"],
                key["dtype"],
                key["shape"],
                str(len(kernels)),
                "" if shared is None else f"{shared / 1024:.1f} of {SHARED[key['capability']] // 1024} KiB",
                str(max((used for used, _ in registers), default="")),
                ", ".join(spilling) or ("none" if registers else ""),
            )
        )
    columns = ("capability", "dtype", "shape", "kernels and forms", "shared memory", "registers", "spilled by")
    return Table("Triton kernels, compiled: the greatest of all", columns, tuple(rows))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given: dict[str, tuple[Any, Any]] = {
        "--capabilities": (tuple(SHARED), ("8.0", "9.0")),
        "--dtypes": (DTYPES, DTYPES),
        "--shapes": (tuple(SHAPES), tuple(SHAPES)),
        "--parts": (PARTS, PARTS),
    }
    for name, (choices, default) in given.items():
        command.add_argument(name, nargs="+", choices=choices, default=list(default), metavar=name[2:-1].upper())
    command.add_argument("--quick", action="store_true", help="leave registers out")
    add_results(command, "scripts/results")
    return command


if __name__ == "__main__":
    sys.exit(main())

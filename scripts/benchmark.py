"""What the lambda layer costs: python scripts/benchmark.py [layers|memory|plan] [options]

layers (the default): forward and backward of whole layers, ours beside attention, what pip installs, and the limits.
memory: peak memory over the inputs as lengths double.
plan: whether `functional.plan` chooses the fastest algorithm, over a grid of shapes.

Results are checked before anything is timed, and every measurement has a process of its own. Each command prints its
tables and leaves them in --out as JSON, Markdown and a plot; Ctrl-C keeps what was measured. Without --full each takes
less than five minutes on two cores.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace

import torch
from benchmarks import comparing, plan_grid
from benchmarks.command_line import add_machine, add_results, byte_count, open_recorder
from benchmarks.comparing import PHOTO, SQUARE, case_of, key_of
from benchmarks.machine import available_memory, describe
from benchmarks.measuring import Limits, Measurement, in_fresh_process, measure
from benchmarks.methods import TOLERANCES, Case
from benchmarks.peers import METHODS
from benchmarks.recording import Record, Recorder
from benchmarks.reporting import Table, plot_choices, plot_curves, show

LAYERS = (
    *("local", "global", "content", "fused", "materialised"),
    *("local-attention", "local-attention-blocks", "products", "copy"),
)
MEMORY = ("local", "global", "content", "fused")
LONG = 2**20
ENOUGH = 1.3  # a choice within so many times the fastest is good


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0, or 1 if a method failed or was wrong, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments.insert(0, "layers")
    options = parser().parse_args(arguments)
    options.longest = options.longest or (300.0 if options.full else 15.0)
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: --device cuda: no CUDA device was found; use --device cpu")
    torch.set_num_threads(options.threads)
    file = options.out / f"{options.command}.json"
    command = ["python", "scripts/benchmark.py", *arguments]
    recorder = open_recorder(file, command, describe(options.threads, options.device), options.resume)
    options.run(options, recorder)
    bad = any(record.get("status") in ("wrong result", "failed") for record in recorder.records)
    return 130 if recorder.interrupted else int(bad)


def layers(options: argparse.Namespace, recorder: Recorder) -> None:
    """Time of whole layers, forward and backward."""
    lengths = options.lengths or [4096, 16384, 65536]
    keys = [key_of(name, case) for case in sequences(options, lengths) for name in chosen(options, LAYERS)]
    for case, names in (
        (image(options, PHOTO), ("local", "lambda-networks", "products", "copy")),
        (image(options, SQUARE), ("global", "lambda-networks-global")),
    ):
        keys += [key_of(name, case) for name in chosen(options, names) if options.images]
    measure_all(options, recorder, keys)
    tables = [*comparing.time_tables(recorder.records), comparing.ratio_table(recorder.records)]
    show(tables, [], recorder)
    series = comparing.series(recorder.records, "seconds", 1e3)
    title = f"Forward + backward of one layer ({sizes(options)})"
    plot_curves(recorder.file.with_suffix(".png"), title, "milliseconds", series)


def memory(options: argparse.Namespace, recorder: Recorder) -> None:
    """Peak memory of a step over its inputs, as lengths double."""
    lengths = options.lengths or [2**power for power in range(12, 19)]
    names = chosen(options, MEMORY)
    keys = [key_of(name, case) for case in sequences(options, lengths) for name in names]
    if options.full and not options.lengths:
        keys += [key_of(name, case) for case in sequences(options, [LONG]) for name in names]
    measure_all(options, recorder, keys)
    show([comparing.memory_table(recorder.records)], comparing.memory_checks(recorder.records), recorder)
    series = comparing.series(recorder.records, "peak_bytes", 2**-20)
    title = f"Peak memory of one layer's training step ({sizes(options)})"
    plot_curves(recorder.file.with_suffix(".png"), title, "MiB over inputs and weights", series)


def plan(options: argparse.Namespace, recorder: Recorder) -> None:
    """Every candidate against what the plan chooses, each pass by itself."""
    limits = limits_of(options)

    def one(key: Record) -> Record:
        outcome = in_fresh_process(plan_grid.measure_point, case_of(key), options.longest, limits=limits)
        return outcome.value or {"status": outcome.status, "message": outcome.message}

    cases = plan_grid.grid(base(options), options.full)
    keys = [key_of("plan", case) for case in cases if not options.lengths or case.size[0] in options.lengths]
    recorder.run(keys, lambda key: plan_grid.describe(case_of(key)), one)
    measured = [record for record in recorder.records if "forward" in record]
    rows, ratios = plan_grid.rows(measured), plan_grid.ratios(measured)
    within = sum(ratio <= ENOUGH for ratio in ratios)
    notes = [f"{within} of {len(ratios)} choices within {ENOUGH} times the fastest; worst {max(ratios, default=0):.2f}"]
    notes += [
        f"{plan_grid.describe(case_of(record['key']))}: {record['status']}, {record['message']}"
        for record in recorder.records
        if "forward" not in record
    ]
    if options.fit and measured:
        fitted = plan_grid.fit(measured)
        better = sum(ratio <= ENOUGH for ratio in plan_grid.ratios(measured, fitted))
        notes.append(f"fitted: {fitted} would have {better} within; for DEFAULTS in lambda_seq/functional/rates.py")
    title = f"Choices, the worst first (not measured: predicted to take over {plan_grid.SLOWEST:g} times the best)"
    columns = ("shape", "pass", "chosen", "time", "fastest", "ratio", "not measured")
    show([Table(title, columns, tuple(rows))], notes, recorder)
    if ratios:
        plot_choices(recorder.file.with_suffix(".png"), ratios, ENOUGH)


def measure_all(options: argparse.Namespace, recorder: Recorder, keys: Sequence[Record]) -> None:
    """Measure methods in cases, or predict those that would take too long from a shorter length."""
    limits = limits_of(options)

    def one(key: Record) -> Record:
        method, case = METHODS[key["method"]], case_of(key)
        found = predict(recorder, key, options.longest) or measure(method.job(case), limits)
        return {"label": method.label, **asdict(found)}

    recorder.run(keys, lambda key: f"{METHODS[key['method']].label}, {case_of(key)}", one)


def predict(recorder: Recorder, key: Record, longest: float) -> Measurement | None:
    """What a step would take, by the method's growth from the longest one measured; None if it can be measured."""
    method, case = METHODS[key["method"]], case_of(key)
    shorter = [
        (positions, record)
        for record in recorder.records
        if record["status"] == "measured" and {**record["key"], "size": key["size"]} == key
        for positions in [math.prod(record["key"]["size"])]
        if positions < case.positions
    ]
    if method.growth == 1 or not shorter:
        return None
    positions, record = max(shorter, key=lambda found: found[0])
    times = case.positions / positions
    expected = record["seconds"] * times**method.growth
    if expected <= longest:
        return None
    return Measurement(
        "predicted",
        f"from {positions:,} positions by n{'²' if method.growth == 2 else ''}",
        seconds=expected,
        peak_bytes=int(record["peak_bytes"] * times**method.memory_growth),
    )


def base(options: argparse.Namespace) -> Case:
    """What all cases share."""
    return Case((1,), 1, options.dim, options.heads, options.dim_key, options.scope, options.dtype, options.device)


def sequences(options: argparse.Namespace, lengths: Sequence[int]) -> list[Case]:
    """A case for each length."""
    return [replace(base(options), size=(length,), batch=options.batch) for length in lengths]


def image(options: argparse.Namespace, case: Case) -> Case:
    """An image case in the dtype and on the device asked for."""
    return replace(case, dtype=options.dtype, device=options.device)


def sizes(options: argparse.Namespace) -> str:
    """What sequences share, for a title."""
    batch = f"batch {options.batch}, " if options.batch > 1 else ""
    return f"{batch}{options.dim} channels, {options.heads} heads, {options.dtype}, {options.threads} threads"


def chosen(options: argparse.Namespace, names: Sequence[str]) -> list[str]:
    """Those of the methods that were asked for."""
    return [name for name in names if not options.methods or name in options.methods]


def limits_of(options: argparse.Namespace) -> Limits:
    """Limits of one measurement."""
    deadline = 600 + 3 * options.longest  # a check, a warm-up, inputs; then steps
    return Limits(options.budget, deadline, options.seconds, options.threads, options.device)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    doc = (__doc__ or "").split("\n\n")
    whole = argparse.ArgumentParser(description="\n\n".join(doc), formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = whole.add_subparsers(dest="command", required=True)
    for run in (layers, memory, plan):
        one = commands.add_parser(run.__name__, help=run.__doc__, description=run.__doc__)
        one.set_defaults(run=run, methods=None, images=False)
        add = one.add_argument
        add("--lengths", type=int, nargs="+", metavar="N", help="positions of the sequences")
        add("--full", action="store_true", help="also what takes minutes a step; for plan the whole grid")
        add_results(one, "outputs/benchmark")
        add_machine(one, threads=2)
        add("--dtype", choices=tuple(TOLERANCES), default="float32")
        add(
            "--budget",
            type=byte_count,
            default=int(0.9 * available_memory()),
            metavar="SIZE",
            help="memory of a process, as 8GiB (90 %% of what is free)",
        )
        add("--seconds", type=float, default=2.0, help="repeat steps for so long (%(default)s)")
        add("--longest", type=float, help="predict steps of quadratic methods that take more seconds (15, --full 300)")
        add("--heads", type=int, default=4)
        add("--dim-key", type=int, default=16)
        if run is plan:
            add("--fit", action="store_true", help="fit the rates of lambda_seq/functional/rates.py (with --full)")
            one.set_defaults(dim=256, scope=127, batch=1)
            continue
        add("--dim", type=int, default=256)
        add("--batch", type=int, default=1)
        add("--scope", type=int, default=127, help="of local methods (%(default)s)")
        add("--methods", nargs="+", choices=tuple(METHODS), metavar="NAME", help=f"only some of {', '.join(METHODS)}")
        if run is layers:
            add("--images", action=argparse.BooleanOptionalAction, default=True, help="with the two-dimensional cases")
    return whole


if __name__ == "__main__":
    sys.exit(main())

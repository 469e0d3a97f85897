"""Memory and time as lengths double, until each method fails: python scripts/memory_demo.py [options]

Attention (materialised, fused, local, linear; axial for images), the published lambda layer and ours: a training step
of one layer, one more token after a context, and a training step of a whole encoder. Each cell is measured in a process
of its own, which may take --budget more than Python and torch: "out of memory" is really reached (Linux: RLIMIT_DATA, a
limit of the private memory that a process maps; a GPU: torch's allocator), and a step over --limit is ended and called
too slow. What lies beyond is predicted, and predictions are checked against what was measured. Results are compared
with references before anything is timed. What other programs take of the cores stands beside the figures; a cell that
they disturb is measured again, once, and its time is marked ~ if it is disturbed again.

Leaves in --out: memory_demo.png and .svg (the layer; _decode and _encoder for the others), .html with everything in it,
.json, .csv and .md. Without options it takes less than two minutes. Ctrl-C keeps what was measured; --resume goes on.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from benchmarks.command_line import add_machine, add_results, byte_count, open_recorder
from benchmarks.machine import available_memory, describe, load
from benchmarks.measuring import Limits
from benchmarks.methods import TOLERANCES, Case
from benchmarks.recording import Record, Recorder
from benchmarks.reporting import seconds, size
from demo import report as demo_report
from demo.cells import SECTIONS, Patience, key_of, measure, predictor, slope, to_try, verify
from demo.picture import Line, Panel, draw
from demo.picture import size_text as bytes_text
from demo.report import QUANTITIES, Results, live_table, short_size, size_text
from rich.console import Console
from rich.live import Live

SLACK = 120.0  # seconds beside a step: start, check, inputs
NAMES = {1: "memory_demo", 2: "memory_demo_2d"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; 0, 1 if a method was wrong or failed, 130 after Ctrl-C."""
    begin = time.monotonic()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(arguments)
    console = Console()
    complete(options, console)
    if busy := load():
        console.print(f"{busy}; what is disturbed is measured again, and marked ~ if that is, too")
    torch.set_num_threads(options.threads)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # for what processes preload
    command = ["python", "scripts/memory_demo.py", *arguments]
    file = options.out / f"{NAMES[options.dims]}.json"
    recorder = open_recorder(file, command, describe(options.threads, options.device), options.resume)
    recorder.records = [record for record in recorder.records if holds(record, options)]
    known = {record["key"]["size"][0] for record in recorder.records if "check" not in record["key"]}
    sizes = [(length,) * options.dims for length in sorted(known | set(options.lengths))]
    shown = Results(options.sections, sizes, recorder.records, options.budget)
    with Live(
        get_renderable=lambda: live_table(shown, console.width), console=console, refresh_per_second=4, transient=True
    ):
        try:
            run(options, recorder, shown, begin + options.total)
        except KeyboardInterrupt:
            recorder.interrupted = True
    recorder.write()
    finish(options, recorder, shown, console)
    if recorder.interrupted:
        console.print(f"interrupted: what was measured is kept in {file}; go on with --resume")
        return 130
    return int(any(record["status"] in ("wrong result", "failed") for record in recorder.records))


def complete(options: argparse.Namespace, console: Console) -> None:
    """Defaults that depend on other options, or on the machine."""
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: --device cuda: no CUDA device was found; use --device cpu")
    if options.dim % options.heads:
        sys.exit(f"error: --heads {options.heads} does not divide --dim {options.dim}: give a divisor of it")
    if options.lengths is None:
        first, last = (10, 22 if options.full else 20) if options.dims == 1 else (5, 10)
        options.lengths = [2**power for power in range(first, last + 1)]
    options.lengths = sorted(set(options.lengths))
    if options.lengths[0] < 1:
        sys.exit(f"error: --lengths {options.lengths[0]}: expected positive numbers of positions")
    options.scope = options.scope or (127 if options.dims == 1 else 15)
    options.limit = options.limit or (900.0 if options.full else 2.5)
    options.repeat = (1.0 if options.full else 0.1) if options.repeat is None else options.repeat
    options.total = options.total or (math.inf if options.full else 100.0)
    options.sections = [name for name in options.sections if SECTIONS[name].methods(options.dims)]
    if not options.sections:
        sys.exit("error: --sections decode: there is no next token of an image; use --dims 1")
    free = available_memory() if options.device == "cpu" else torch.cuda.get_device_properties(0).total_memory
    if options.budget > 0.9 * free:
        console.print(f"--budget {size(options.budget)}: {size(free)} are free, so the budget is 90 % of that")
        options.budget = int(0.9 * free)


def holds(record: Record, options: argparse.Namespace) -> bool:
    """Whether a record of an earlier run says what one with these options would."""
    if record["status"] == "out of memory" and "budget" in record:
        return record["budget"] >= options.budget
    if record["status"] == "too slow":
        return record["limit"] >= options.limit
    return record["status"] != "failed" and (record.get("peak_bytes") or 0) <= options.budget


def base(options: argparse.Namespace) -> Case:
    """The longest case."""
    size = (options.lengths[-1],) * options.dims
    return Case(
        size,
        options.batch,
        options.dim,
        options.heads,
        options.dim_key,
        options.scope,
        options.dtype,
        options.device,
    )


def run(options: argparse.Namespace, recorder: Recorder, shown: Results, until: float) -> None:
    """Section by section, length by length, method by method, as long as there is time."""
    limits = Limits(options.budget, SLACK, threads=options.threads, device=options.device)
    patience = Patience(options.limit, options.repeat)
    left, begin = sum(SECTIONS[name].share for name in options.sections), time.monotonic()
    for section in options.sections:
        # A section's share of the time that is left
        end = time.monotonic() + (until - time.monotonic()) * SECTIONS[section].share / left
        left -= SECTIONS[section].share
        names = [name for name in SECTIONS[section].methods(options.dims) if name in (options.methods or [name])]
        longest = key_of(section, "", base(options))
        right = []
        for name in names:
            shown.current = f"{SECTIONS[section].title}: checking {SECTIONS[section].label(name)}"
            key = {**longest, "method": name, "check": True}
            found = recorder.find(key) or recorder.add(key, **verify(section, name, base(options), limits))
            right += [name] if found["status"] == "measured" else []
        for lengths in ((length,) * options.dims for length in options.lengths):
            for name in right:
                key = {**longest, "method": name, "size": list(lengths)}
                if recorder.find(key) or time.monotonic() > end:
                    continue
                growth = {one: SECTIONS[section].growth(name, one) for one in QUANTITIES}
                if to_try(shown.cells(section, name), math.prod(lengths), options.budget, growth, patience):
                    shown.current = (
                        f"{SECTIONS[section].title}: {SECTIONS[section].label(name)} at {size_text(lengths)}, "
                        f"{time.monotonic() - begin:.0f} s"
                    )
                    recorder.add(key, **measure(key, patience, limits))
    shown.current = ""


# What is left behind


def finish(options: argparse.Namespace, recorder: Recorder, results: Results, console: Console) -> None:
    """Tables, notes, pictures and files."""
    file, pictures = recorder.file, []
    for section in options.sections:
        if any(
            record["status"] == "measured"
            for name in results.methods(section)
            for record in results.cells(section, name)
        ):
            suffix = "" if section == options.sections[0] else f"_{section}"
            picture = file.with_name(f"{file.stem}{suffix}.png")
            draw_section(picture, section, options, recorder, results)
            pictures.append(picture)
    summaries = [demo_report.summary(results, section) for section in options.sections]
    for table in summaries:
        table.print(console)
    lines = demo_report.notes(results)
    for line in lines:
        console.print(line, markup=False, highlight=False)
    tables = [*summaries, *(demo_report.whole(results, section) for section in options.sections)]
    demo_report.write_csv(file.with_suffix(".csv"), results)
    demo_report.write_markdown(file.with_suffix(".md"), recorder, tables, lines)
    title = f"Memory and time as lengths double ({settings(options)})"
    svgs = [picture.with_suffix(".svg") for picture in pictures]
    demo_report.write_html(file.with_suffix(".html"), title, recorder, svgs, tables, lines)
    if pictures:
        console.print(f"picture: {pictures[0]}   report: {file.with_suffix('.html')}", soft_wrap=True)


def settings(options: argparse.Namespace) -> str:
    """Sizes, for titles."""
    return (
        f"batch {options.batch}, {options.dim} channels, {options.heads} heads, {options.dtype}, local scope "
        f"{options.scope}{'²' if options.dims == 2 else ''}, {options.threads} thread{'s' * (options.threads > 1)}"
    )


def draw_section(file: Path, section: str, options: argparse.Namespace, recorder: Recorder, results: Results) -> None:
    """The picture of a section."""
    place = recorder.machine.get("gpu", recorder.machine["processor"])
    budget = (float(options.budget), f"budget {size(options.budget)}")
    titles = {"peak_bytes": "Peak memory", "seconds": "Time"}
    units: dict[str, Callable[[float], str]] = {"peak_bytes": bytes_text, "seconds": seconds}
    panels = [
        Panel(
            f"{titles[quantity]} against {'length' if options.dims == 1 else 'size'}",
            [line_of(results, section, name, quantity) for name in results.methods(section)],
            budget if quantity == "peak_bytes" else None,
            units[quantity],
        )
        for quantity in QUANTITIES
    ]
    positions = [math.prod(lengths) for lengths in results.sizes]
    ticks = [short_size(lengths) for lengths in results.sizes]
    draw(file, SECTIONS[section].title, f"{settings(options)} · {place}", panels, positions, ticks)


def line_of(results: Results, section: str, name: str, quantity: str) -> Line:
    """A method in a picture."""
    found = results.measured(section, name, quantity)
    cells = results.cells(section, name)
    failed = [
        (math.prod(cell["key"]["size"]), cell["status"])
        for cell in cells
        if cell["status"] in ("out of memory", "too slow")
    ]
    return Line(
        name,
        SECTIONS[section].label(name),
        tuple(found),
        tuple(failed),
        predictor(found, SECTIONS[section].growth(name, quantity)),
        slope(found),
        SECTIONS[section].label(name).startswith("ours"),
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = command.add_argument
    how = command.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="steps up to 2.5 s, 100 s in all; the default")
    how.add_argument("--full", action="store_true", help="steps up to 15 minutes, to 4,194,304 positions; hours")
    add("--dims", type=int, choices=(1, 2), default=1, help="sequences (1) or square images (2)")
    add("--lengths", type=int, nargs="+", metavar="N", help="positions, or sides of images (1,024 … / 32 …, doubling)")
    add("--sections", nargs="+", choices=tuple(SECTIONS), default=list(SECTIONS), help="%(choices)s (all)")
    known = sorted({name for section in SECTIONS.values() for dims in (1, 2) for name in section.methods(dims)})
    add("--methods", nargs="+", choices=known, metavar="NAME", help=f"only some of {', '.join(known)}")
    add("--budget", type=byte_count, default=8 * 2**30, metavar="SIZE", help="memory of a process (8GiB)")
    add("--limit", type=float, metavar="SECONDS", help="a longer step is too slow (2.5, --full 900)")
    add("--repeat", type=float, metavar="SECONDS", help="repeat shorter steps for so long (0.1, --full 1)")
    add("--total", type=float, metavar="SECONDS", help="begin nothing after so long (100, --full without end)")
    add("--batch", type=int, default=1)
    add("--dim", type=int, default=256, help="channels (%(default)s)")
    add("--heads", type=int, default=4, help="%(default)s")
    add("--dim-key", type=int, default=16, help="of lambda layers (%(default)s)")
    add("--scope", type=int, help="positions per dimension that local methods see (127, images 15)")
    add("--dtype", choices=tuple(TOLERANCES), default="float32")
    add_machine(command, threads=torch.get_num_threads())
    add_results(command, "outputs/memory_demo")
    return command


if __name__ == "__main__":
    sys.exit(main())

"""The tables of the LambdaNetworks paper, recomputed beside what it prints: python scripts/paper_tables.py [options]

Parameters, FLOPS and the memory column follow from shapes alone, and take seconds. With --measure each network also
trains on this machine, in a process of its own under a memory budget: time of a step, pictures per second and peak
memory, or "out of memory" where that is what happened. All of it is left in --out as JSON, Markdown and a plot. Ctrl-C
keeps what was measured; --resume goes on.

    python scripts/paper_tables.py --measure --tables mixers --batch 2 --budget 20GiB
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import torch
from benchmarks.command_line import add_machine, add_results, byte_count, open_recorder, positive
from benchmarks.machine import available_memory, describe
from benchmarks.measuring import Limits, NotInstalledError, measure
from benchmarks.recording import Record, Recorder
from benchmarks.reporting import Table, number, seconds, show, size
from paper.figures import BATCH, computed, held_bytes, job
from paper.plot import Point, plot_trade_off
from paper.rows import TABLES, PaperTable, Row

CONVENTION = (
    "FLOPS are 2 × multiply-adds of convolutions, linear, lambda and attention layers for one picture; norms, "
    "activations and pools are left out. A lambda layer over n positions costs, beside its projections, "
    "u·n·min(r, H)·min(r, W)·k·v for the position lambdas (scope r clipped to the map, borders not subtracted), "
    "u·n·k·v for the content lambda and n·h·k·v to apply each of the two, before the pool of a stride: the "
    "definition, whatever algorithm computes it. ✓ is the printed figure to its last decimal; else the difference, "
    "ours less the printed, is in brackets."
)
SPEED = (
    "Measured: forward, backward and SGD with momentum; the fastest step counts. Memory is that of weights, momentum, "
    "gradients, activations and pictures at the peak of a step, freed blocks returned at once. The paper's pictures "
    "per second were taken on its accelerators: compare ratios within a column."
)
FAILURES = ("failed", "wrong result", "out of time")
AGAIN = (*FAILURES, "not installed")  # tried again by --resume
PRINTED = ("parameters", "flops", "memory", "speed", "score")  # columns
BUSY = 0.25  # of all cores: with more than that taken by other processes, times say little


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute and measure; 0, or 1 if a row that should match does not or a measurement failed, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: --device cuda: no CUDA device was found; use --device cpu")
    recorder = recorder_of(options, ["python", "scripts/paper_tables.py", *arguments])
    settings = settings_of(options, recorder)
    tables = {name: TABLES[name] for name in options.tables}
    if options.measure:
        keys = [key_of(row, settings) for table in tables.values() for row in table.rows]
        keys = list({json.dumps(key): key for key in keys}.values())
        limits = Limits(settings["budget"], options.deadline, options.seconds, settings["threads"], settings["device"])
        describe_key = "{name} at {size}²".format_map
        recorder.run(keys, describe_key, lambda key: asdict(measure(job(key), limits)))
    found = {name: [found_of(row, settings, recorder) for row in table.rows] for name, table in tables.items()}
    recorder.records[:] = [record for record in recorder.records if "table" not in record["key"]]
    recorder.records += [
        {"key": {"table": name, "row": row.label}, **record}
        for name, table in tables.items()
        for row, record in zip(table.rows, found[name], strict=True)
    ]
    shown = [table_of(table, found[name]) for name, table in tables.items()]
    show(shown, list(notes_of(tables, found, settings)), recorder)
    plot_trade_off(recorder.file.with_suffix(".png"), points_of(tables, found))
    wrong = [record for records in found.values() for record in records if failed(record)]
    return 130 if recorder.interrupted else int(bool(wrong))


def recorder_of(options: argparse.Namespace, command: Sequence[str]) -> Recorder:
    """Records of this run, and of the earlier one that it goes on with; without --measure, of whatever was measured."""
    file = options.out / "paper_tables.json"
    machine = describe(options.threads, options.device)
    if not options.measure and file.exists():
        machine = json.loads(file.read_text(encoding="utf-8"))["machine"]
    recorder = open_recorder(file, command, machine, options.resume or not options.measure)
    if options.measure:
        recorder.records[:] = [record for record in recorder.records if record.get("status") not in AGAIN]
    return recorder


def settings_of(options: argparse.Namespace, recorder: Recorder) -> Record:
    """What measurements depend on beside the network; a budget that is not given is that of the run gone on with."""
    names = ("batch", "image_size", "precision", "device", "threads", "budget")
    settings = {name: getattr(options, name) for name in names}
    earlier = [record["key"] for record in recorder.records if "status" in record and "table" not in record["key"]]
    if earlier and not options.measure:
        return {name: earlier[-1][name] for name in names}
    if settings["budget"] is None:
        free = torch.cuda.mem_get_info()[0] if options.device == "cuda" else available_memory()
        settings["budget"] = earlier[-1]["budget"] if earlier else int(0.9 * free)
    return settings


def key_of(row: Row, settings: Record) -> Record:
    """What is measured for a row; equal for equal networks, whichever tables they are in."""
    network: Record = {"name": row.name, "options": row.options, "materialised": row.materialised}
    network |= {"detector": True} if row.detector else {}
    return {**network, "size": settings["image_size"] or row.size, **settings}


def found_of(row: Row, settings: Record, recorder: Recorder) -> Record:
    """Everything known of a row: printed, computed, whether they are the same, measured."""
    values, at_4_bytes, missing = {}, {}, {}
    try:
        figures = computed(row)
    except NotInstalledError as error:
        missing = {"missing": str(error)}
    else:
        values = {
            "parameters": figures.parameters / 1e6,
            "flops": figures.flops / 1e9,
            "memory": figures.numbers * row.memory_bytes / 2**30,
        }
        at_4_bytes = {"maps_gib_at_4_bytes": figures.numbers * 4 / 2**30}
    printed = {name: text for name in PRINTED if (text := getattr(row, name)) is not None}
    key = key_of(row, settings)
    measured = recorder.find(key)
    if measured is not None:
        measured = {name: value for name, value in measured.items() if name != "key"}
        if measured["status"] == "measured" and not missing:
            measured["pictures_per_second"] = key["batch"] / measured["seconds"]
            measured["training_bytes"] = held_bytes(row, key["size"], key["batch"]) + measured["peak_bytes"]
    return {
        "network": row.name,
        "options": row.options,
        "printed": printed,
        "computed": values | at_4_bytes,
        "matches": {name: matches(values[name], printed[name]) for name in values if name in printed},
        "expected": list(row.checked),
        "measured": measured,
        **missing,
    }


def matches(value: float, printed: str) -> bool:
    """Whether a value is the printed one, to its last decimal."""
    return f"{value:.{len(printed.partition('.')[2])}f}" == printed


def failed(record: Record) -> bool:
    """Whether a row is not what it should be, or its measurement failed; too little memory is no failure."""
    fine = all(record["matches"][name] for name in record["expected"])
    status = "" if record["measured"] is None else record["measured"]["status"]
    return not fine or status in FAILURES


def table_of(table: PaperTable, found: Sequence[Record]) -> Table:
    """Printed and computed side by side, then what was measured; columns that have nothing are left out."""
    columns = [("", [row.label for row in table.rows])]
    titles = {"parameters": "params (M)", "flops": "GFLOPS", "memory": "maps (GiB)"}
    for name, title in titles.items():
        if name != "memory" or table.memory:
            columns.append((title, [figure(record, name) for record in found]))
            columns.append(("printed", [record["printed"].get(name, "") for record in found]))
    if table.memory:
        columns.append(("at 4 bytes", [gibibytes(record["computed"]["maps_gib_at_4_bytes"]) for record in found]))
    measured = [record["measured"] or {} for record in found]
    columns += [
        ("step", [outcome(one) for one in measured]),
        ("its memory", [size(one.get("training_bytes")) for one in measured]),
        ("pictures/s", [number(one["pictures_per_second"]) if "training_bytes" in one else "" for one in measured]),
        ("pictures/s printed", [record["printed"].get("speed", "") for record in found]),
        (f"{table.score} printed", [record["printed"].get("score", "") for record in found]),
    ]
    columns = [(title, cells) for title, cells in columns if any(cells)]
    titles_left, cells_left = zip(*columns, strict=True)
    return Table(table.title, titles_left, tuple(zip(*cells_left, strict=True)))


def figure(record: Record, name: str) -> str:
    """A computed figure, with ✓ or its difference from the printed one."""
    if "missing" in record:
        return "not installed"
    value, printed = record["computed"][name], record["printed"].get(name)
    text = gibibytes(value) if name == "memory" else f"{value:.3f}"
    if printed is None:
        return text
    return f"{text} ✓" if record["matches"][name] else f"{text} ({value - float(printed):+.3f})"


def gibibytes(value: float) -> str:
    """0.96, or less than can be shown."""
    return "–" if value == 0 else "<0.001" if value < 0.001 else f"{value:.3f}"


def outcome(measured: Record) -> str:
    """Time of a step, or why there is none."""
    return seconds(measured["seconds"]) if measured.get("status") == "measured" else measured.get("status", "")


def notes_of(tables: dict[str, PaperTable], found: dict[str, list[Record]], settings: Record) -> Iterator[str]:
    """Conventions, what to know of each table, and which mixers train in the budget."""
    yield CONVENTION
    for name, table in tables.items():
        for note in [*table.notes, *dict.fromkeys(one["missing"] for one in found[name] if "missing" in one)]:
            yield f"{name}: {note}"
    if any(record["measured"] for records in found.values() for record in records):
        at = f"{settings['image_size']}²" if settings["image_size"] else "the size of its table"
        yield (
            f"{SPEED} Here: batch {settings['batch']}, pictures of {at}, {settings['precision']}, at most "
            f"{size(settings['budget'])} for each training."
        )
    rows = [pair for name, table in tables.items() for pair in zip(table.rows, found[name], strict=True)]
    for row, record in rows:
        if record["measured"] and record["measured"]["message"]:
            yield f"{row.label}: {record['measured']['status']}, {record['measured']['message']}"
    shares = {row.label: (record["measured"] or {}).get("others") or 0 for row, record in rows}
    if busy := [f"{label} {share:.0%}" for label, share in shares.items() if share > BUSY]:
        yield f"Times, not memory, suffered where other processes took much of all cores: {', '.join(busy)}"
    if "mixers" in tables:
        yield from fitting(tables["mixers"], found["mixers"], settings)


def fitting(table: PaperTable, found: Sequence[Record], settings: Record) -> Iterator[str]:
    """Which mixers train a step in the budget, and which do not."""
    outcomes: dict[str, list[str]] = {"measured": [], "out of memory": []}
    for row, record in zip(table.rows, found, strict=True):
        if record["measured"] and record["measured"]["status"] in outcomes:
            outcomes[record["measured"]["status"]].append(row.label)
    where = f"batch {settings['batch']}, {settings['image_size'] or table.rows[0].size}², {size(settings['budget'])}"
    for status, does in (("measured", "trains a step"), ("out of memory", "does not fit")):
        if outcomes[status]:
            yield f"mixers: {does} ({where}): {' · '.join(outcomes[status])}"


def points_of(tables: dict[str, PaperTable], found: dict[str, list[Record]]) -> list[Point]:
    """What the plot shows: networks with a printed or a measured speed, each once, by the row with a speed."""
    points: dict[tuple[Any, ...], Point] = {}
    for name, table in tables.items():
        for row, record in zip(table.rows, found[name], strict=True):
            measured = record["measured"] or {}
            printed = float(row.speed) if row.speed and row.speed != "OOM" else None
            key = (row.name, json.dumps(row.options), row.size, row.materialised)
            known = points.get(key)
            if (printed or "training_bytes" in measured) and (known is None or (printed and not known.printed)):
                points[key] = Point(
                    row.label.partition(":")[2].strip() or row.label,
                    record["computed"]["parameters"],
                    record["computed"]["flops"],
                    printed,
                    measured.get("pictures_per_second"),
                )
    return list(points.values())


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = command.add_argument
    add("--tables", nargs="+", choices=tuple(TABLES), default=list(TABLES), metavar="NAME", help=", ".join(TABLES))
    add("--measure", action="store_true", help="time and memory of a training step of each network")
    add("--batch", type=positive(2), default=2, help=f"pictures of a step (%(default)s; the paper's memory: {BATCH})")
    add("--image_size", "--image-size", type=positive(32), help="rows and columns of measured pictures (the table's)")
    add("--precision", choices=("32-true", "bf16-mixed"), default="32-true", help="of the training (%(default)s)")
    add_machine(command, threads=2)
    add("--budget", type=byte_count, metavar="SIZE", help="memory of a training, as 20GiB (90 %% of what is free)")
    add("--seconds", type=float, default=2.0, help="repeat steps for so long (%(default)s)")
    add("--deadline", type=float, default=600.0, help="seconds until a measurement is ended (%(default)s)")
    add_results(command, "outputs/paper_tables")
    return command


if __name__ == "__main__":
    sys.exit(main())

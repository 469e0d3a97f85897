"""Measure everything on a GPU, once: python scripts/gpu_report.py [options]

Whether results are right, how fast layers and networks are beside attention and convolutions, what fits into memory,
whether networks learn. Takes --minutes at most and needs no network; says first what is not installed. Each section has
a share of the time and processes of its own; one that fails is recorded with its error, and the others run. Leaves in
--out: report.md with aims and what was met, report.json with all records, rates.json, and pictures. The same command
goes on where it was cut: what is recorded is not measured again.

On a CPU, `--device cpu --tiny` shows in a minute or so that everything works.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu import NAMES
from gpu.requirements import lines as requirements

if TYPE_CHECKING:
    from benchmarks.recording import Record, Recorder
    from gpu.running import Settings

ROOT = Path(__file__).resolve().parents[1]
WRITING = 20.0  # seconds for the report, and for what the last cell takes longer
NINE = 540.0  # seconds that the sections' own are of


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; 0, 1 if something was wrong or failed, 2 if something is missing, 130 after Ctrl-C."""
    begin = time.monotonic()
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(given)
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))  # this checkout is measured, installed or not
    notes, enough = requirements()
    print("\n".join(notes), flush=True)
    if not enough:
        print("error: nothing can be measured without the packages named above", file=sys.stderr)
        return 2
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        build = "is a build without CUDA" if torch.version.cuda is None else "finds no GPU or driver"
        print(
            f"error: --device cuda: torch {torch.__version__} {build}; use --device cpu --tiny to try", file=sys.stderr
        )
        return 2
    # Found by processes that cells start; the rates that `LF.calibrate` finds are kept with the report, for this run
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    os.environ["LAMBDA_SEQ_CACHE"] = str(options.out.resolve())
    return measure(options, given, notes, begin)


def measure(options: argparse.Namespace, given: Sequence[str], notes: Sequence[str], begin: float) -> int:
    """Run all sections that were asked for, and write the report after each."""
    from benchmarks.machine import describe
    from benchmarks.recording import Recorder
    from gpu import aims, report
    from gpu.running import Settings
    from gpu.sections import SECTIONS

    seconds = 60 * options.minutes
    settings = Settings(options.device, options.tiny, min(1.0, seconds / NINE), options.threads)
    machine = describe(settings.threads, settings.device) | {"tiny": settings.tiny, "code": report.fingerprint()}
    file = options.out / "report.json"
    if file.exists() and options.again == []:
        file.unlink()
    try:
        recorder = Recorder(file, ["python", "scripts/gpu_report.py", *given], machine, resume=True)
    except ValueError:
        sys.exit(
            f"error: {file} is of another machine, of another version of the code or of other sizes: give --again to "
            "measure all anew, or another --out"
        )
    forgotten = [] if options.again is None else options.again
    recorder.records = [one for one in recorder.records if one["key"]["section"] not in forgotten]
    names = [name for name in NAMES if name in (options.only or NAMES)]
    until, shares = begin + seconds - WRITING, {name: SECTIONS[name].seconds for name in names}
    try:
        for name in names:
            left = until - time.monotonic()
            share = left * shares.pop(name) / (SECTIONS[name].seconds + sum(shares.values()))
            run(name, recorder, settings, share)
            report.write(recorder, settings, notes, drawn=False)
    except KeyboardInterrupt:
        print("interrupted: what was measured is kept; the same command goes on", flush=True)
        recorder.interrupted = True
    files = report.write(recorder, settings, notes)
    failed = list(aims.failures(report.by_section(recorder.records)))
    for line in failed:
        print(f"failed: {line}")
    print(
        f"{time.monotonic() - begin:.0f} s; {len(files)} files in {options.out}: {', '.join(one.name for one in files)}"
    )
    return 130 if recorder.interrupted else int(bool(failed))


def run(name: str, recorder: Recorder, settings: Settings, seconds: float) -> None:
    """The cells of a section that there are no records of, a line for each."""
    from gpu import report
    from gpu.running import run_section
    from gpu.sections import SECTIONS

    section = SECTIONS[name]
    keys = report.missing(section, report.by_section(recorder.records)[name], settings)
    print(f"{section.title}: {len(keys)} cells, {max(0.0, seconds):.0f} s at most", flush=True)

    def keep(key: Record, found: Record) -> None:
        record = recorder.add({"section": name, "cell": key}, **found)
        said = {"measured": ""}.get(record["status"], f": {record['status']}, {record['message']}")
        print(f"  {words(key)}, {record['taken']:.1f} s{said}", flush=True)

    run_section(section, keys, settings, seconds, keep)


def words(key: dict[str, Any]) -> str:
    """A cell in a line."""
    size = [" × ".join(f"{one:,}" for one in key["size"])] if "size" in key else []
    hidden = ("size", "device", "batch", "dim", "heads", "dim_key", "kind") if size else ("kind",)
    return " ".join([str(value) for name, value in key.items() if name not in hidden] + size)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = command.add_argument
    add("--device", choices=("cuda", "cpu"), default="cuda")
    add("--out", type=Path, default=Path("outputs/gpu_report"), help="folder for the report (%(default)s)")
    add("--minutes", type=float, default=9.0, help="at most (%(default)s)")
    add("--tiny", action="store_true", help="tiny sizes, to see whether everything works")
    add("--only", nargs="+", choices=NAMES, metavar="SECTION", help=f"only some of {', '.join(NAMES)}")
    add("--again", nargs="*", choices=NAMES, metavar="SECTION", help="measure sections anew; without names, all")
    add("--threads", type=int, default=1, help="of torch, on the CPU (%(default)s)")
    return command


if __name__ == "__main__":
    sys.exit(main())

"""Kill a training again and again, resume it each time, and see that it ends as if nothing had happened.

    python scripts/kill_and_resume.py --kills 20 --out scripts/results/kill_and_resume

The same small training runs twice: once undisturbed, and once with all its processes killed (SIGKILL, which no program
can hear) at random moments: in training, while it writes a checkpoint, before it has come to its second step, in a
validation, as that ends, and at last in the test and in the export. `--ckpt_path last` goes on each time. In the end
the folders must be equal to the last bit; what is compared, and how, is said in `folders.differences`.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.context import ForkProcess as Training
from pathlib import Path
from typing import Any, NamedTuple

import torch
from benchmarks.machine import describe
from benchmarks.recording import Record, Recorder
from evidence.folders import differences

from lambda_seq.models.hub import saving
from lambda_seq.tasks import cli
from lambda_seq.tasks.callbacks.checkpoints import BestCheckpoint
from lambda_seq.tasks.checkpointing.storage import PARTIAL, damage, newest
from lambda_seq.tasks.classification import Classification

ROOT = Path(__file__).resolve().parents[1]
BATCH, EPOCHS = 8, 4
EVERY = 5  # steps from one validation to the next
TRAINING = (
    *("fit", "--config", str(ROOT / "tasks/configs/associative_recall.yaml"), "--data.validation_size=16"),
    *("--data.test_size=64", f"--data.batch_size={BATCH}", f"--trainer.max_epochs={EPOCHS}"),
    *("--model.options.dropout=0.2", "--last.every_n_train_steps=1", f"--trainer.val_check_interval={EVERY}"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"),
)
PATIENCE = 300.0  # most seconds until a training has come to the step at which it is killed
MOMENTS = ("training", "writing", "training", "starting", "validating", "training", "judging", "writing")  # in turn
ENDS = ("testing", "exporting")  # for the last kills
PLACES: dict[str, tuple[Any, str, int]] = {  # a function that is run then, and at most how often before the kill
    "validating": (Classification, "validation_step", 4),
    "judging": (BestCheckpoint, "on_validation_end", 2),
    "testing": (Classification, "test_step", 8),
    "exporting": (saving, "write_folder", 1),
}
DURING = {
    "validating": "validating",
    "judging": "keeping the best checkpoint",
    "testing": "testing",
    "exporting": "exporting the model",
}


class Pace(NamedTuple):
    """Seconds that a training takes here until its first step is saved, and for each of the others."""

    start: float
    step: float


def start(folder: Path, options: Sequence[str], moment: str = "", calls: int = 0) -> Training:
    """A command line of lambda-seq as a group of processes of its own, which kills itself at a moment of `PLACES`.

    It is forked from this process, which has imported all it needs: that takes longer than the whole training.
    """
    words = [*TRAINING, f"--output_dir={folder}", *options]
    given = (folder / "printed.txt", words, moment, calls)
    process = multiprocessing.get_context("fork").Process(target=train, args=given)
    process.start()
    return process


def train(printed: Path, words: Sequence[str], moment: str, calls: int) -> None:
    """Be `lambda-seq WORDS`, printing to a file; killed at the given call of a moment's function."""
    os.setsid()
    if moment in PLACES:
        place, name, _ = PLACES[moment]
        function, count = getattr(place, name), itertools.count(1)

        def call(*given: Any, **named: Any) -> Any:
            if next(count) == calls:
                os.killpg(0, signal.SIGKILL)
            return function(*given, **named)

        setattr(place, name, call)
    with printed.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    sys.argv = ["lambda-seq", *words]
    cli.main()


def kill(process: Training) -> None:
    """Kill all processes of a training, at once."""
    if process.pid is None:
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # not yet a group
        process.kill()
    process.join()


def interrupt(
    folder: Path, options: Sequence[str], moment: str, most: int, pace: Pace, chance: random.Random
) -> Record | None:
    """Start or resume the training and kill it; what was found then, or None if it came to its end before.

    Args:
        folder: of the run.
        options: of the command line.
        moment: "training"; "writing", while it writes a checkpoint; "starting", within the time that it needs to
            start, and when its first step is saved at the latest; or one of `PLACES`.
        most: steps that it trains before, if it is training or writing.
        pace: of the training.
        chance: how many steps, and when after the last of them.
    """
    last = folder / "checkpoints" / "last.ckpt"
    partial = last.with_name(last.name + PARTIAL)
    before, left = written(last), written(partial)
    calls = chance.randint(1, PLACES[moment][2]) if moment in PLACES else 0
    process, began = start(folder, options, moment, calls), time.monotonic()
    try:
        if moment in PLACES:
            process.join(PATIENCE)
        elif moment == "starting":
            stop = began + chance.uniform(0, pace.start)
            wait(process, began, lambda: time.monotonic() > stop or written(last) != before)
        else:
            for _ in range(chance.randint(1, most)):
                seen = written(last)
                wait(process, began, lambda seen=seen: written(last) != seen)  # each step is saved
            time.sleep(chance.uniform(0, pace.step))
        if moment == "writing":
            wait(process, began, partial.exists)
        ended = None if moment in PLACES and process.exitcode == -signal.SIGKILL else process.exitcode
    finally:
        if process.exitcode is None:
            kill(process)
    if ended == 0:
        return None
    if ended is not None:
        raise RuntimeError(f"the training ended by itself, with status {ended}; see {folder / 'printed.txt'}")
    found = newest(last)
    step = torch.load(found, weights_only=True)["global_step"]
    writing = written(partial) not in (None, left)  # not what an earlier kill has left
    found_at = "writing a checkpoint" if writing else "training" if written(last) != before else "starting"
    return {
        "seconds": round(time.monotonic() - began, 1),
        "during": DURING.get(moment, found_at),
        "last": damage(last) or "whole",
        "step": step,
    }


def wait(process: Training, began: float, condition: Any) -> None:
    """Until a condition holds or the process ends.

    Raises:
        TimeoutError: after `PATIENCE` seconds.
    """
    while process.exitcode is None and not condition():
        if time.monotonic() - began > PATIENCE:
            raise TimeoutError(f"no checkpoint was written in {PATIENCE:.0f} s")
        time.sleep(0.0005)


def written(file: Path) -> int | None:
    """When a file was written, in nanoseconds; None if there is none."""
    return file.stat().st_mtime_ns if file.is_file() else None


def complete(folder: Path, options: Sequence[str], steps: int) -> Pace:
    """Start or resume the training and let it finish; its pace, if it has made all steps and was not resumed.

    Args:
        folder: of the run.
        options: of the command line.
        steps: of the whole training.

    Raises:
        RuntimeError: it fails.
    """
    last = folder / "checkpoints" / "last.ckpt"
    process, began, before = start(folder, options), time.monotonic(), written(last)
    wait(process, began, lambda: written(last) != before)
    first = time.monotonic()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the training failed, with status {process.exitcode}; see {folder / 'printed.txt'}")
    return Pace(first - began, (time.monotonic() - first) / steps)


def table(records: Sequence[Record], equal: bool) -> str:
    """The kills as Markdown."""
    lines = ["| kill | after s | while | last.ckpt then | goes on from step |", "|---:|---:|---|---|---:|"]
    lines += [
        f"| {record['key']['kill']} | {record['seconds']} | {record['during']} | {record['last']} | {record['step']} |"
        for record in records
    ]
    verdict = "equal in every bit to those" if equal else "NOT equal to those"
    lines += [
        "",
        f"Resumed {len(records)} of {len(records)} times. Checkpoints (weights, states of the optimizer and of",
    ]
    lines += [
        "callbacks), logged metrics, curves, reports, the exported model and the summary are",
        f"{verdict} of the run",
    ]
    return "\n".join([*lines, "that was never stopped.", ""])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it; the exit status says whether all is equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how many times to kill the training")
    parser.add_argument("--steps", type=int, default=200, help=f"of the training, in {EPOCHS} epochs")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, help="write the table and its data to OUT.md and OUT.json")
    parser.add_argument("options", nargs="*", help="options of lambda-seq fit, after --")
    given = parser.parse_args(arguments)
    if given.steps < EPOCHS * EVERY or given.steps % EPOCHS:
        parser.error(f"--steps {given.steps}: expected {EPOCHS * EVERY} or more, and a multiple of {EPOCHS}")
    chance = random.Random(given.seed)
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="kill_and_resume_"))
    whole, killed = folder / "whole", folder / "killed"
    for run in (whole, killed):
        run.mkdir()
    command = ["python", "scripts/kill_and_resume.py", *(sys.argv[1:] if arguments is None else arguments)]
    recorder = Recorder((given.out or folder / "kills").with_suffix(".json"), command, describe(1, "cpu"))
    options = [f"--data.train_size={BATCH * given.steps // EPOCHS}", *given.options]
    pace = complete(whole, options, given.steps)
    resume = [*options, "--ckpt_path=last"]
    for number in range(1, given.kills + 1):
        moment = MOMENTS[(number - 1) % len(MOMENTS)]
        if given.kills >= len(MOMENTS) and given.kills - number < len(ENDS):
            moment = ENDS[number - given.kills - 1]
        found = interrupt(killed, resume, moment, given.steps // given.kills, pace, chance)
        if found is None:
            print(f"the training came to its end before kill {number}", file=sys.stderr)
            break
        recorder.add({"kill": number}, **found)
        print(f"kill {number}: {found}", flush=True)
    complete(killed, resume, given.steps)
    differing = differences(whole, killed)
    text = table(recorder.records, not differing)
    if given.out:
        heading = f"# Killed {len(recorder.records)} times\n\n`{' '.join(command)}`\n\n"
        given.out.with_suffix(".md").write_text(heading + text, encoding="utf-8")
    print(text)
    if differing or len(recorder.records) < given.kills:
        sys.exit(f"error: {len(recorder.records)} kills, different: {differing[:5]}; the runs are in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()

"""Trainings of one configuration with different options, one after the other, each by `lambda-seq fit`.

A comparison that was interrupted goes on where it was, in the middle of an epoch too, when the command is given again.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
from benchmarks.machine import describe
from benchmarks.recording import Record, Recorder

from lambda_seq.models import Model
from lambda_seq.tasks.networks import network_of

ROOT = Path(__file__).resolve().parents[2]
Report = Callable[[Recorder, argparse.Namespace, str, Sequence[str]], None]  # records, options, recipe, failures


def split_arguments(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Arguments before -- and behind it."""
    given = list(given)
    return (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])


def add_options(command: argparse.ArgumentParser, work: str, *, embedded: bool = False) -> None:
    """Options that comparisons of trainings share.

    Args:
        command: to add them to.
        work: name of the folder for the trainings.
        embedded: whether the data may be those of the configuration.
    """
    add = command.add_argument
    add(
        "--path", required=not embedded, help=f"the data, as --data.path{' (of the configuration)' if embedded else ''}"
    )
    add("--seeds", type=int, nargs="+", default=[0], metavar="SEED", help="%(default)s")
    add_places(command, work)


def add_places(command: argparse.ArgumentParser, work: str) -> None:
    """Options of where and by how many threads is trained.

    Args:
        command: to add them to.
        work: name of the folder for the trainings.
    """
    add = command.add_argument
    add("--threads", type=int, default=1, help="of torch (%(default)s)")
    add("--out", type=Path, default=ROOT / "scripts" / "results", help="folder for the table (scripts/results)")
    add("--work", type=Path, default=Path("outputs") / work, help="folder for the trainings (%(default)s)")
    add("--fresh", action="store_true", help="forget earlier results in --out; what is in --work stays")


def train_all(
    options: argparse.Namespace,
    passed: Sequence[str],
    file: str,
    command: Sequence[str],
    kind: str,
    variants: Mapping[Any, Sequence[str]],
    measure: Callable[[Path], Record],
    report: Report,
    *,
    enough: Callable[[Record], bool] = lambda record: True,
    machine: Mapping[str, Any] | None = None,
) -> int:
    """Train each variant with each seed; 0, 1 if a training failed, 2 if nothing could begin, 130 after Ctrl-C.

    Args:
        options: with `config` and those of `add_options`.
        passed: further arguments of `lambda-seq fit`.
        file: of the records, in `options.out`.
        command: that was given.
        kind: what a variant is, "mixer"; its name in the keys of records.
        variants: for each, its arguments of `lambda-seq fit`.
        measure: what is kept of a folder with a training in it.
        report: shows and writes what there is, after each training.
        enough: whether a record that there is has all that is asked for; of others the training goes on.
        machine: that all records are of; default: this one.
    """
    try:
        text = options.config.read_text(encoding="utf-8")
        described = describe(options.threads, "cpu") if machine is None else dict(machine)
        recorder = Recorder(options.out / file, command, described, resume=not options.fresh)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    recipe = hashlib.sha256("\0".join([text, *passed]).encode()).hexdigest()[:12]
    failed: list[str] = []
    for seed in options.seeds:
        for variant, chosen in variants.items():
            key = {kind: variant, "seed": seed, "recipe": recipe}
            known = recorder.find(key)
            if known is not None and enough(known):
                continue
            folder = options.work / options.config.stem / f"{quote(str(variant), safe='+=,')}-{seed}-{recipe}"
            print(f"{variant}, seed {seed}: {folder}", file=sys.stderr, flush=True)
            fit = fit_command(options, chosen, seed, folder, passed)
            try:
                code = subprocess.run(fit, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False).returncode
            except KeyboardInterrupt:
                print("interrupted: the same command goes on with it", file=sys.stderr)
                return 130
            if code:
                failed.append(f"{variant}, seed {seed}: failed, see the messages above; it was left out")
                continue
            if known is not None:
                recorder.records.remove(known)
            recorder.add(key, **measure(folder))
            report(recorder, options, recipe, [])
    report(recorder, options, recipe, failed)
    return int(bool(failed))


def fit_command(
    options: argparse.Namespace, chosen: Sequence[str], seed: int, folder: Path, passed: Sequence[str]
) -> list[str]:
    """The command of one training, which goes on if it has begun; what varies comes last, and wins."""
    return [
        *(sys.executable, "-m", "lambda_seq.tasks.cli", "fit", "--config", str(options.config)),
        *([] if options.path is None else [f"--data.path={options.path}"]),
        *(f"--seed_everything={seed}", f"--threads={options.threads}"),
        *(f"--output_dir={folder}", "--ckpt_path=last", "--export=false"),
        "--trainer.callbacks+=lightning.pytorch.callbacks.Timer",  # goes on counting after a resume
        "--trainer.callbacks.interval=step",  # its default cannot be written to a configuration
        *passed,
        *chosen,
    ]


def measured(folder: Path) -> tuple[Record, Model, Record]:
    """What a training has left: accuracies of the checkpoint it calls best, parameters, seconds per epoch with its
    validation; the network; its sizes."""
    tested = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    last, best = (
        torch.load(folder / "checkpoints" / f"{name}.ckpt", map_location="cpu", weights_only=True)
        for name in ("last", "best")
    )
    network = network_of(last)
    timers = [state for name, state in last["callbacks"].items() if name.startswith("Timer")]
    found = {
        "test_accuracy": tested["test/accuracy"],
        "validation_accuracy": logged(folder, "val/accuracy")[best["epoch"]],
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "epochs": last["epoch"] + 1,
        "seconds_per_epoch": timers[0]["time_elapsed"]["train"] / (last["epoch"] + 1),
    }
    return found, network, last["hyper_parameters"]["facts"]["options"]


def scored(folder: Path, metric: str | None = None) -> Record:
    """What a training of any task has left, of the checkpoint it calls best; "test" is None where it was not tested.

    Args:
        folder: of the training.
        metric: of validation, such as "val/f1"; None for the one that the training monitors.

    Raises:
        ValueError: nothing was logged by this name.
    """
    last, best = (
        torch.load(folder / "checkpoints" / f"{name}.ckpt", map_location="cpu", weights_only=True)
        for name in ("last", "best")
    )
    monitors = [state["monitor"] for name, state in best["callbacks"].items() if name.startswith("BestCheckpoint")]
    metric = metric or next((name for name in monitors if name != "epoch"), "val/accuracy")
    scores = logged(folder, metric)
    if best["epoch"] not in scores:
        raise ValueError(f"metric={metric!r}: {folder} has no such figure of epoch {best['epoch']}; give another name")
    summary = folder / "summary.json"
    tested = json.loads(summary.read_text(encoding="utf-8")) if summary.exists() else {}
    network = network_of(last)
    timers = [state for name, state in last["callbacks"].items() if name.startswith("Timer")]
    return {
        "metric": metric,
        "validation": scores[best["epoch"]],
        "test": tested.get(f"test/{metric.partition('/')[2]}"),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "epochs": last["epoch"] + 1,
        "seconds": timers[0]["time_elapsed"]["train"] if timers else None,  # other commands do not time
    }


def logged(folder: Path, metric: str) -> dict[int, float]:
    """A figure by epoch, the last of each, over all starts of a training."""
    scores: dict[int, float] = {}
    starts = (folder / "csv").glob("version_*/metrics.csv")
    for file in sorted(starts, key=lambda file: int(file.parent.name.removeprefix("version_"))):
        with file.open(newline="", encoding="utf-8") as stream:
            rows = csv.DictReader(stream)
            scores |= {int(row["epoch"]): float(row[metric]) for row in rows if row.get(metric)}
    return scores


def by_variant(recorder: Recorder, kind: str, recipe: str) -> dict[Any, list[Record]]:
    """Records of a recipe, those of all seeds together for each variant."""
    found: dict[Any, list[Record]] = {}
    for record in recorder.records:
        if record["key"]["recipe"] == recipe:
            found.setdefault(record["key"][kind], []).append(record)
    return found


def seconds_per_epoch(records: Sequence[Record]) -> float:
    """The median over seeds."""
    return statistics.median(record["seconds_per_epoch"] for record in records)


def percent(values: Sequence[float]) -> str:
    """92.1 % of one seed, 92.1 ± 0.2 % of several: their mean, and half of their range."""
    mean, spread = 100 * statistics.fmean(values), 50 * (max(values) - min(values))
    return f"{mean:.2f} %" if len(values) == 1 else f"{mean:.2f} ± {spread:.2f} %"


def spread(values: Sequence[float], sign: str = "-") -> str:
    """0.9213 of one seed, 0.9213 ± 0.0021 of several: their mean and standard deviation."""
    mean = f"{statistics.fmean(values):{sign}.4f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.4f}"

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

import torch
from machine import describe
from recording import Record, Recorder

from lambda_seq.models import Model
from tasks.training import network_for

ROOT = Path(__file__).resolve().parent.parent
Report = Callable[[Recorder, argparse.Namespace, str, Sequence[str]], None]  # records, options, recipe, failures


def split_arguments(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Arguments before -- and behind it."""
    given = list(given)
    return (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])


def add_options(command: argparse.ArgumentParser, work: str) -> None:
    """Options that comparisons of trainings share."""
    add = command.add_argument
    add("--path", required=True, help="the data, as --data.path")
    add("--seeds", type=int, nargs="+", default=[0], metavar="SEED", help="%(default)s")
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
    """
    try:
        text = options.config.read_text(encoding="utf-8")
        machine = describe(options.threads, "cpu")
        recorder = Recorder(options.out / file, command, machine, resume=not options.fresh)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    recipe = hashlib.sha256("\0".join([text, *passed]).encode()).hexdigest()[:12]
    failed: list[str] = []
    for seed in options.seeds:
        for variant, chosen in variants.items():
            key = {kind: variant, "seed": seed, "recipe": recipe}
            if recorder.find(key) is not None:
                continue
            folder = options.work / options.config.stem / f"{variant}-{seed}-{recipe}"
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
            recorder.add(key, **measure(folder))
            report(recorder, options, recipe, [])
    report(recorder, options, recipe, failed)
    return int(bool(failed))


def fit_command(
    options: argparse.Namespace, chosen: Sequence[str], seed: int, folder: Path, passed: Sequence[str]
) -> list[str]:
    """The command of one training, which goes on if there is something to go on with."""
    return [
        *(sys.executable, "-m", "tasks.cli", "fit", "--config", str(options.config)),
        *(f"--data.path={options.path}", f"--seed_everything={seed}", f"--threads={options.threads}"),
        *(f"--output_dir={folder}", "--ckpt_path=last", "--export=false"),
        "--trainer.callbacks+=lightning.pytorch.callbacks.Timer",  # goes on counting after a resume
        "--trainer.callbacks.interval=step",  # its default cannot be written to a configuration
        *chosen,
        *passed,
    ]


def measured(folder: Path) -> tuple[Record, Model, Record]:
    """What a training has left: accuracies of the checkpoint it calls best, parameters, seconds per epoch with its
    validation; the network; its sizes."""
    tested = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    last, best = (
        torch.load(folder / "checkpoints" / f"{name}.ckpt", map_location="cpu", weights_only=True)
        for name in ("last", "best")
    )
    hparams = last["hyper_parameters"]
    network = network_for(hparams["network"], hparams["options"], hparams["facts"])
    timers = [state for name, state in last["callbacks"].items() if name.startswith("Timer")]
    scores: dict[int, float] = {}
    for file in sorted((folder / "csv").glob("*/metrics.csv")):
        with file.open(newline="", encoding="utf-8") as stream:
            rows = csv.DictReader(stream)
            scores |= {int(row["epoch"]): float(row["val/accuracy"]) for row in rows if row.get("val/accuracy")}
    found = {
        "test_accuracy": tested["test/accuracy"],
        "validation_accuracy": scores[best["epoch"]],
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "epochs": last["epoch"] + 1,
        "seconds_per_epoch": timers[0]["time_elapsed"]["train"] / (last["epoch"] + 1),
    }
    return found, network, hparams["facts"]["options"]


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

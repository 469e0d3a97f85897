"""The same training with other mixers, as one table: python scripts/compare_mixers.py --config CONFIG --path PATH

A mixer is a placement of `LambdaResNet`, such as C (convolutions), L (lambda layers), S (local attention) or CL, a
letter per stage. Options of the network follow with a +: C+se has squeeze-and-excitation of ratio 1/16, L+scope=5
another scope.
One training runs after the other, each by `lambda-seq fit`; a comparison that was interrupted goes on where it was, in
the middle of an epoch too, when the command is given again. Arguments after -- go to `lambda-seq fit`.

    python scripts/compare_mixers.py --config tasks/configs/fashion_mnist.yaml --path PATH --mixers C C+se S L
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from machine import describe
from recording import Record, Recorder
from reporting import Table, show

from lambda_seq.models import count_flops
from tasks.training import network_for

ROOT = Path(__file__).resolve().parent.parent
SHORT = {"se": "se=0.0625"}  # options by one word


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and compare; 0, or 1 if a training failed, 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    own, passed = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    options = parser().parse_args(own)
    try:
        mixers = {mixer: network_options(mixer) for mixer in options.mixers}
        text = options.config.read_text(encoding="utf-8")
        recorder = Recorder(
            options.out / f"mixers_{options.config.stem}.json",
            ["python", "scripts/compare_mixers.py", *given],
            describe(options.threads, "cpu"),
            resume=not options.fresh,
        )
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    recipe = hashlib.sha256("\0".join([text, *passed]).encode()).hexdigest()[:12]
    failed = []
    for seed in options.seeds:
        for mixer, chosen in mixers.items():
            key = {"mixer": mixer, "seed": seed, "recipe": recipe}
            if recorder.find(key) is not None:
                continue
            folder = options.work / options.config.stem / f"{mixer}-{seed}-{recipe}"
            print(f"{mixer}, seed {seed}: {folder}", file=sys.stderr, flush=True)
            command = fit_command(options, chosen, seed, folder, passed)
            try:
                code = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False).returncode
            except KeyboardInterrupt:
                print("interrupted: the same command goes on with it", file=sys.stderr)
                return 130
            if code:
                failed.append(f"{mixer}, seed {seed}: failed, see the messages above; it was left out")
                continue
            recorder.add(key, **measured(folder))
            report(recorder, options, recipe, [])
    report(recorder, options, recipe, failed)
    return int(bool(failed))


def network_options(mixer: str) -> list[str]:
    """Options of `lambda-seq fit` that choose a mixer.

    Raises:
        ValueError: an option without a value.
    """
    placement, *others = mixer.split("+")
    found = [f"--model.options.placement={placement}"]
    for option in others:
        name, equals, value = SHORT.get(option, option).partition("=")
        if not placement or not equals or not value:
            raise ValueError(
                f"--mixers {mixer}: expected a placement, and options as +NAME=VALUE or +{', +'.join(SHORT)}"
            )
        found.append(f"--model.options.{name}={value}")
    return found


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


def measured(folder: Path) -> Record:
    """What a training has left: accuracies, parameters, FLOPs of a picture, seconds per epoch with its validation."""
    tested = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    last, best = (
        torch.load(folder / "checkpoints" / f"{name}.ckpt", map_location="cpu", weights_only=True)
        for name in ("last", "best")
    )
    hparams = last["hyper_parameters"]
    network = network_for(hparams["network"], hparams["options"], hparams["facts"])
    sizes = hparams["facts"]["options"]
    picture = torch.empty(1, sizes["in_channels"], *sizes["image_size"], device="meta")
    timers = [state for name, state in last["callbacks"].items() if name.startswith("Timer")]
    kept = next(state for name, state in best["callbacks"].items() if name.startswith("BestCheckpoint"))
    return {
        "test_accuracy": tested["test/accuracy"],
        "validation_accuracy": float(kept["best_model_score"]),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "flops": count_flops(network, picture),
        "epochs": last["epoch"] + 1,
        "seconds_per_epoch": timers[0]["time_elapsed"]["train"] / (last["epoch"] + 1),
    }


def report(recorder: Recorder, options: argparse.Namespace, recipe: str, failed: Sequence[str]) -> None:
    """Print the table, and write it beside the records."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in recorder.records:
        if record["key"]["recipe"] == recipe:
            found.setdefault(record["key"]["mixer"], []).append(record)
    rows = tuple(row(mixer, records) for mixer, records in found.items())
    columns = ("mixer", "test accuracy", "validation", "parameters", "MFLOPs", "epochs", "s per epoch")
    notes = [
        "FLOPs are twice the multiply-adds of a picture forward, by the rule of `lambda_seq.models.count_flops`. "
        "Time is of an epoch of training with its validation. Accuracies of several seeds are their mean, ± half of "
        "their range; the checkpoint that is tested is the one best on the validation split.",
        *failed,
    ]
    show([Table(f"{options.config.stem}: mixers compared", columns, rows)], notes, recorder)


def row(mixer: str, records: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """A mixer's line of the table."""
    one = records[0]
    times = statistics.median(record["seconds_per_epoch"] for record in records)
    accuracies = (percent([record[name] for record in records]) for name in ("test_accuracy", "validation_accuracy"))
    return (
        *(mixer, *accuracies, f"{one['parameters']:,}", f"{one['flops'] / 1e6:.1f}"),
        *(str(one["epochs"]), f"{times:.1f}"),
    )


def percent(values: Sequence[float]) -> str:
    """92.1 % of one seed, 92.1 ± 0.2 % of several."""
    mean, spread = 100 * statistics.fmean(values), 50 * (max(values) - min(values))
    return f"{mean:.2f} %" if len(values) == 1 else f"{mean:.2f} ± {spread:.2f} %"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = command.add_argument
    add("--config", type=Path, required=True, help="a configuration that trains a LambdaResNet")
    add("--path", required=True, help="the data, as --data.path")
    add("--mixers", nargs="+", default=["C", "C+se", "S", "L"], metavar="MIXER", help="%(default)s")
    add("--seeds", type=int, nargs="+", default=[0], metavar="SEED", help="%(default)s")
    add("--threads", type=int, default=1, help="of torch (%(default)s)")
    add("--out", type=Path, default=ROOT / "scripts" / "results", help="folder for the table (scripts/results)")
    add("--work", type=Path, default=Path("outputs/mixers"), help="folder for the trainings (%(default)s)")
    add("--fresh", action="store_true", help="forget earlier results in --out; what is in --work stays")
    return command


if __name__ == "__main__":
    sys.exit(main())

"""The same training with other mixers, as one table: python scripts/compare_mixers.py --config CONFIG --path PATH

A mixer is a placement of `LambdaResNet`, such as C (convolutions), L (lambda layers), S (local attention) or CL, a
letter per stage. Options of the network follow with a +: C+se has squeeze-and-excitation of ratio 1/16, L+scope=5
another scope.
One training runs after the other, each by `lambda-seq fit`; a comparison that was interrupted goes on where it was, in
the middle of an epoch too, when the command is given again. Arguments after -- go to `lambda-seq fit`.

    python scripts/compare_mixers.py --config fashion_mnist --path PATH --mixers C C+se S L
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from benchmarks.recording import Record, Recorder
from benchmarks.reporting import Table, show
from evidence.trainings import add_options, by_variant, measured, percent, seconds_per_epoch, split_arguments, train_all

from lambda_seq.models import count_flops
from lambda_seq.tasks.configurations import configuration

SHORT = {"se": "se=0.0625"}  # options by one word


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and compare; 0, 1 if a training failed, 2 if nothing could begin, 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    own, passed = split_arguments(given)
    options = parser().parse_args(own)
    try:
        options.config = configuration(options.config)
        mixers = {mixer: network_options(mixer) for mixer in options.mixers}
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    command = ["python", "scripts/compare_mixers.py", *given]
    file = f"mixers_{options.config.stem}.json"
    return train_all(options, passed, file, command, "mixer", mixers, measured_picture_network, report)


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


def measured_picture_network(folder: Path) -> Record:
    """What a training has left, with the FLOPs of a picture."""
    found, network, sizes = measured(folder)
    picture = torch.empty(1, sizes["in_channels"], *sizes["image_size"], device="meta")
    return {**found, "flops": count_flops(network, picture)}


def report(recorder: Recorder, options: argparse.Namespace, recipe: str, failed: Sequence[str]) -> None:
    """Print the table, and write it beside the records."""
    rows = tuple(row(mixer, records) for mixer, records in by_variant(recorder, "mixer", recipe).items())
    columns = ("mixer", "test accuracy", "validation", "parameters", "MFLOPs", "epochs", "s per epoch")
    notes = [
        "FLOPs are twice the multiply-adds of a picture forward, by the rule of `lambda_seq.models.count_flops`. "
        "Time is of an epoch of training with its validation. Accuracies of several seeds are their mean, ± half of "
        "their range, of the checkpoint that the configuration calls best.",
        *failed,
    ]
    show([Table(f"{options.config.stem}: mixers compared", columns, rows)], notes, recorder)


def row(mixer: str, records: Sequence[Record]) -> tuple[str, ...]:
    """A mixer's line of the table."""
    one = records[0]
    accuracies = (percent([record[name] for record in records]) for name in ("test_accuracy", "validation_accuracy"))
    return (
        *(mixer, *accuracies, f"{one['parameters']:,}", f"{one['flops'] / 1e6:.1f}"),
        *(str(one["epochs"]), f"{seconds_per_epoch(records):.1f}"),
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = command.add_argument
    add("--config", required=True, help="name or file of a configuration of a LambdaResNet")
    add("--mixers", nargs="+", default=["C", "C+se", "S", "L"], metavar="MIXER", help="%(default)s")
    add_options(command, "mixers")
    return command


if __name__ == "__main__":
    sys.exit(main())

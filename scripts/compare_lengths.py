"""The same training on shorter and longer beginnings of documents: python scripts/compare_lengths.py --path PATH

Each length is a training of its own by `lambda-seq fit`, with --data.max_length, so that what differs is how much of a
document is read. One training runs after the other; a comparison that was interrupted goes on where it was when the
command is given again. Arguments after -- go to `lambda-seq fit`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.recording import Record, Recorder
from benchmarks.reporting import COLOURS, Table, show
from evidence.trainings import (
    ROOT,
    add_options,
    by_variant,
    measured,
    percent,
    seconds_per_epoch,
    split_arguments,
    train_all,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and compare; 0, 1 if a training failed, 2 if nothing could begin, 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    own, passed = split_arguments(given)
    options = parser().parse_args(own)
    lengths = {length: [f"--data.max_length={length}"] for length in sorted(set(options.lengths))}
    command = ["python", "scripts/compare_lengths.py", *given]
    file = f"lengths_{options.config.stem}.json"
    return train_all(options, passed, file, command, "length", lengths, lambda folder: measured(folder)[0], report)


def report(recorder: Recorder, options: argparse.Namespace, recipe: str, failed: Sequence[str]) -> None:
    """Print the table, and write it and the picture beside the records."""
    found = dict(sorted(by_variant(recorder, "length", recipe).items()))
    rows = tuple(
        (
            f"{length:,}",
            *(percent([one[name] for one in records]) for name in ("test_accuracy", "validation_accuracy")),
            f"{records[0]['parameters']:,}",
            str(records[0]["epochs"]),
            f"{seconds_per_epoch(records):.1f}",
        )
        for length, records in found.items()
    )
    columns = ("positions read", "test accuracy", "validation", "parameters", "epochs", "s per epoch")
    show([Table(f"{options.config.stem}: accuracy by length", columns, rows)], failed, recorder)
    if found:
        draw(recorder.file.with_suffix(".png"), options.config.stem, found)


def draw(file: Path, name: str, found: dict[int, list[Record]]) -> None:
    """Test accuracy against the positions that were read; the range of several seeds as bars."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    scores = {length: [100 * one["test_accuracy"] for one in records] for length, records in found.items()}
    means = [statistics.fmean(values) for values in scores.values()]
    figure, axes = plt.subplots(figsize=(6, 3.6), dpi=150, layout="constrained")
    below, above = (
        [abs(end(values) - mean) for values, mean in zip(scores.values(), means, strict=True)] for end in (min, max)
    )
    axes.errorbar(list(scores), means, (below, above), color=COLOURS[0], marker="o", linewidth=2, capsize=3)
    for length, mean in zip(scores, means, strict=True):
        axes.annotate(f"{mean:.1f}", (length, mean), (0, 7), textcoords="offset points", ha="center", fontsize=9)
    axes.set(xscale="log", xlabel="positions read of each document", ylabel="test accuracy (%)")
    axes.set(ylim=(0, min(108, 1.25 * max(means) + 1)))
    axes.set_xticks(list(scores), [f"{length:,}" for length in scores])
    axes.minorticks_off()
    axes.set_title(f"{name}: accuracy against what was read", loc="left", fontsize=12)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file)
    plt.close(figure)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = command.add_argument
    config = ROOT / "tasks" / "configs" / "long_documents.yaml"
    add("--config", type=Path, default=config, help="a configuration that trains on sequences (long_documents.yaml)")
    add("--lengths", type=int, nargs="+", default=[512, 1280, 2560, 5120, 10240], metavar="N", help="%(default)s")
    add_options(command, "lengths")
    return command


if __name__ == "__main__":
    sys.exit(main())

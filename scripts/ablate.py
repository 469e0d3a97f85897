"""The same training with options changed, one at a time: python scripts/ablate.py CONFIG --vary OPTION=VALUE,VALUE

Each variant is a training by `lambda-seq fit`, with each seed; the first is the configuration as it stands, "base".
Names with a dot are options of the command line, others are of the network: layer_scale is model.options.layer_scale.
Commas within brackets are part of a value, and a value may bring others along: ff=gated+ff_ratio=1.33. With --grid
variants are all combinations instead.

    python scripts/ablate.py text_classification --path reviews.csv --seeds 0 1 2 \\
        --vary layer_scale=0,0.1 --vary model.position_lr=0.1 -- --trainer.max_epochs 5

Figures are of validation, at the checkpoint that the configuration calls best; the test split is left alone unless
--test is given, for when the choice is made. An ablation that was interrupted goes on where it was when the command is
given again, and one with more variants, seeds or --test takes what there is. Arguments after -- go to `lambda-seq fit`.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product

from benchmarks.recording import Record, Recorder
from benchmarks.reporting import Table, show
from evidence.trainings import add_options, by_variant, scored, split_arguments, spread, train_all

from lambda_seq.tasks.configurations import configuration

BASE = "base"
COMMA = re.compile(r",(?![^\[({]*[\])}])")  # not within brackets
ALONG = re.compile(r"\+(?=[a-z_][\w.]*=)")  # in front of a name


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and compare; 0, 1 if a training failed, 2 if nothing could begin, 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    own, passed = split_arguments(given)
    options = parser().parse_args(own)
    try:
        options.config = configuration(options.config)
        variants = variants_of(options.vary, options.grid)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    command = ["python", "scripts/ablate.py", *given]
    test = [f"--test_after_fit={str(options.test).lower()}"]
    return train_all(
        options,
        passed,
        f"ablation_{options.config.stem}.json",
        command,
        "variant",
        {name: [*chosen, *test] for name, chosen in variants.items()},
        partial(scored, metric=options.metric),
        report,
        enough=lambda record: not options.test or record["test"] is not None,
    )


def variants_of(varied: Sequence[str], grid: bool = False) -> dict[str, list[str]]:
    """Options of `lambda-seq fit` for each variant, the base first.

    Args:
        varied: OPTION=VALUE,VALUE, several of them.
        grid: all combinations in place of one change at a time.

    Raises:
        ValueError: an option without a value, or one that is varied twice.
    """
    found: dict[str, list[str]] = {}
    for given in varied:
        name, equals, values = given.partition("=")
        if not name or not equals or not values:
            raise ValueError(f"--vary {given}: expected OPTION=VALUE,VALUE")
        if name in found:
            raise ValueError(f"--vary {given}: {name} is varied already; give all its values at once")
        found[name] = [f"{name}={value.strip()}" for value in COMMA.split(values)]
    if grid:
        changes = [list(combination) for combination in product(*found.values())]
    else:
        changes = [[one] for values in found.values() for one in values]
    return {BASE: []} | {"+".join(change): [word for one in change for word in _words(one)] for change in changes}


def _words(change: str) -> Iterator[str]:
    """layer_scale=0+ff=gated -> --model.options.layer_scale=0 --model.options.ff=gated."""
    for one in ALONG.split(change):
        name, _, value = one.partition("=")
        yield f"--{name if '.' in name else f'model.options.{name}'}={value}"


def report(recorder: Recorder, options: argparse.Namespace, recipe: str, failed: Sequence[str]) -> None:
    """Print the table, and write it beside the records."""
    found = by_variant(recorder, "variant", recipe)
    names = list(variants_of(options.vary, options.grid))
    found = {name: found[name] for name in sorted(found, key=lambda name: names.index(name) if name in names else 1e9)}
    base = {record["key"]["seed"]: record for record in found.get(BASE, ())}
    tested = any(record["test"] is not None for records in found.values() for record in records)
    metric = next((record["metric"] for records in found.values() for record in records), "validation")
    columns = ("variant", metric, "difference", *(["test"] if tested else []), "parameters", "epochs", "s", "seeds")
    rows = tuple(row(name, records, base, tested) for name, records in found.items())
    notes = [
        "Mean ± standard deviation over seeds, of the checkpoint that the configuration calls best. A difference is "
        "the mean of those from the base with the same seed, ± their standard deviation. s is the time of a training "
        "with its validation.",
        *failed,
    ]
    show([Table(f"{options.config.stem}: options varied", columns, rows)], notes, recorder)


def row(name: str, records: Sequence[Record], base: dict[int, Record], tested: bool) -> tuple[str, ...]:
    """A variant's line of the table."""
    differences = [
        record["validation"] - base[record["key"]["seed"]]["validation"]
        for record in records
        if name != BASE and record["key"]["seed"] in base
    ]
    tests = [record["test"] for record in records if record["test"] is not None]
    return (
        name,
        spread([record["validation"] for record in records]),
        spread(differences, "+") if differences else "",
        *([spread(tests) if tests else ""] if tested else []),
        f"{records[0]['parameters']:,}",
        "/".join(sorted({str(record["epochs"]) for record in records})),
        f"{statistics.fmean(record['seconds'] for record in records):,.0f}",
        str(len(records)),
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = command.add_argument
    add("config", help="name or file of a configuration")
    add(
        "--vary", action="append", required=True, metavar="OPTION=A,B", help="values to try; may be given several times"
    )
    add("--grid", action="store_true", help="all combinations, in place of one change at a time")
    add("--test", action="store_true", help="figures of the test split, too")
    add("--metric", metavar="NAME", help="such as val/f1; what the configuration monitors")
    add_options(command, "ablations", embedded=True)
    return command


if __name__ == "__main__":
    sys.exit(main())

"""The networks that the documentation shows, trained and tested again: python scripts/trained_networks.py --data FOLDER

Each is trained with some seeds and tested once with each, beside the baseline that `lambda-seq baseline` fits to the
same rows, and beside the same network whose lambda layers see no other position, of which validation figures are
compared. FOLDER has a folder of each data set; evidence/shown.py says which, and with which options.

    python scripts/trained_networks.py --data ../data --only "spoken digits" --seeds 0

With --models FOLDER, the network of the first seed is kept there by name, for `lambda_seq.from_pretrained(NAME)` and
`load_predictor(NAME)` of whoever has LAMBDA_SEQ_MODELS=FOLDER; one of more than 10 MB is not.

A run that was interrupted goes on where it was when the command is given again. Records are kept in scripts/results/,
and the table of docs/results.md is made of them; --table makes it without training. Arguments after -- go to
`lambda-seq fit`, and make other recipes of the networks: their records stand apart. Where the code of a recipe has
changed, --fresh trains its networks anew; give --only, and --work if there are trainings of before.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from benchmarks.machine import describe
from benchmarks.recording import Record, Recorder
from benchmarks.reporting import Table, show
from evidence.folds import make_folds
from evidence.shown import SHOWN, Shown
from evidence.trainings import ROOT, add_places, scored, split_arguments, spread, train_all

from lambda_seq.models.hub.named import INDEX, keep
from lambda_seq.tasks.configurations import configuration

FILE = "trained_networks.json"
PAGE = ROOT / "docs" / "results.md"
MACHINE = {"device": "cpu"}  # of all records; each has the one that its seconds are of
MOST = 10e6  # bytes of a network that is kept by name
PLACE = re.compile(r"(?<=<!-- trained networks -->\n)(?s:.*?)(?=<!-- end -->)")
COLUMNS = (
    *("network", "configuration", "parameters", "s", "test", "seeds"),
    *("a first try", "our baseline", "validation", "without mixing"),
)
NOTE = (
    "Test and validation figures are the mean ± standard deviation over seeds or folds, of the checkpoint that "
    "validation called best; s is the time of a training with its validation, on a core that other programs shared, "
    "and is missing where another command had begun it. Without mixing, the lambda layers see no other position; one "
    "seed."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and compare; 0, 1 if a training failed, 2 if nothing could begin, 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    own, passed = split_arguments(given)
    options = parser().parse_args(own)
    chosen = [one for one in SHOWN if not options.only or one.name in options.only]
    if options.table:
        records = options.out / FILE
        if not records.is_file():
            return refuse(f"--out {options.out}: there is no {FILE}, whose records the table is made of")
        write_page(json.loads(records.read_text(encoding="utf-8"))["records"], options.page)
        return 0
    missing = [str(options.data / one.pack) for one in chosen if not (options.data / one.pack).exists()]
    if missing:
        return refuse(f"--data {options.data}: there is no {', '.join(missing)}; --only leaves others out")
    if options.fresh:
        try:
            forget(Recorder(options.out / FILE, command_of(given), MACHINE, resume=True), [one.name for one in chosen])
        except (OSError, ValueError) as error:
            return refuse(str(error))
        options.fresh = False
    codes = [0]
    for one in chosen:
        for name, seeds, extra, data in planned(one, options):
            config = {"config": configuration(one.config), "path": str(data), "seeds": seeds}
            each = argparse.Namespace(**vars(options) | config)
            kept = options.models if name == one.name else None
            codes.append(train(each, [*one.options, *passed], given, one, name, extra, kept))
            if codes[-1] in (2, 130):
                return codes[-1]
    return max(codes)


def command_of(given: Sequence[str]) -> list[str]:
    """The command that was given these arguments."""
    return ["python", "scripts/trained_networks.py", *given]


def forget(recorder: Recorder, names: Sequence[str]) -> None:
    """Leave out the records of networks, with their folds and without mixing."""
    recorder.records = [one for one in recorder.records if one["key"]["network"].partition(",")[0] not in names]
    recorder.write()


def train(
    options: argparse.Namespace,
    passed: Sequence[str],
    given: Sequence[str],
    shown: Shown,
    name: str,
    extra: list[str],
    models: Path | None,
) -> int:
    """Train a network with each seed, and keep what it comes to, with the machine that its seconds are of.

    With `models`, a folder, the network itself is kept as well, that of the first seed.
    """
    machine = describe(options.threads, "cpu")
    command = command_of(given)
    first = options.seeds[0]

    def measure(folder: Path) -> Record:
        found = measured(folder, shown.metric) | {"machine": machine}
        if models is not None and f"-{first}-" in folder.name.removeprefix(quote(name, safe="+=,")):
            kept(models, shown, folder / "model", found | {"seed": first, "command": shlex.join(command)})
        return found

    def enough(record: Record) -> bool:
        return models is None or record["key"]["seed"] != first or (models / by_name(shown)).is_dir()

    return train_all(
        options,
        passed,
        FILE,
        command,
        "network",
        {name: [*extra, *([] if models is None else ["--export=true"])]},
        measure,
        report,
        enough=enough,
        machine=MACHINE,
    )


def by_name(shown: Shown) -> str:
    """Name of a network that is kept."""
    return shown.name.replace(" ", "_")


def kept(models: Path, shown: Shown, folder: Path, found: Record) -> None:
    """Keep the model of a training by name, with what it was trained on, how, and what it reaches."""
    size = sum(file.stat().st_size for file in folder.iterdir())
    if size > MOST:
        print(f"{shown.name}: {size / 1e6:.0f} MB are too many to be kept; they are in {folder}", file=sys.stderr)
        return
    kind = found["metric"].partition("/")[2]
    figures = {f"val/{kind}": found["validation"], f"test/{kind}": found["test"]}
    about = {"data": shown.data, "configuration": " ".join([shown.config, *shown.options]), "figures": figures}
    chosen = {name: found[name] for name in ("seed", "parameters", "command")}
    licence = {} if shown.licence is None else {"licence": shown.licence}
    keep(models, by_name(shown), folder, about | licence | chosen | {"bytes": size})
    print(f"{shown.name}: kept as {by_name(shown)!r} in {models / INDEX}", file=sys.stderr)


def refuse(why: str) -> int:
    """Say why nothing could begin; the exit status."""
    print(f"error: {why}", file=sys.stderr)
    return 2


def parts(shown: Shown, pack: Path, work: Path) -> list[tuple[Path, str]]:
    """The data that networks of a kind are trained on, and what is added to their names: those of each fold, if any."""
    if shown.folds is None:
        return [(pack, "")]
    folds = make_folds(pack, shown.folds, work / "folds" / shown.pack)
    return [(fold, f", {fold.name.replace('_', ' ')}") for fold in folds]


def planned(shown: Shown, options: argparse.Namespace) -> list[tuple[str, list[int], list[str], Path]]:
    """All trainings of a network, with their data; those without mixing last."""
    found = [
        (*training, data)
        for data, part in parts(shown, options.data / shown.pack, options.work)
        for training in trainings(shown, options.seeds, part)
    ]
    return sorted(found, key=lambda one: one[0].endswith(unmixed("")))


def trainings(shown: Shown, seeds: Sequence[int] | None, part: str = "") -> list[tuple[str, list[int], list[str]]]:
    """What is trained of a network: a name, seeds, and options beside those of its recipe."""
    seeds = list(seeds or shown.seeds)
    found = [(shown.name + part, seeds, ["--test_after_fit=true", "--baseline=true"])]
    if shown.unmixed is not None:
        found.append((unmixed(shown.name + part), seeds[:1], [*shown.unmixed, "--test_after_fit=false"]))
    return found


def unmixed(name: str) -> str:
    """Name of a network whose lambda layers see no other position."""
    return f"{name}, without mixing"


def measured(folder: Path, metric: str | None = None) -> Record:
    """What a training has left, with the figure of its baseline on the test split, None where there is none."""
    found = scored(folder, metric)
    name = found["metric"].partition("/")[2]
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return found | {"baseline": summary.get(f"test/baseline_{name}")}


def report(recorder: Recorder, options: argparse.Namespace, recipe: str, failed: Sequence[str]) -> None:
    """Print the table, and write it beside the records and into the page."""
    show([Table("Trained networks", COLUMNS, rows(recorder.records))], [NOTE, *failed], recorder)
    write_page(recorder.records, options.page)


def rows(records: Sequence[Record]) -> tuple[tuple[str, ...], ...]:
    """A row for each network that has records, of the recipe that was trained last; of its folds together."""
    found = []
    names = dict.fromkeys(str(record["key"]["network"]) for record in records)
    for shown in SHOWN:
        parts = [name for name in names if name == shown.name or name.startswith(f"{shown.name}, fold ")]
        wholes = [name for name in parts if not name.endswith(unmixed(""))]
        own = [record for name in wholes for record in newest(records, name)]
        without = [record for name in wholes for record in newest(records, unmixed(name))]
        if own:
            found.append(row(shown, own, without))
    return tuple(found)


def newest(records: Sequence[Record], name: str) -> list[Record]:
    """Records of a network, of the recipe of its last one."""
    own = [record for record in records if record["key"]["network"] == name]
    same = [record for record in own if record["key"]["recipe"] == own[-1]["key"]["recipe"]]
    return sorted(same, key=lambda record: record["key"]["seed"])


def row(shown: Shown, own: Sequence[Record], without: Sequence[Record]) -> tuple[str, ...]:
    """A network's line of the table."""
    configuration = " ".join([shown.config, *shown.options])
    timed = [record["seconds"] for record in own if record["seconds"] is not None]
    return (
        f"{shown.name}: {shown.data}",
        f"`{configuration}`",
        f"{own[0]['parameters']:,}",
        f"{statistics.fmean(timed):,.0f}" if timed else "",
        spread([record["test"] for record in own]),
        tested_by(own),
        "" if shown.first is None else f"{shown.first[0]:.3f} ({shown.first[1]})",
        "" if own[0]["baseline"] is None else f"{statistics.fmean(record['baseline'] for record in own):.3f}",
        spread([record["validation"] for record in own]),
        spread([record["validation"] for record in without]) if without else "",
    )


def tested_by(own: Sequence[Record]) -> str:
    """Seeds of the networks, and how many folds they are of."""
    seeds = " ".join(map(str, dict.fromkeys(record["key"]["seed"] for record in own)))
    folds = len({record["key"]["network"] for record in own})
    return seeds if folds == 1 else f"{seeds}, {folds} folds"


def write_page(records: Sequence[Record], page: Path) -> None:
    """Put the table between the two marks of a page."""
    table = Table("Trained networks", COLUMNS, rows(records)).markdown()
    text = page.read_text(encoding="utf-8")
    page.write_text(PLACE.sub(lambda _: f"\n{table}\n\n{NOTE}\n\n", text), encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = command.add_argument
    add("--data", type=Path, default=Path("../data"), help="folder of the data sets (%(default)s)")
    add("--only", nargs="+", choices=[one.name for one in SHOWN], metavar="NAME", help="only these networks")
    add("--table", action="store_true", help="make the table of the records there are")
    add("--page", type=Path, default=PAGE, help="that has the table (docs/results.md)")
    add("--seeds", type=int, nargs="+", metavar="SEED", help="in place of those of each network")
    add("--models", type=Path, metavar="FOLDER", help="keep the networks of the first seed there, by name")
    add_places(command, "trained_networks")
    return command


if __name__ == "__main__":
    sys.exit(main())

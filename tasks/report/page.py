"""report.html: a run in one file that needs nothing else, neither a network nor a script."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from torch.distributed.fsdp import FSDPModule

import lambda_seq
from lambda_seq.models.inputs import INPUTS
from lambda_seq.tasks.callbacks.configuration import CONFIG
from lambda_seq.tasks.callbacks.curves import scores_in
from lambda_seq.tasks.checkpointing.storage import replacing
from lambda_seq.tasks.data.labels import rows_with
from lambda_seq.tasks.metrics import direction
from lambda_seq.tasks.report import charts, media
from lambda_seq.tasks.report.findings import Findings
from lambda_seq.tasks.report.occlusion import explained

PAGE = "report.html"
NAMED = 20  # most classes of a confusion matrix that is a table with names
DRAWN = 200  # most classes of one that is drawn
LISTED = 100  # most classes in the table; of more those with the smallest F1
CONFUSED = 12  # pairs of classes that are listed as mistaken for one another
GROUPS = 8  # of rows of similar length
UNITS = {"tokenizer": "tokens", "dna": "letters", "protein": "letters"}  # of kinds of tokens
LIBRARIES = ("torch", "lightning", "numpy")
SPLITS = {"val": "validation", "test": "test", "train": "training"}


class Run(NamedTuple):
    """A run that is done.

    Attributes:
        task: with the weights that were tested.
        data: that it was trained with.
        made: options of the command.
        trainer: that has trained.
        findings: what was kept of its test.
        split: what was counted by class, as `tasks.callbacks.reports.summarise` makes it; None where nothing was.
        points: of the curves, by name.
        final: figures by name, "STAGE/NAME", and those of baselines, "STAGE/baseline_NAME".
        left: files by what they are.
        advice: what stands out.
    """

    task: Any
    data: Any
    made: Any
    trainer: Any
    findings: Findings
    split: dict[str, Any] | None
    points: Mapping[str, Any]
    final: Mapping[str, float]
    left: Mapping[str, str]
    advice: Sequence[str]


def write_page(run: Run, file: Path) -> Path | None:
    """Write the page of a run. What goes wrong is said, and costs the run nothing else."""
    try:
        text = render(context(run))
        with replacing(file) as partial:
            partial.write_text(text, encoding="utf-8")
    except Exception as error:  # the fit is done, and stays so
        print(f"{file} could not be made ({type(error).__name__}: {error}); all else of this fit is done")
        return None
    return file


def render(found: Mapping[str, Any]) -> str:
    """The page of what `context` has found."""
    # Autoescaped, as class names, texts and names of files may hold anything
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"figure": figure, "percent": percent}
    return environment.get_template("page.html").render(found)


def context(run: Run) -> dict[str, Any]:
    """What the page shows."""
    stage = next((stage for stage in ("test", "val", "train") if any(name.startswith(stage) for name in run.final)), "")
    return {
        "title": Path(run.made.output_dir).name,
        "stage": SPLITS.get(stage, ""),
        "command": shlex.join(["lambda-seq", *sys.argv[1:]]),
        "advice": run.advice,
        "figures": figures(run.final, stage),
        "facts": machine(run),
        "curves": curves(run.points),
        "configuration": _text(Path(run.made.output_dir) / CONFIG),
        "left": run.left,
        **(classes(run.split, run.data) if run.split else {"classes": None, "several": False}),
        "lengths": lengths(run),
        "mistakes": mistakes(run),
        "worst": worst(run, SPLITS.get(stage, "")),
    }


def figures(final: Mapping[str, float], stage: str) -> list[dict[str, Any]]:
    """Final figures of a stage, each beside the baseline's if that has the same."""
    own = {name.partition("/")[2]: value for name, value in final.items() if name.startswith(f"{stage}/")}
    network = {name: value for name, value in own.items() if not name.startswith("baseline_")}
    rules = {name.removeprefix("baseline_"): value for name, value in own.items() if name not in network}
    order = [*(name for name in ("accuracy", "f1", "bits_per_byte") if name in network), *sorted(network)]
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys([*order, *rules]):
        value, baseline = network.get(name), rules.get(name)
        better = None
        if value is not None and baseline is not None:
            better = (value - baseline) * direction(name) > 0
        said = "accuracy of the most frequent class" if name == "majority" else name.replace("_", " ")
        rows.append({"name": said, "value": value, "baseline": baseline, "better": better})
    return rows


def machine(run: Run) -> dict[str, str]:
    """Where and with what it ran, and how much it read."""
    device, count = run.trainer.strategy.root_device, run.trainer.world_size
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    versions = [f"lambda_seq {lambda_seq.__version__}", f"Python {platform.python_version()}"]
    versions += [f"{library} {version(library)}" for library in LIBRARIES]
    parameters = sum(weight.numel() for weight in run.task.parameters())
    found = {
        "network": f"{run.task.hparams.get('network', type(run.task).__name__)}, {parameters:,} parameters",
        "data": str(getattr(run.data, "path", type(run.data).__name__)),
        "training": f"{run.findings.seconds:,.1f} s, {run.trainer.global_step:,} steps in all",
        "machine": f"{count} × {name}" if count > 1 else name,
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores",
        "versions": ", ".join(versions),
    }
    rows = {name: len(part) for name, part in getattr(run.data, "splits", {}).items() if hasattr(part, "labels")}
    if rows:
        found["rows"] = ", ".join(f"{count:,} {name}" for name, count in rows.items())
    return found


def curves(points: Mapping[str, Sequence[Sequence[float]]]) -> list[str]:
    """Charts of loss, scores and learning rate."""
    made = [
        charts.lines(
            "Loss",
            [
                ("train steps", points.get("train/loss", ()), "training, by step"),
                ("train", points.get("train/loss_epoch", ()), "training"),
                ("val", points.get("val/loss", ()), "validation"),
            ],
        )
    ]
    for score, title in scores_in(points).items():
        pairs = [(kind, points.get(f"{kind}/{score}", ()), SPLITS[kind]) for kind in ("train", "val")]
        made.append(charts.lines(title, pairs))
    made.append(charts.lines("Learning rate", [("rate", points.get("lr", ()), "learning rate")]))
    return [chart for chart in made if chart]


def classes(split: Mapping[str, Any], data: Any) -> dict[str, Any]:
    """What the page shows of classes: their table, the confusion matrix and the reliability diagram."""
    rows = split["classes"]
    labels = [row["label"] for row in rows]
    trained = getattr(getattr(data, "splits", {}).get("train"), "labels", None)
    counts = [0] * len(labels) if trained is None else rows_with(np.asarray(trained), len(labels))
    table = [row | {"trained": int(count)} for row, count in zip(rows, counts, strict=True)]
    shown = table
    if len(table) > LISTED:
        shown = sorted((row for row in table if row["f1"] is not None), key=lambda row: row["f1"])[:LISTED]
    matrix = split.get("confusion_matrix")
    bins = split["reliability"]
    error = sum(entry["rows"] * abs(entry["accuracy"] - entry["confidence"]) for entry in bins if entry["rows"])
    return {
        "classes": shown,
        "all_classes": len(table),
        "known_training": trained is not None,
        "labels": labels,
        "rows": split["rows"],
        "matrix": matrix if matrix and len(matrix) <= NAMED else None,
        "heat": charts.heat(matrix) if matrix and NAMED < len(matrix) <= DRAWN else None,
        "confused": confused(matrix, labels) if matrix else [],
        "reliability": charts.reliability(bins, error / max(split["rows"], 1)) if bins else "",
        "several": not bins,
    }


def confused(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> list[dict[str, Any]]:
    """The classes that are mistaken for others most often."""
    pairs: list[dict[str, Any]] = [
        {"label": labels[row], "answer": labels[column], "rows": count, "share": count / sum(counts)}
        for row, counts in enumerate(matrix)
        for column, count in enumerate(counts)
        if count and row != column
    ]
    return sorted(pairs, key=lambda pair: pair["rows"], reverse=True)[:CONFUSED]


def lengths(run: Run) -> str:
    """Accuracy by length, in about equally many rows each; empty where all have the same length."""
    bins = list(run.findings.lengths.values())
    if len({(least, most) for *_, least, most in bins}) < 2:
        return ""
    each = sum(rows for rows, *_ in bins) / GROUPS
    groups: list[dict[str, Any]] = []
    for rows, right, least, most in bins:
        if groups and (groups[-1]["rows"] < each):
            last = groups[-1]
            last["rows"], last["right"], last["most"] = last["rows"] + rows, last["right"] + right, most
        else:
            groups.append({"rows": rows, "right": right, "least": least, "most": most})
    for group in groups:
        group["accuracy"] = group["right"] / group["rows"]
    facts = run.task.facts
    kind = "waveform" if facts.audio is not None else facts.kind
    unit = INPUTS[kind].unit if facts.tokens is None else UNITS.get(facts.tokens.kind, facts.tokens.kind)
    return charts.by_length(groups, unit)


def mistakes(run: Run) -> list[dict[str, Any]]:
    """The worst answers, with their inputs."""
    wrong, split = run.findings.wrong, (run.split or {}).get("split", "test")
    if not wrong:
        return []
    strategy = run.trainer.strategy
    # A network whose weights, or sequences, are spread over processes answers only if all of them ask
    together = isinstance(run.task, FSDPModule) or getattr(strategy, "data_group", None) is not None
    parts = None if together else explained(run.task, run.data, split, wrong, strategy.root_device)
    size = getattr(getattr(run.data, "decoder", None), "size", None)
    found = []
    for place, one in enumerate(wrong):
        entry = {"name": one.name, "windows": one.windows, **run.task.answers.told(*one.mistake)._asdict()}
        text = parts[place] if parts else None
        shown = media.shown(one.x, run.task.facts, size)
        if text:
            most = max((abs(part.effect) for part in text if part.effect is not None), default=0) or 1
            shades = [None if part.effect is None else part.effect / most for part in text]
            shown = {"kind": "text", "parts": list(zip((part.text for part in text), shades, text, strict=True))}
        found.append(entry | shown)
    return found


def worst(run: Run, split: str) -> dict[str, Any]:
    """What they are called above and below them, and whether parts of texts are shaded."""
    wrong, kept = run.findings.wrong, run.findings.kept
    if not wrong:
        return {}
    title, every, first = run.task.answers.worst
    which = (every if len(wrong) < kept else first).format(kept=kept, split=split)
    return {"title": title, "which": which, "shaded": any(one.sign for one in wrong)}


def figure(value: float | None) -> str:
    """A figure of a table."""
    return "–" if value is None else f"{value:.4g}" if abs(value) >= 1000 else f"{value:.3f}"


def percent(value: float | None) -> str:
    """A share of a table."""
    return "–" if value is None else f"{value:.1%}"


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()

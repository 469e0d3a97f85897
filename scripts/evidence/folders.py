"""What tells the output folders of two runs of one training apart: nothing may, if one of them was only interrupted."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

# Each start logs to a folder of its own, and what configuration and report say of a start is not of the training: its
# command, its seconds. The figures of the report are those of the other files.
APART = ("checkpoints", "csv", "tensorboard", "config.yaml", "printed.txt", "hparams.yaml", "report.html")
PLACE = "<folder>"  # in place of where a run lies


def differences(one: Path, other: Path) -> list[str]:
    """Names of what two runs left that is not equal to the last bit.

    Compared are all that the last and the best checkpoint hold: weights, states of the optimizer, of the learning rate,
    of callbacks (scores, points of the curves) and of the loops; the rows of all metrics.csv, by step, but for speeds,
    where of several starts that came to a step the last counts; the weights of the exported model; and every byte of
    all other files, such as reports, pictures and the summary. Only the name of the folder, and the number that each
    saved model is given, may differ.
    """
    found = []
    for name in ("last.ckpt", "best.ckpt"):
        files = (run / "checkpoints" / name for run in (one, other))
        first, second = (
            leaves(torch.load(file, weights_only=True), file.parents[1]) if file.is_file() else {} for file in files
        )
        started = [key for key in _differing(first, second) if not key.endswith(".ckpt_path")]  # how a run was started
        found += [f"{name}: {key}" for key in started]
    found += [f"metrics.csv: {key}" for key in _differing(logged(one), logged(other))]
    found += _differing(files_of(one), files_of(other))
    return sorted(found)


def leaves(value: Any, folder: Path, name: str = "") -> dict[str, Any]:
    """All that a checkpoint holds, by name."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        found: dict[str, Any] = {}
        for key, part in items:
            found |= leaves(part, folder, f"{name}.{_placed(str(key), folder)}" if name else str(key))
        return found or {name: str(value)}
    return {name: _placed(value, folder) if isinstance(value, str) else value}


def logged(folder: Path) -> dict[str, str]:
    """What was logged, by step and name."""
    found: dict[str, str] = {}
    for file in sorted(folder.glob("csv/version_*/metrics.csv"), key=lambda file: int(file.parent.name[8:])):
        with file.open(newline="") as stream:
            for row in csv.DictReader(stream):
                found |= {
                    f"step {row['step']}: {name}": value
                    for name, value in row.items()
                    if value and not name.endswith("_per_second")
                }
    return found


def files_of(folder: Path) -> dict[str, Any]:
    """What all other files hold, and the names of all checkpoints."""
    found: dict[str, Any] = {
        str(file.relative_to(folder)): True
        for file in folder.glob("checkpoints/*")
        if ".previous" not in file.name and file.name != "run.json"
    }
    for file in folder.rglob("*"):
        name = str(file.relative_to(folder))
        if file.is_dir() or name.partition("/")[0] in APART:
            continue
        if file.suffix == ".safetensors":
            found |= {f"{name}: {key}": tensor for key, tensor in load_file(file).items()}
        elif file.suffix == ".json":
            found |= {f"{name}: {key}": part for key, part in _json(file, folder)}
        else:
            found[name] = _placed(file.read_bytes().decode("latin-1"), folder)
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two leaves are equal, tensors in every bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [key for key in one.keys() | other.keys() if not same(one.get(key), other.get(key))]


def _json(file: Path, folder: Path) -> Iterator[tuple[str, Any]]:
    for key, value in leaves(json.loads(file.read_text(encoding="utf-8")), folder).items():
        if key != "save":  # a number that is drawn for each saved model
            yield key, value


def _placed(text: str, folder: Path) -> str:
    text = text.replace(str(folder.resolve()), PLACE)
    return re.sub(rf"(?<![\w/]){re.escape(str(folder))}(?!\w)", PLACE, text)  # a whole word: "run", but not "running"

"""Small runs whose pages are looked at: one of texts, one of pictures, one of clips."""

import contextlib
import io
import shutil
from pathlib import Path
from typing import NamedTuple

import datasets
import huggingface_hub.constants
import pytest
from small_audio import clip_folder
from small_data import SHORT, TINY_ENCODER, TINY_RESNET, image_folder, texts, write_jsonl

from lambda_seq.tasks.callbacks import curves
from lambda_seq.tasks.cli import main

KINDS = {
    "texts": ("text_classification", *TINY_ENCODER, "--data.batch_size=3"),
    "pictures": ("image_classification", *TINY_RESNET, "--data.batch_size=8", "--baseline=true"),
    "clips": ("audio_classification", *TINY_ENCODER, "--data.batch_size=5", "--model.options.strides=[4,4]"),
}


class Page(NamedTuple):
    """A run's folder, its page, and what the command printed."""

    folder: Path
    html: str
    printed: str


def run(kind: str, folder: Path) -> Page:
    """Fit; each input of the test has both labels, so that one of its answers is wrong."""
    data = ambiguous(kind, folder / "data")
    config, *options = KINDS[kind]
    words = ("fit", "--config", config, f"--data.path={data}", f"--output_dir={folder / 'run'}", *options, *SHORT)
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        patch.setattr("sys.argv", ["lambda-seq", *words])
        patch.setattr(curves, "draw", lambda *_: None)
        patch.chdir(folder)
        main()
    return Page(folder / "run", (folder / "run" / "report.html").read_text(encoding="utf-8"), printed.getvalue())


def ambiguous(kind: str, folder: Path) -> Path:
    """Data whose test split has each input with both labels."""
    if kind == "texts":
        for split, count in {"train": 32, "validation": 8}.items():
            write_jsonl(folder / f"{split}.jsonl", [renamed(row) for row in texts(count)])
        rows = [renamed(row) for row in texts(6)]
        other = {"<feline>": "canine", "canine": "<feline>"}
        both = [row | {"label": label} for row in rows for label in (row["label"], other[row["label"]])]
        write_jsonl(folder / "test.jsonl", both)
        return folder
    make, names = (image_folder, ("up", "down")) if kind == "pictures" else (clip_folder, ("high", "low"))
    make(folder, {"train": 10, "validation": 3, "test": 2}, names=names)
    for name, other in (names, names[::-1]):
        for file in sorted((folder / "test" / name).glob("0*")):
            shutil.copy(file, folder / "test" / other / f"copied {file.name}")
    return folder


def renamed(row: dict) -> dict:
    return row | {"label": row["label"].replace("feline", "<feline>")}

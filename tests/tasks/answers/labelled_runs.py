"""Small runs whose data have several labels, or numbers, in each row."""

import contextlib
import io
import logging
from pathlib import Path

import datasets
import pytest
import torch
from small_data import QUIET

from lambda_seq.tasks.callbacks import curves
from lambda_seq.tasks.cli import LambdaCLI, main
from lambda_seq.tasks.data.reading import notes

WORDS = (  # a network that learns words in a few steps
    *("--recipe=null", "--data.tokenizer=words", "--data.batch_size=8", "--model.options.stem=ngrams"),
    *("--model.options.dim=16", "--model.options.depth=0", "--model.options.strides=[]", "--model.optimizer.lr=0.1"),
)


def multilabel_texts(count: int) -> list[dict]:
    """Texts, and as labels the animals that they name."""
    rows = []
    for row in range(count):
        labels = [name for bit, name in enumerate(("cat", "dog", "fish")) if row % 7 >> bit & 1]
        rows.append({"text": f"the {' and the '.join(labels) or 'rest'} of row", "label": labels})
    return rows


def fit(folder: Path, config: str, *words: str) -> tuple[Path, str]:
    """Fit in a folder, in this process: the run's folder, and what was said."""
    parsers, said = LambdaCLI.subcommands(), io.StringIO()
    handler = logging.StreamHandler(said)
    given = ("fit", "--config", config, *words, f"--output_dir={folder / 'run'}", *QUIET)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        patch.setattr(LambdaCLI, "subcommands", staticmethod(lambda: {"fit": parsers["fit"]}))
        patch.setattr("sys.argv", ["lambda-seq", *given])
        patch.setattr(curves, "draw", lambda *_: None)
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.chdir(folder)
        notes.log.addHandler(handler)
        try:
            main()
        finally:
            notes.log.removeHandler(handler)
    return folder / "run", said.getvalue()


def weights(folder: str) -> dict[str, torch.Tensor]:
    """The weights of a run's last checkpoint, and the moments of its optimizer."""
    checkpoint = torch.load(f"{folder}/checkpoints/last.ckpt", weights_only=True)
    moments = {
        f"{index}.{name}": torch.as_tensor(value)
        for index, state in checkpoint["optimizer_states"][0]["state"].items()
        for name, value in state.items()
    }
    return checkpoint["state_dict"] | moments

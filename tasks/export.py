"""The trained network by itself, as `lambda_seq.from_pretrained` reads it, with all it takes to use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.distributed.tensor import DTensor

from tasks.data.tokens import Tokens
from tasks.training import Training

SIZES = ("in_channels", "image_size", "max_length")
INPUT = {
    "image": "Pixels (B, C, H, W) from 0 to 255, standardised per channel: (x − `mean`) / `std` of `preprocessing`.",
    "features": "Features (B, N, C) of N positions; `preprocessing` says how they were standardised.",
    "waveform": "Samples (B, N) of one channel; `preprocessing` says at which rate, and how they were standardised.",
    "tokens": "Token ids (B, N), and a mask (B, N) that is True at real positions. ",
}
IDS = {
    "bytes": "A text is its bytes: the id of byte b is 1 + b, and 0 is padding.",
    "tokenizer": "The tokenizer comes with the model; `preprocessing` has the id of padding.",
}


def export(task: Training, folder: Path, *, source: str, metrics: dict[str, float]) -> Path | None:
    """Save a task's network with labels, tokenizer and what the data module measured, as a folder to share.

    Args:
        task: with the weights to save.
        folder: where to.
        source: of the data, for the model card; of a path its last part is named.
        metrics: figures for the model card.

    Returns:
        The folder; None, and nothing is written, if the weights are spread over several processes.
    """
    if any(isinstance(parameter, DTensor) for parameter in task.network.parameters()):
        return None
    facts: dict[str, Any] = task.hparams["facts"]
    tokens = facts.get("tokens")
    return task.network.save_pretrained(
        folder,
        labels=getattr(task, "labels", None),
        tokenizer=Tokens.from_facts(tokens).tokenizer if tokens else None,
        preprocessing=preprocessing(facts),
        card=card(facts, source, metrics),
    )


def preprocessing(facts: dict[str, Any]) -> dict[str, Any]:
    """Of the facts of a data module those that tell how to make the network's input."""
    kept: dict[str, Any] = {name: facts[name] for name in ("input", "mean", "std", "audio") if name in facts}
    kept |= {name: facts["options"][name] for name in SIZES if name in facts["options"]}
    if "tokens" in facts:  # without the tokenizer itself, which has a file of its own
        kept["tokens"] = {name: facts["tokens"][name] for name in ("kind", "pad", "vocab_size")}
    return kept


def card(facts: dict[str, Any], source: str, metrics: dict[str, float]) -> str:
    """What the model card says of input, data and results, as Markdown."""
    takes = INPUT[facts["input"]] + (IDS[facts["tokens"]["kind"]] if "tokens" in facts else "")
    name = Path(source).name if Path(source).exists() else source  # where it lies here concerns nobody
    lines = ["## Input", "", takes.strip(), "", "## Training", "", f"Trained with lambda_seq on `{name}`."]
    if metrics:
        lines += ["", "| metric | value |", "|---|---:|"]
        lines += [f"| {name} | {value:.4f} |" for name, value in metrics.items()]
    return "\n".join(lines) + "\n"

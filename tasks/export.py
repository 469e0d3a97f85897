"""The trained network by itself, as `lambda_seq.from_pretrained` reads it, with all it takes to use it."""

from __future__ import annotations

from pathlib import Path

from torch.distributed.tensor import DTensor

from lambda_seq.models.hub.folder import remove_unfinished
from lambda_seq.models.inputs import INPUTS
from lambda_seq.tasks.data.reading.tokens import Tokens
from lambda_seq.tasks.facts import Facts
from lambda_seq.tasks.training import Training

IDS = {
    "bytes": "A text is its bytes: the id of byte b is 1 + b, and 0 is padding.",
    "words": "A text is its words, each a hash: `lambda_seq.models.words.word_ids(text)`; 0 is padding.",
    "dna": "A sequence is its letters: `lambda_seq.inference.tokens.Tokens.of(model).encode(text)`; 0 is padding.",
    "protein": "A sequence is its letters: `lambda_seq.inference.tokens.Tokens.of(model).encode(text)`; 0 is padding.",
    "tokenizer": "The tokenizer comes with the model; `preprocessing` has the id of padding.",
}


def export(task: Training, folder: Path, *, source: str, metrics: dict[str, float]) -> Path | None:
    """Save a task's network with labels, tokenizer and what the data module measured, as a folder to share.

    What a run that was killed has left of an export is removed; no other run may write to the folder meanwhile.

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
    remove_unfinished(folder)
    facts = task.facts
    return task.network.save_pretrained(
        folder,
        labels=getattr(task, "labels", None),
        tokenizer=None if facts.tokens is None else Tokens.from_facts(facts.tokens.to_dict()).tokenizer,
        preprocessing=facts.preparation(),
        card=card(facts, source, metrics),
    )


def card(facts: Facts, source: str, metrics: dict[str, float]) -> str:
    """What the model card says of input, data and results, as Markdown."""
    takes = INPUTS[facts.kind].said + ("" if facts.tokens is None else f" {IDS[facts.tokens.kind]}")
    name = Path(source).name if Path(source).exists() else source  # where it lies here concerns nobody
    lines = ["## Input", "", takes, "", "## Training", "", f"Trained with lambda_seq on `{name}`."]
    if metrics:
        lines += ["", "| metric | value |", "|---|---:|"]
        lines += [f"| {name} | {value:.4f} |" for name, value in metrics.items()]
    return "\n".join(lines) + "\n"

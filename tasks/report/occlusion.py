"""Which words of a text an answer depends on, by occlusion: each part is left out in turn, and the answer looked at."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lambda_seq.models.words import WORD
from lambda_seq.tasks.data import TextData
from lambda_seq.tasks.data.reading.documents import pad
from lambda_seq.tasks.data.reading.tokens import Tokens
from lambda_seq.tasks.report.findings import Wrong
from lambda_seq.tasks.training import Training

PARTS = 48  # of a text, at most, that are left out in turn
AT_ONCE = 2**17  # positions that a network is given together
SECONDS = 60.0  # after which no further text is begun

BYTES = re.compile(rb"\s*\S+|\s+")


class Part(NamedTuple):
    """A part of a text, and how much of the answer's probability is lost without it, None where it was not tried."""

    text: str
    effect: float | None


def explained(task: Training, data: Any, split: str, wrong: Sequence[Wrong], device: Any) -> list[list[Part] | None]:
    """The parts of each text that was answered wrongly; None of what is no text, or has no words to show.

    Args:
        task: with the weights that answered.
        data: that has the texts.
        split: "val" or "test".
        wrong: the answers.
        device: to compute on.
    """
    vocabulary = getattr(task.facts, "tokens", None)
    if vocabulary is None:
        return [None for _ in wrong]
    tokens = Tokens.from_facts(vocabulary.to_dict())
    found: list[list[Part] | None] = []
    begun, before = time.monotonic(), task.device
    task.to(device).eval()
    # Each text has another length, for which a network would be compiled anew
    eager = torch.compiler.set_stance("force_eager") if getattr(task, "compiles", False) else nullcontext()
    try:
        with eager:
            for one in wrong:
                pieces = pieces_of(one.x.numpy(), tokens, data, split, one.name)
                if pieces and one.sign and time.monotonic() - begun < SECONDS:
                    found.append(occluded(task, one, pieces, tokens.pad))
                else:
                    found.append([Part("".join(text for text, _ in pieces), None)] if pieces else None)
    finally:
        task.to(before)
    return found


def pieces_of(ids: np.ndarray, tokens: Tokens, data: Any, split: str, name: str) -> list[tuple[str, int]] | None:
    """Words of a text in order, each with the number of its tokens; None where no text comes back."""
    if tokens.kind == "bytes":
        raw = (ids - 1).astype(np.uint8).tobytes()
        return [(piece.decode("utf-8", errors="replace"), len(piece)) for piece in BYTES.findall(raw)]
    if tokens.alphabet is not None:
        return [(letter, 1) for letter in tokens.decode(ids.tolist())]
    if tokens.kind == "tokenizer":
        return [(tokens.decode([index]), 1) for index in ids.tolist()]
    text = text_of(data, split, name)
    if text is None:
        return None
    starts = [match.start() for match in WORD.finditer(text)]
    every = tokens.encode(text)
    if len(starts) != len(every):  # letters that are other ones in lower case
        return None
    begin = next(
        (at for at in range(len(every) - len(ids) + 1) if np.array_equal(every[at : at + len(ids)], ids)), None
    )
    if begin is None:
        return None
    starts = [*starts[begin : begin + len(ids) + 1], len(text)][: len(ids) + 1]
    return [(text[start:end], 1) for start, end in pairwise(starts)]


def text_of(data: Any, split: str, name: str) -> str | None:
    """The text of a row of a split by the row's name; None if there is none."""
    if not isinstance(data, TextData):
        return None
    rows = data.split({"val": "validation"}.get(split, split))
    items = data.rows_as_items(rows, split)
    place = next((row for row in range(len(rows)) if items.item(row)["id"] == name), None)
    if place is None:
        return None
    return next(iter(data.texts(rows.take(np.array([place]))))).decode("utf-8", errors="replace")


@torch.inference_mode()
def occluded(task: Training, wrong: Wrong, pieces: Sequence[tuple[str, int]], padding: int) -> list[Part]:
    """The text in at most `PARTS` parts of whole words, each with what the answer loses when it is left out.

    Args:
        task: on the device to compute on, in evaluation.
        wrong: the answer, with the ids (N,) that were read.
        pieces: words, and how many ids each of them has.
        padding: id of padding.
    """
    groups = [group for group in np.array_split(np.arange(len(pieces)), min(PARTS, len(pieces))) if len(group)]
    bounds = np.concatenate([[0], np.cumsum([size for _, size in pieces])])
    texts, without = [], []
    for group in groups:
        first, last = int(group[0]), int(group[-1])
        texts.append("".join(text for text, _ in pieces[first : last + 1]))
        without.append(torch.cat([wrong.x[: bounds[first]], wrong.x[bounds[last + 1] :]]))
    answers = torch.cat(list(_answers(task, [wrong.x, *without], padding)))
    chances = (wrong.sign * answers[:, wrong.place]).tolist()
    return [Part(text, chances[0] - chance) for text, chance in zip(texts, chances[1:], strict=True)]


def _answers(task: Training, inputs: Sequence[Tensor], padding: int) -> Iterable[Tensor]:
    """Probabilities (B, classes or labels) of token ids, some at a time."""
    most = max(map(len, inputs))
    size = max(AT_ONCE // max(most, 1), 1)
    for begin in range(0, len(inputs), size):
        items = [{"x": ids, "id": ""} for ids in inputs[begin : begin + size]]
        batch = pad(items, multiple=1, most=None, value=padding)
        logits = task({name: batch[name].to(task.device) for name in ("x", "mask")})
        yield task.network.objective.answers(logits.float()).cpu()

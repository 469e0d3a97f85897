"""Batches: what each kind of data hands to a task, by key, shape and dtype.

B rows, N positions, C channels; what is padded to the longest row of a batch has a mask, True at real positions. Names
and labels go with all of them: "id", a name for each row, and "label", which data to predict need not have: class
numbers (B,) int64; of several labels 0 or 1 (B, labels), or numbers (B, numbers), float32; of tags class numbers of
each word (B, words) int64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from lambda_seq import functional as LF
from lambda_seq.inference.batches import mean_by_document
from lambda_seq.inference.tagging import Marked
from lambda_seq.models.heads import Objective


class RowBatch(TypedDict):
    """What batches of rows have in common."""

    id: list[str]
    label: NotRequired[Int[Tensor, " B"] | Float[Tensor, "B labels"]]


class SequenceBatch(RowBatch):
    """Token ids, padded; without a mask where all sequences have the same length."""

    x: Int[Tensor, "B N"]
    mask: NotRequired[Bool[Tensor, "B N"]]


class PictureBatch(RowBatch):
    """Bytes of pixels, or the same in reading order, (B, N, C)."""

    x: UInt8[Tensor, "B C H W"] | UInt8[Tensor, "B N C"]


class ClipBatch(RowBatch):
    """Samples from −1 to 1, padded with zeros; without a mask where none is."""

    x: Float[Tensor, "B N"]
    mask: NotRequired[Bool[Tensor, "B N"]]


class SeriesBatch(RowBatch):
    """Series of numbers, NaN where one is missing, padded with zeros; without a mask where none is."""

    x: Float[Tensor, "B N C"]
    mask: NotRequired[Bool[Tensor, "B N"]]


class WindowBatch(RowBatch):
    """Whole documents in W windows, which are read `at_once` at a time; "id" and "label" are of the B documents."""

    x: Int[Tensor, "W N"]
    mask: Bool[Tensor, "W N"]
    document: Int[Tensor, " W"]  # place of a window's document in "id" and "label"
    at_once: int
    readings: NotRequired[int]  # of each document, where there are several, as of both strands of DNA


class ClipWindowBatch(RowBatch):
    """As `WindowBatch`, of whole clips in windows of samples."""

    x: Float[Tensor, "W N"]
    mask: Bool[Tensor, "W N"]
    document: Int[Tensor, " W"]
    at_once: int


class TagBatch(TypedDict):
    """Texts in W windows, which are read `at_once` at a time, and where their words are answered."""

    x: Int[Tensor, "W N"]
    mask: Bool[Tensor, "W N"]
    at_once: int
    id: list[str]  # of the B texts
    window: Int[Tensor, "B words"]  # that answers a word
    position: Int[Tensor, "B words"]  # of it, in that window
    words: Int[Tensor, " B"]  # how many a text has; what follows is padding
    label: NotRequired[Int[Tensor, "B words"]]  # class numbers, `IGNORED` where there is none
    texts: NotRequired[MarkedTexts]


class LanguageBatch(TypedDict):
    """Rows of pieces of documents, each token with the one that follows, or `IGNORED` where that does not count."""

    x: Int[Tensor, "B N"]
    target: Int[Tensor, "B N"]
    documents: Packed
    mask: NotRequired[Bool[Tensor, "B N"]]  # where there is padding
    bytes: Float[np.ndarray, "B P"]  # of text that each of up to P pieces of a row predicts
    id: list[list[str]]  # of the pieces of each row


Batch = (
    SequenceBatch | PictureBatch | ClipBatch | SeriesBatch | WindowBatch | ClipWindowBatch | TagBatch | LanguageBatch
)


class MarkedTexts:
    """The texts of a batch with their words, as a plain object, which Lightning and the loader pass on as it is."""

    def __init__(self, marked: Sequence[Marked]) -> None:
        self.marked = marked


class Packed:
    """The packing of a batch, on its way from where rows are collated to the network.

    Rows are collated on the CPU, where a packing is made without waiting for a GPU. It then travels with the batch:
    workers send it, the loader pins it, and Lightning moves it, as anything that has a method `to`. A plain object
    holds it because Lightning's precision plugins rebuild dataclasses field by field, which a frozen one refuses.

    Args:
        packing: of the rows of the batch.
    """

    def __init__(self, packing: LF.Packing) -> None:
        self.packing = packing

    def to(self, device: torch.device | str) -> Packed:
        """On another device; without waiting for it where memory is pinned."""
        return Packed(self.packing.to(device, non_blocking=torch.device(device).type == "cuda"))

    def pin_memory(self) -> Packed:
        """In pinned memory."""
        return Packed(self.packing.pin_memory())


def named(items: Sequence[Mapping[str, Any]]) -> RowBatch:
    """Names of items and, as far as they are known, their labels."""
    names: RowBatch = {"id": [item["id"] for item in items]}
    if "label" in items[0]:
        names["label"] = torch.from_numpy(np.array([item["label"] for item in items]))
    return names


def answer_by_document(
    network: Callable[[Tensor, Tensor], Tensor],
    batch: WindowBatch | ClipWindowBatch | dict[str, Any],
    objective: Objective,
    agreed: Callable[[int], int] = int,
) -> Float[Tensor, "B classes"]:
    """Logits (B, classes) of documents, which say the mean of their windows' answers.

    Args:
        network: takes "x" and "mask" of some windows and gives their logits.
        batch: of whole documents, or clips.
        objective: that answers by logits.
        agreed: as of `in_pieces`.
    """
    answers = torch.cat(
        [objective.answers(found.float()) for found in in_pieces(network, batch, agreed)]
    )  # (W, classes)
    return objective.logits(mean_by_document(answers, batch["document"]))  # (B, classes)


def in_pieces(
    network: Callable[[Tensor, Tensor], Tensor], batch: Any, agreed: Callable[[int], int]
) -> Iterator[Tensor]:
    """Logits of the windows of a batch, "at_once" of them at a time.

    Args:
        network: takes "x" and "mask" of some windows and gives their logits.
        batch: of windows.
        agreed: from the number of calls that the batch needs to the number that is made, as all processes have to call
            a network alike whose weights are spread over them; what more calls give is left out.
    """
    pieces = list(zip(batch["x"].split(batch["at_once"]), batch["mask"].split(batch["at_once"]), strict=True))
    made = agreed(len(pieces))  # before the first call: processes have to meet in one order
    for x, mask in pieces:
        yield network(x, mask)
    for _ in range(len(pieces), made):
        network(*pieces[-1])


def answer_by_word(
    network: Callable[[Tensor, Tensor], Tensor],
    batch: TagBatch | dict[str, Any],
    agreed: Callable[[int], int] = int,
) -> Float[Tensor, "B words classes"]:
    """Logits of each word, from the windows that answer them; those behind a text's last word mean nothing.

    Args:
        network: takes "x" and "mask" of some windows and gives the logits of their positions.
        batch: of texts.
        agreed: as of `in_pieces`.
    """
    window, position = batch["window"], batch["position"]
    answers: Tensor | None = None
    for number, logits in enumerate(in_pieces(network, batch, agreed)):  # (at_once, N, classes)
        inside = (window // batch["at_once"]) == number
        if answers is None:
            answers = logits.new_zeros(*window.shape, logits.shape[-1])
        answers[inside] = logits[window[inside] % batch["at_once"], position[inside]]
    assert answers is not None
    return answers

"""What takes less memory, in options of the command line; and errors of memory that end with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn

NO_MEMORY = (  # what torch and its libraries say when they get none
    *("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "could not create a memory"),
    *("nsufficient memory", "Cannot allocate memory", "Unable to allocate"),
)
SHORTER = {  # options that make rows smaller, by the data module's attributes, in words
    "image_size": "a smaller --data.image_size",
    "crop_seconds": "a shorter --data.crop_seconds",
    "max_seconds": "a shorter --data.max_seconds",
    "max_length": "a shorter --data.max_length",
    "length": "a shorter --data.length",
}


def advice(data: Any, trainer: Trainer, rows: int | None = None) -> str:
    """Options that take less, for these data, in words.

    Args:
        data: the data module, of any kind.
        trainer: of the run.
        rows: of a batch that would fit; default: half of those that there are.
    """
    batch = int(getattr(data, "batch_size", 1))
    offers = []
    if batch > 1:
        rows = rows or batch // 2
        smaller = f"--data.batch_size {rows}"
        if trainer.state.fn == TrainerFn.FITTING:
            steps = -(-batch // rows) * trainer.accumulate_grad_batches
            smaller += f" --trainer.accumulate_grad_batches {steps} (as many rows in a step)"
        offers.append(smaller)
    offers += [words for name, words in SHORTER.items() if hasattr(data, name)]
    if not str(trainer.precision).startswith(("bf16", "16")):
        offers.append("--trainer.precision bf16-mixed")
    if trainer.state.fn == TrainerFn.FITTING:
        offers.append("a smaller network")
    *others, last = offers or ["a machine with more memory"]
    return f"{', '.join(others)} or {last}" if others else last


def says_no_memory(error: BaseException) -> bool:
    """Whether an error is of memory: of Python, of torch on a GPU, or of its libraries on the CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, (RuntimeError, OSError)) and any(words in str(error) for words in NO_MEMORY)


@contextmanager
def naming_options(data: Any, trainer: Trainer) -> Iterator[None]:
    """Let an error of memory end with the options to change.

    Raises:
        MemoryError: in place of any error of memory, on one line.
    """
    try:
        yield
    except Exception as error:
        if not says_no_memory(error):
            raise
        raise MemoryError(f"out of memory ({_shortly(error)}); try {advice(data, trainer)}") from error


def _shortly(error: BaseException) -> str:
    """The sentence of an error that says how much was asked for, or the first one."""
    sentences = str(error).strip().split("\n")[0].split(". ")
    asked = [sentence for sentence in sentences if "allocate" in sentence]
    return (asked or sentences)[0].rstrip(".") or type(error).__name__

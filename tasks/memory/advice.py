"""What takes less memory, in options of the command line; and errors of memory that end with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lambda_seq.tasks.memory.errors import says_no_memory

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

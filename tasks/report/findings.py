"""What is kept of a test to be looked at: the worst mistakes, and how right answers are by length."""

from __future__ import annotations

import heapq
import math
import time
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, distributed

from lambda_seq.tasks.answers import Answer

KEPT = 12  # mistakes
LONGEST = 2**19  # positions of an input that are kept
STEPS = 4  # bins of length in which it doubles


class Wrong(NamedTuple):
    """A wrong answer.

    Attributes:
        mistake: how wrong it is, and what else `Answer.mistakes` says of it.
        name: of the row.
        x: the input on the CPU without its padding, of pictures (C, H, W), else (N) or (N, C).
        windows: in how many windows it was read, of which `x` is the first.
    """

    mistake: tuple[float, int, float, float, float]
    name: str
    x: Tensor
    windows: int = 1

    @property
    def place(self) -> int:
        """Which of the row's answers is wrong."""
        return self.mistake[1]

    @property
    def sign(self) -> float:
        """1 or -1 where a greater or a smaller number there speaks for it, 0 where neither does."""
        return self.mistake[2]


class Findings(Callback):
    """Keeps of each test, and of a validation outside of a fit, the worst answers: the surest, or the farthest off.

    All processes together keep as many as one does. Of lengths only sums are kept, so that memory does not depend on
    the number of rows.

    Args:
        kept: wrong answers.

    Attributes:
        wrong: the worst first.
        lengths: by bin, rows, rows that are right, the least and the greatest length.
        seconds: that the training took.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self.kept = kept
        self.wrong: list[Wrong] = []
        self.lengths: dict[int, tuple[int, int, int, int]] = {}
        self.seconds = 0.0
        self._began = 0.0
        self._heap: list[tuple[float, int, Wrong]] = []
        self._count = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the time."""
        self._began = time.monotonic()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the time."""
        self.seconds = time.monotonic() - self._began

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self._begin()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, if this is no validation within a fit."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._begin()

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """Look through a batch."""
        self.add(batch, outputs, pl_module)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """Look through a batch."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self.add(batch, outputs, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put together what all processes have found."""
        self.gather(getattr(trainer.strategy, "data_group", None))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put together what all processes have found."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self.gather(getattr(trainer.strategy, "data_group", None))

    def _begin(self) -> None:
        self._heap, self._count, self.wrong, self.lengths = [], 0, [], {}

    def add(self, batch: Any, outputs: Any, task: Any) -> None:
        """Look through a batch, if the task's answers say what is wrong with theirs; others are passed by.

        The last rows of the batch may be without an answer: another process has them, too.
        """
        answers = getattr(task, "answers", None)
        if not isinstance(answers, Answer) or not isinstance(outputs, dict) or not len(outputs.get("labels", ())):
            return
        found = answers.mistakes(outputs)
        if found is None:
            return
        rows = found.tolist()  # the device is waited for once
        if answers.right_or_wrong:
            self._measure(batch, [row[0] == -math.inf for row in rows])
        for place, (worst, *others) in enumerate(rows):
            self._count += 1
            if worst == -math.inf or math.isnan(worst):
                continue
            if len(self._heap) == self.kept and worst <= self._heap[0][0]:
                continue
            which, sign, first, second = others
            x, windows = _input(batch, place)
            wrong = Wrong((worst, int(which), sign, first, second), str(batch["id"][place]), x, windows)
            entry = (worst, -self._count, wrong)  # of equal ones the first
            (heapq.heappush if len(self._heap) < self.kept else heapq.heapreplace)(self._heap, entry)

    def _measure(self, batch: Any, right: list[bool]) -> None:
        """Count by length, of what has one."""
        if batch["x"].ndim == 4:
            return
        mask = batch.get("mask")
        lengths = torch.full(batch["x"].shape[:1], batch["x"].shape[1]) if mask is None else mask.sum(1).cpu()
        if "document" in batch:
            lengths = torch.zeros(len(batch["id"]), dtype=torch.long).index_add_(0, batch["document"].cpu(), lengths)
            lengths //= batch.get("readings", 1)
        for length, correct in zip(lengths.tolist(), right, strict=False):  # rows without an answer are the last
            place = math.floor(STEPS * math.log2(length)) if length else -1
            rows, good, least, most = self.lengths.get(place, (0, 0, length, length))
            self.lengths[place] = rows + 1, good + correct, min(least, length), max(most, length)

    def gather(self, group: Any = None) -> None:
        """Put together what the processes of a group have found, None for all; each of them has it then."""
        found = [(self._heap, self.lengths)]
        if distributed.is_available() and distributed.is_initialized():
            found *= distributed.get_world_size(group)
            distributed.all_gather_object(found, (self._heap, self.lengths), group=group)
        heaps = [entry for heap, _ in found for entry in heap]
        self.wrong = [wrong for *_, wrong in sorted(heaps, key=lambda entry: entry[:2], reverse=True)[: self.kept]]
        lengths: dict[int, tuple[int, int, int, int]] = {}
        for _, own in found:
            for place, (rows, good, least, most) in own.items():
                before = lengths.get(place, (0, 0, least, most))
                lengths[place] = rows + before[0], good + before[1], min(least, before[2]), max(most, before[3])
        self.lengths, self._heap = dict(sorted(lengths.items())), []


def _input(batch: Any, place: int) -> tuple[Tensor, int]:
    """The input of a row without its padding, and in how many windows it was read; of several the first."""
    windows = 1
    if "document" in batch:
        every = (batch["document"] == place).nonzero()[:, 0]
        place, windows = int(every[0]), len(every) // batch.get("readings", 1)
    x, mask = batch["x"][place], batch.get("mask")
    if mask is not None:
        x = x[mask[place].to(x.device)]
    if x.ndim < 3:
        x = x[:LONGEST]
    return x.detach().cpu().clone(), windows

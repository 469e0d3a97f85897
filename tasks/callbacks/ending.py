"""How a fit may end: refused before its training, once it is known whether the data can be tested; or broken off."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lambda_seq.tasks.checkpointing.runs import newest_run
from lambda_seq.tasks.checkpointing.storage import LAST, damage


class Ending(Callback):
    """Refuses a fit whose test or export could only fail when all is trained; says how one that is broken off goes on.

    Args:
        tests: whether it ends with a test, if the data have one.
        exports: whether it ends with an export of the network.
        keeps: whether checkpoints are kept.
        folder: of the last checkpoint.
    """

    def __init__(self, *, tests: bool, exports: bool, keeps: bool, folder: Path | None = None) -> None:
        self.tests, self.exports, self.keeps, self.folder = tests, exports, keeps, folder

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check, as data were read just now.

        Raises:
            ValueError: less than a batch to test, or weights that are spread over processes and nowhere whole.
        """
        if stage != "fit":
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        limit = trainer.limit_test_batches
        tests = self.tests and limit != 0 and data.tested
        if isinstance(trainer.strategy, ModelParallelStrategy) and not self.keeps and (tests or self.exports):
            raise ValueError(
                "trainer.enable_checkpointing=False with trainer.strategy=fsdp2: the weights are whole in checkpoints "
                "alone, of which a test and the exported model are made; keep them, or give --test_after_fit false "
                "--export false"
            )
        if isinstance(limit, float) and 0 < limit < 1 and tests:
            batches = len(data.test_dataloader())
            if limit * batches < 1:
                raise ValueError(
                    f"trainer.limit_test_batches={limit}: less than one of the {batches} batches to test; give "
                    f"{1 / batches:.3g} or more, a number of batches, or --test_after_fit false"
                )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say with which command a run that was interrupted, or asked to stop, goes on."""
        interrupted = isinstance(exception, KeyboardInterrupt)
        if not trainer.is_global_zero or not (interrupted or isinstance(exception, SIGTERMException)):
            return
        if not self.keeps or self.folder is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if interrupted and trainer.state.fn == TrainerFn.FITTING:
            print(f"interrupted after step {trainer.global_step}; {_saved(self.folder / LAST)}", file=sys.stderr)
        elif interrupted:
            print("interrupted when all was trained; what is missing follows", file=sys.stderr)
        print(f"go on with: {command_to_go_on(sys.argv)}", file=sys.stderr)


def command_to_go_on(words: Sequence[str]) -> str:
    """The command that goes on with the run that a command has begun.

    Args:
        words: of that command, as `sys.argv` has them.
    """
    program = ["lambda-seq"] if Path(words[0]).stem == "lambda-seq" else ["python", "-m", "lambda_seq"]
    kept, following = [], ""
    for word in words[1:]:
        name, given, _ = word.partition("=")
        follows, following = following, "" if given else name
        if name in ("--ckpt_path", "--overwrite", "--no_overwrite") or follows == "--ckpt_path":
            continue
        if follows == "--overwrite" and word.lower() in ("true", "yes", "false", "no"):
            continue
        kept.append(word)
    return shlex.join([*program, *kept, "--ckpt_path", "last"])


def _saved(file: Path) -> str:
    """What a checkpoint holds, in words."""
    if not newest_run(file.parent).owns(file) or damage(file):
        return "nothing is saved yet, and it begins anew"
    step = torch.load(file, map_location="cpu", weights_only=True, mmap=True)["global_step"]
    return f"{file} holds all until step {step}"

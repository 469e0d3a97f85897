"""Samples of generated text, to see what the figures mean."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lambda_seq.models.sequence.generation import GenerativeModel
from lambda_seq.tasks.data.reading.tokens import Tokens
from lambda_seq.tasks.training import gathered

SHOWN = 300  # characters of the first sample that are printed


class TextSamples(Callback):
    """Generates text after each validation: into TensorBoard, a text file, and, the beginning of it, the console.

    A sample goes on from the beginning of a document, or from a prompt, until it ends itself or has `length` tokens.
    Samples are drawn with a seed of their own, always the same, and leave the random numbers of training as they are.

    Args:
        prompt: text that samples go on from; "" for the beginning of a document.
        count: number of samples.
        length: tokens of a sample, at most.
        temperature: of the softmax that is sampled from, below 1 for likelier tokens; 0 takes the likeliest.
        top_k: sample among the k likeliest tokens only; default: all.
        top_p: sample among the fewest tokens that together have probability p; default: all.
        seed: of the samples.
        every: validations from one time to the next.
        path: file that samples are appended to, anew for a new training; default: OUTPUT_DIR/samples.txt.
    """

    def __init__(
        self,
        prompt: str = "",
        count: int = 1,
        length: int = 400,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        every: int = 1,
        path: str | None = None,
    ) -> None:
        for name, number in (("count", count), ("length", length), ("every", every)):
            if number < 1:
                raise ValueError(f"{name}={number}: expected at least 1")
        self.prompt, self.count, self.length = prompt, count, length
        self.options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
        self.every, self.path = every, path
        self.validations = 0
        self._written: int | None = None  # bytes of the file that are of this training

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the network, which is made by now, generates text.

        Raises:
            ValueError: it does not.
        """
        self._check(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As `on_fit_start`, for `validate`."""
        self._check(pl_module)

    def _check(self, pl_module: LightningModule) -> None:
        network = getattr(pl_module, "network", None)
        if not isinstance(network, GenerativeModel) or "tokens" not in pl_module.hparams.get("facts", {}):
            raise ValueError(
                f"TextSamples: a {type(pl_module).__name__} of {type(network).__name__} generates no text; leave the "
                "callback out, or train a language model"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a new file, or take from that of the run that is resumed what was written after its checkpoint."""
        file = self._file(trainer)
        if not trainer.is_global_zero or trainer.fast_dev_run or not file.is_file():  # type: ignore[attr-defined]
            return
        if self.validations and self._written is None:  # the checkpoint does not say how much there was
            return
        if not self.validations:
            print(f"the samples of an earlier training in {file} are replaced", file=sys.stderr)
        os.truncate(file, min(self._written or 0, file.stat().st_size))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Generate, on the first process, unless this is the check before training."""
        if trainer.sanity_checking:
            return
        self.validations += 1
        if self.validations % self.every:
            return
        network: Any = gathered(pl_module)  # type: ignore[arg-type]  # `setup` has seen that it is a Training
        if not trainer.is_global_zero:
            return
        samples = self.generate(pl_module, network)
        text = "\n\n".join(f"--- step {trainer.global_step}, sample {n}\n{s}" for n, s in enumerate(samples, 1))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                # As code, so that Markdown shows it as it is
                logger.experiment.add_text(
                    "samples", "\n".join(f"    {line}" for line in text.splitlines()), trainer.global_step
                )
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        file = self._file(trainer)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as stream:
            stream.write(text + "\n\n")
            self._written = stream.tell()
        more = "…" if len(samples[0]) > SHOWN else ""
        print(f"--- step {trainer.global_step}, sample 1 of {len(samples)} ({file})\n{samples[0][:SHOWN]}{more}\n---")

    def generate(self, task: LightningModule, network: GenerativeModel | None = None) -> list[str]:
        """The samples, prompt included, as text; of the task's network if none is given.

        Raises:
            ValueError: the prompt leaves no room for a token, as position tables are no longer.
        """
        network = network or task.network  # type: ignore[assignment]
        assert network is not None
        tokens = Tokens.from_facts(task.hparams["facts"]["tokens"])
        begun = tokens.encode(self.prompt)
        prompt = torch.tensor([[tokens.pad, *begun.tolist()]] * self.count, device=task.device)
        length = self.length if network.max_length is None else min(self.length, network.max_length - len(begun))
        if length < 1:
            raise ValueError(
                f"TextSamples: a prompt of {len(begun)} tokens leaves no room in max_length={network.max_length}; "
                "give a shorter one"
            )
        training = network.training
        network.eval()
        try:
            ids = network.generate(prompt, length, stop=tokens.pad, pad_id=tokens.pad, **self.options)  # type: ignore[arg-type]
        finally:
            network.train(training)
        return [tokens.decode([*begun, *row]) for row in ids.tolist()]

    def state_dict(self) -> dict[str, Any]:
        """How many validations there were, and how long the file is."""
        return {"validations": self.validations, "written": self._written}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.validations, self._written = state_dict["validations"], state_dict.get("written")

    def _file(self, trainer: Trainer) -> Path:
        return Path(self.path or Path(trainer.default_root_dir) / "samples.txt")

"""What all tasks share: a network that fits the data, its optimizer and learning rate, and checks of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule

from lambda_seq.models import Model, accepted_options, create_model
from tasks.distributed import shard
from tasks.frontends import AudioFrontend
from tasks.optimization import decay_groups, planned_steps, warmup_cosine

Batch = dict[str, Any]


class Training(LightningModule):
    """A network of the registry in training; a task derives from this and adds its steps and its metrics.

    After `super().__init__(...)` a task calls `self.save_hyperparameters(ignore=["optimizer"])`, so that its
    checkpoints say of which network, options and data they are.

    Args:
        network: name of the network.
        options: arguments of the network, in place of what follows from the data.
        facts: what the data module says of its data; see `tasks.data.module`.
        optimizer: function of parameter groups; None for AdamW with lr 0.001 and weight_decay 0.05.
        warmup: part of the steps in which the learning rate grows linearly from 0.
        final_lr: learning rate at the last step, as a part of the greatest.
        schedule_steps: optimizer steps over which the learning rate goes its way; None for all of the training.

    Attributes:
        monitor: metric that tells which checkpoint is best, and whether "max" or "min" of it is.
        exports: whether the best network is worth keeping by itself, for `lambda_seq.from_pretrained`.

    Raises:
        ValueError: a number out of range, no facts, or a network that does not take such data.
    """

    monitor: ClassVar[tuple[str, str]] = ("val/loss", "min")
    exports: ClassVar[bool] = True

    def __init__(
        self,
        network: str,
        options: dict[str, Any] | None,
        facts: dict[str, Any] | None,
        *,
        optimizer: OptimizerCallable | None,
        warmup: float,
        final_lr: float,
        schedule_steps: int | None,
    ) -> None:
        super().__init__()
        for name, part in (("warmup", warmup), ("final_lr", final_lr)):
            if not 0 <= part <= 1:
                raise ValueError(f"{name}={part}: expected a number from 0 to 1")
        if not facts:
            raise ValueError("facts: what the data are must be given, as data modules do in `data.facts`")
        self.optimizer = optimizer
        self.warmup, self.final_lr, self.schedule_steps = warmup, final_lr, schedule_steps
        self.network = network_for(network, options, facts)
        if "mean" in facts:
            self.mean: Tensor
            self.std: Tensor
            self.register_buffer("mean", torch.tensor(facts["mean"], dtype=torch.float32))
            self.register_buffer("std", torch.tensor(facts["std"], dtype=torch.float32))
        self.frontend = AudioFrontend(**facts["audio"]) if "audio" in facts else None

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """What the network takes of a batch: "x" as it must be, and the mask of that or None.

        Bytes of pixels are standardised with mean and std per channel; samples of audio become what `AudioFrontend`
        makes of them, and their mask follows.
        """
        x, mask = batch["x"], batch.get("mask")
        if self.frontend is not None:
            return self.frontend(x, mask)
        if x.dtype == torch.uint8:  # pixels 0..255, (B, C, H, W) or (B, N, C)
            shape = (-1, 1, 1) if x.ndim == 4 else (-1,)
            x = (x - self.mean.view(shape)) / self.std.view(shape)
        return x, mask

    def configure_model(self) -> None:
        """Under --trainer.strategy fsdp2, spread the weights over the processes."""
        if self.device_mesh is not None:
            shard(self, self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, and a learning rate that warms up and falls along a cosine, by step."""
        groups = decay_groups(self)
        if self.optimizer is None:
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.05)
        else:
            optimizer = self.optimizer(groups)
        steps = self.schedule_steps or planned_steps(self.trainer)
        scheduler = warmup_cosine(optimizer, steps=steps, warmup=round(self.warmup * steps), final=self.final_lr)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network, saying which is which.

        Raises:
            ValueError: the checkpoint does not fit.
        """
        theirs = checkpoint.get("hyper_parameters", {})
        if "network" not in theirs:
            raise ValueError("ckpt_path: the checkpoint is of no task of lambda_seq; give one that is")
        check_audio(theirs["facts"].get("audio", {}), self.hparams["facts"].get("audio", {}))
        check_tokens(theirs["facts"].get("tokens"), self.hparams["facts"].get("tokens"))
        shapes = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        weights = checkpoint.get("state_dict", self.state_dict())  # gone if weights are spread: loaded, and strictly
        saved = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        if theirs["network"] != self.hparams["network"] or shapes != saved:
            differing = [name for name in saved | shapes if shapes.get(name) != saved.get(name)]
            example = f", such as {differing[0]}" if differing else ""
            raise ValueError(
                f"ckpt_path: the checkpoint is of another model ({len(differing)} weights differ{example}).\n"
                f"  checkpoint: {described(theirs)}\n  configured: {described(self.hparams)}\n"
                "Give the configuration it was trained with, or another checkpoint."
            )


def network_for(network: str, options: dict[str, Any] | None, facts: dict[str, Any]) -> Model:
    """The network of this name, with the sizes that follow from the data where it takes them; `options` win.

    Raises:
        ValueError: no such network, or one that takes other input than the data are.
    """
    accepted = accepted_options(network)
    given = {name: value for name, value in facts["options"].items() if name in accepted}
    # The command line passes null on as a word, as an option of a network can be anything.
    chosen = {name: None if value in ("None", "null") else value for name, value in (options or {}).items()}
    model = create_model(network, **(given | chosen))
    check_input(network, model.input_kind, facts["input"])
    return model


def whole(task: Training, checkpoint: Path) -> None:
    """Put in place of a network whose weights are spread over processes one that has all those of a checkpoint."""
    network = network_for(*(task.hparams[name] for name in ("network", "options", "facts")))
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    prefix = "network."
    network.load_state_dict({name.removeprefix(prefix): saved[name] for name in saved if name.startswith(prefix)})
    task.network = network


def gathered(task: Training) -> Model | None:
    """The network of a task; of weights that are spread over processes a copy with all of them, on the first process.

    All processes have to ask; the others have None of it.
    """
    if not isinstance(task, FSDPModule):
        return task.network
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(task.network, options=options)
    if not task.trainer.is_global_zero:
        return None
    network = network_for(*(task.hparams[name] for name in ("network", "options", "facts")))
    network.load_state_dict(weights)
    return network.to(task.device)


def check_input(network: str, takes: str, kind: str) -> None:
    """That the network takes what the data are: "image", "features", "waveform" or "tokens"."""
    if takes != kind:
        remedy = {
            "image": "choose a network for images, such as lambda_resnet50",
            "features": "choose lambda_encoder with options.stem: features",
            "waveform": "choose lambda_encoder with options.stem: waveform",
            "tokens": "choose lambda_encoder with options.stem: tokens",
        }[kind]
        if (takes, kind) == ("features", "image"):
            remedy += ", or turn images into sequences of pixels with --data.as_sequence true"
        if (takes, kind) == ("features", "waveform"):
            remedy += ", or turn audio into log-mel frames with --data.representation log_mel"
        raise ValueError(f"network={network!r} takes {takes} but the data are {kind}: {remedy}")


def check_audio(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """That a checkpoint's audio and the data's are prepared in the same way; only their statistics may differ.

    Raises:
        ValueError: they differ; names the options to give.
    """
    options = {"sampling_rate": "", "representation": "", "standardize": "", "n_mels": "log_mel."}
    options |= {"n_fft": "log_mel.", "hop_length": "log_mel."}
    differing = [name for name in options if theirs.get(name) != ours.get(name)]
    if differing and theirs and ours:
        found = ", ".join(f"{name}={ours.get(name)}" for name in differing)
        remedy = " ".join(f"--data.{options[name]}{name} {theirs[name]}" for name in differing if name in theirs)
        raise ValueError(f"ckpt_path: the checkpoint heard other audio than the data are now, {found}; give {remedy}")


def check_tokens(theirs: dict[str, Any] | None, ours: dict[str, Any] | None) -> None:
    """That a checkpoint and the data mean the same by a token id; facts of `tasks.data.tokens.Tokens`.

    Raises:
        ValueError: they do not.
    """
    if theirs and ours and theirs["fingerprint"] != ours["fingerprint"]:
        named = [f"{facts['kind']}, {facts['vocab_size']} ids, {facts['fingerprint']}" for facts in (theirs, ours)]
        raise ValueError(
            f"ckpt_path: the checkpoint has another vocabulary than the data.\n  checkpoint: {named[0]}\n"
            f"  data: {named[1]}\nGive the tokenizer it was trained with as --data.tokenizer; one trained on the data "
            "is the same only for the same training texts and vocab_size."
        )


def described(hparams: Any) -> str:
    """Network, options and data of a model, in a line."""
    options = (hparams["facts"]["options"]) | (hparams["options"] or {})
    return f"{hparams['network']}({', '.join(f'{name}={value!r}' for name, value in sorted(options.items()))})"

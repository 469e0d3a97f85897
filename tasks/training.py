"""What all tasks share: a network that fits the data, its optimizer and learning rate, and checks of checkpoints."""

from __future__ import annotations

import copy
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.plugins import DoublePrecision
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torchmetrics import Metric

from lambda_seq.inference.frontends import standardized
from lambda_seq.layers import adopt_batch_norms
from lambda_seq.layers.decay import position_parameters
from lambda_seq.models import Model, accepted_options
from lambda_seq.models.hub.older import current_options
from lambda_seq.tasks import figures
from lambda_seq.tasks.callbacks.finite import FiniteTraining
from lambda_seq.tasks.facts import Facts
from lambda_seq.tasks.metrics import TrainingLoss
from lambda_seq.tasks.networks import adapt, described, network_for
from lambda_seq.tasks.optimization import (
    Positions,
    Schedule,
    decay_groups,
    made_by,
    plain_factory,
    planned_steps,
    scale_positions,
    warmup_cosine,
    warn_of_early_end,
)
from lambda_seq.tasks.strategies.distributed import shard
from lambda_seq.tasks.trainers import trainer_of
from lambda_seq.tasks.weighing import WeighedSteps, Window

Batch = dict[str, Any]
FIGURES = "training_figures"  # where a checkpoint has the figures of an epoch


class Training(LightningModule):
    """A network of the registry in training; a task derives from this and adds its steps and its metrics.

    A task's `__init__` checks and keeps what is its own, and ends with `self.begin(facts)`: the network is made by
    `build`, at once for facts that are given, else when a trainer has read its data. A `build` of its own makes what
    depends on the data, such as metrics of so many classes. Checkpoints hold the task's arguments without its doing.

    Its `training_step` returns the mean loss of a batch, updates `training_metrics`, and calls `weigh` with the number
    of rows, tokens or positions that the mean is over: an optimizer step then learns from the mean over all that its
    batches and processes count.

    Args:
        network: name of the network.
        options: arguments of the network, in place of what follows from the data.
        optimizer: any of torch.optim, or a function of parameters; default AdamW with lr 0.001 and weight_decay 0.05.
            Biases, norms and position embeddings do not decay.
        position_lr: learning rate of position embeddings, as a factor of the optimizer's, such as 0.1; default: 1.
        position_decay: weight decay of position embeddings; default: 0.
        warmup: part of the steps in which the learning rate grows linearly from 0.
        final_lr: learning rate at the last step, as a part of the greatest; it falls along a cosine.
        schedule_steps: optimizer steps over which the learning rate goes its way; default: all steps of
            --trainer.max_epochs, or else --trainer.max_steps. Give it if a run of fewer epochs is to go on with more,
            of one course.

    Attributes:
        facts: what the data are, once `build` was called.
        network: the network, once `build` was called.
        schedule: course of the learning rate, once training has begun.
        monitor: metric that tells which checkpoint is best, and whether "max" or "min" of it is.
        exports: whether the best network is worth keeping by itself, for `lambda_seq.from_pretrained`.
        evaluates_best: whether a fit without a test ends with a validation of the best checkpoint.
        head: the head that the network gets, see `lambda_seq.models.heads`; None for the one that it has.
        head_options: of that head.
        compared: the figure that a baseline is compared by, see `tasks.baselines.fitted`; None for none.
        shares_sequences: whether several processes may share its sequences, as it calls `network` with whole ones and
            sums up by position: see `tasks.strategies.sequence_parallel`.

    Raises:
        ValueError: a number out of range, no facts, or a network that does not take such data.
    """

    monitor: ClassVar[tuple[str, str]] = ("val/loss", "min")
    exports: ClassVar[bool] = True
    evaluates_best: ClassVar[bool] = False
    compared: str | None = None
    shares_sequences: ClassVar[bool] = False
    head: str | None = None
    head_options: Mapping[str, Any] | None = None

    def __init__(
        self,
        network: str,
        options: dict[str, Any] | None = None,
        *,
        optimizer: OptimizerCallable | None = None,
        position_lr: float | None = None,
        position_decay: float | None = None,
        warmup: float = 0.05,
        final_lr: float = 0.0,
        schedule_steps: int | None = None,
    ) -> None:
        super().__init__()
        for name, part in (("warmup", warmup), ("final_lr", final_lr)):
            if not 0 <= part <= 1:
                raise ValueError(f"{name}={part}: expected a number from 0 to 1")
        if schedule_steps is not None and schedule_steps < 1:
            raise ValueError(f"schedule_steps={schedule_steps}: expected at least 1, or None for all of the training")
        self.positions = Positions(position_lr, position_decay)
        self.positions.check()
        accepted_options(network)  # an unknown name is an error before data are read
        self.save_hyperparameters(ignore=["optimizer"])  # of the task's __init__ too, which called this one
        self.named, self.options = network, options
        self.optimizer = plain_factory(optimizer)
        self.warmup, self.final_lr, self.schedule_steps = warmup, final_lr, schedule_steps
        self.schedule: Schedule | None = None
        self.train_loss, self.window = TrainingLoss(), Window()
        self._goes_on = False  # whether training begins in the middle of an epoch

    def begin(self, facts: Facts | Mapping[str, Any] | None) -> None:
        """`build` for facts that are given; without, `configure_model` does when a trainer has read its data."""
        if facts:
            self.build(facts)

    def build(self, facts: Facts | Mapping[str, Any] | None) -> None:
        """Make the network, and what makes its input, for data of these facts; checkpoints will hold them.

        Raises:
            ValueError: no facts, or a network that does not take such data.
        """
        if not facts:
            raise ValueError("facts: what the data are must be given, as data modules do in `data.facts`")
        self.facts = Facts.of(facts)
        self.hparams["facts"] = self.facts.to_dict()
        # Private to Lightning: what loggers write, whose public name can only be read
        self._hparams_initial = copy.deepcopy(self.hparams)
        self.network = self.make_network()
        if self.positions and not position_parameters(self.network):
            raise ValueError(
                f"position_lr={self.positions.lr}, position_decay={self.positions.decay}: {self.named} has no position "
                "embeddings here; leave them out"
            )
        if self.facts.pixels is not None:
            self.mean: Tensor
            self.std: Tensor
            self.register_buffer("mean", torch.tensor(self.facts.pixels.mean, dtype=torch.float32))
            self.register_buffer("std", torch.tensor(self.facts.pixels.std, dtype=torch.float32))
        self.frontend = self.facts.frontend()

    def make_network(self) -> Model:
        """A network of this task's name, options and head, for its data."""
        return network_for(self.named, self.options, self.facts, head=self.head, head_options=self.head_options)

    def judged_by(self, facts: Facts) -> tuple[str, str]:
        """The metric that tells which checkpoint is best for these data, and whether "max" or "min" of it is."""
        return self.monitor

    # Private to Lightning: `save_hyperparameters` keeps what it finds through it
    def _set_hparams(self, hp: Any) -> None:
        """As Lightning's, but facts are kept as primitives, which a checkpoint can hold."""
        super()._set_hparams(hp)
        if isinstance(self.hparams.get("facts"), Facts):
            self.hparams["facts"] = self.hparams["facts"].to_dict()

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *given: Any, **options: Any) -> Self:
        """As Lightning's; the class, and options of the network, may have had other names when it was written."""
        if isinstance(checkpoint_path, (str, Path)) and Path(checkpoint_path).is_file():
            checkpoint = torch.load(checkpoint_path, map_location="cpu", weights_only=True, mmap=True)
            hparams = checkpoint.get("hyper_parameters", {})
            if "_class_path" in hparams:  # of the command line; another trainer keeps none
                options.setdefault("_class_path", f"{cls.__module__}.{cls.__qualname__}")
            stored = hparams.get("options")
            if "options" not in options and stored and "network" in hparams:
                options["options"] = current_options(hparams["network"], stored, checkpoint.get("state_dict", ()))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Lightning's own use of jsonargparse
            return super().load_from_checkpoint(checkpoint_path, *given, **options)

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """What the network takes of a batch: "x" as it must be, and the mask of that or None.

        Bytes of pixels are standardised with mean and std per channel; samples of audio become what `AudioFrontend`
        makes of them, and their mask follows.
        """
        x, mask = batch["x"], batch.get("mask")
        if self.frontend is not None:
            return self.frontend(x, mask)
        if x.dtype == torch.uint8:  # pixels 0..255, (B, C, H, W) or (B, N, C)
            x = standardized(x, self.mean, self.std)
        return x, mask

    @property
    @abstractmethod
    def training_metrics(self) -> Mapping[str, Metric]:
        """Figures of an epoch of training by the names that they are logged by, the loss as "train/loss_epoch"."""

    def weigh(self, loss: Tensor, count: Tensor | int) -> None:
        """Note over how much the loss of a batch of the training is a mean, and log what there is to see.

        Logged are "train/loss_step", the loss of the optimizer step so far over all processes, and the figures of the
        epoch.
        """
        self.window.add(loss, count, self._over_processes)
        self.train_loss.show(self.window.mean)
        options: dict[str, Any] = {"on_epoch": True, "prog_bar": True, "batch_size": 1}
        self.log("train/loss", self.train_loss, on_step=True, **options)
        for name, metric in self.training_metrics.items():
            if metric is not self.train_loss:
                self.log(name, metric, on_step=False, **options)

    def _over_processes(self, tensor: Tensor) -> Tensor:
        trainer = trainer_of(self)
        if trainer is None or trainer.world_size == 1:
            return tensor
        mean: Tensor = trainer.strategy.reduce(tensor, reduce_op="mean")
        return mean

    def configure_callbacks(self) -> list[Callback]:
        """What weighs the batches of a step, and what ends a training that has turned NaN."""
        present = {type(callback) for callback in self.trainer.callbacks}  # type: ignore[attr-defined]
        return [needed() for needed in (WeighedSteps, FiniteTraining) if needed not in present]

    def on_fit_start(self) -> None:
        """Let the network count what it weighs by, at the beginning of a training that resumes no other."""
        if self.trainer.ckpt_path is None:
            adapt(self.network, self.trainer.datamodule)  # type: ignore[attr-defined]

    def on_train_start(self) -> None:
        """Log the figures of an epoch that goes on, which may have no batch left."""
        if self._goes_on:
            for name, metric in self.training_metrics.items():
                self.log(name, metric)

    def configure_model(self) -> None:
        """Make the network for the trainer's data, unless it is made; under fsdp2, spread its weights over processes.

        Lightning calls this when the data were read, before it loads a checkpoint.

        Raises:
            ValueError: as `build`.
        """
        if not hasattr(self, "network"):
            data = None if trainer_of(self) is None else self.trainer.datamodule  # type: ignore[attr-defined]
            with drawing_alike():
                self.build(getattr(data, "facts", None))
        if trainer_of(self) is None:
            return
        if isinstance(self.trainer.precision_plugin, DoublePrecision):
            # Lightning does so after it has loaded a checkpoint, of which then only float32 is left
            self.trainer.precision_plugin.convert_module(self)
        self.arrange()
        if self.device_mesh is not None:
            shard(self, self.device_mesh["data_parallel"])

    def arrange(self) -> None:
        """Bring the network that is made into the form that it is trained in."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, and a learning rate that warms up and falls along a cosine, by step.

        Raises:
            ValueError: the optimizer refuses its options or such parameters, or the training has no end.
        """
        groups = decay_groups(self, self.positions)
        if self.optimizer is None:
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.05)
        else:
            optimizer = made_by(self.optimizer, groups)
        scale_positions(optimizer, self.positions)
        steps = planned_steps(self.trainer) if self.schedule_steps is None else self.schedule_steps
        self.schedule = Schedule(steps, round(self.warmup * steps), self.final_lr)
        if self.schedule_steps is not None:
            warn_of_early_end(self.trainer, self.schedule)
        scheduler = warmup_cosine(optimizer, **self.schedule._asdict())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store what the figures of an epoch have summed up, if the checkpoint is of its middle.

        Raises:
            FloatingPointError: the training is not finite any more, and the checkpoint would not be, too.
        """
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, FiniteTraining):
                callback.keep(self.trainer, self)
        if figures.within_epoch(checkpoint["loops"]):
            checkpoint[FIGURES] = figures.sums(self.training_metrics, self.trainer)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network, saying which is which; go on with the figures of an epoch.

        Raises:
            ValueError: the checkpoint does not fit.
        """
        theirs = checkpoint.get("hyper_parameters", {})
        if not {"network", "facts"} <= set(theirs):
            raise ValueError("ckpt_path: the checkpoint is of no task of lambda_seq; give one that is")
        trainer = trainer_of(self)
        predicting = trainer is not None and trainer.state.fn == TrainerFn.PREDICTING
        self.facts.check(Facts.from_dict(theirs["facts"]), predicting=predicting)
        adopt_batch_norms(self, checkpoint.get("state_dict", ()))  # of causal layers, as they were once
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
        if trainer is not None and trainer.state.fn == TrainerFn.FITTING:
            self._goes_on = FIGURES in checkpoint
            figures.go_on(self.training_metrics, checkpoint.get(FIGURES, {}), trainer)


@contextmanager
def drawing_alike() -> Iterator[None]:
    """Let weights be drawn on the CPU and in float32, the same whatever device and precision Lightning has chosen."""
    chosen = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(chosen)


def whole(task: Training, checkpoint: Path) -> None:
    """Put in place of a network whose weights are spread over processes one that has all those of a checkpoint."""
    network = task.make_network()
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
    network = task.make_network()
    network.load_state_dict(weights)
    return network.to(task.device)

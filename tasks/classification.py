"""Classification of images and sequences."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from lambda_seq.models import accepted_options, create_model
from tasks.optimization import decay_groups, planned_steps, warmup_cosine

Batch = dict[str, Any]


class Classification(LightningModule):
    """A network of the registry, trained with cross entropy to tell classes apart.

    Args:
        network: name of the network; `python -c "from lambda_seq import list_models; print(list_models())"` lists them.
        options: arguments of the network. Sizes that follow from the data (num_classes, in_channels, vocab_size,
            image_size, max_length) are filled in where the network takes them and nothing else is given.
        label_smoothing: probability spread evenly over all classes in the target, from 0 to below 1.
        optimizer: any of torch.optim, or a function of parameters; default AdamW with lr 0.001 and weight_decay 0.05.
            Biases, norms and position tables do not decay.
        warmup: part of the steps in which the learning rate grows linearly from 0.
        final_lr: learning rate at the last step, as a part of the greatest; it falls along a cosine.
        schedule_steps: optimizer steps over which the learning rate goes its way; default: all steps of
            --trainer.max_epochs, or else --trainer.max_steps. Give it if a run is stopped by fewer epochs and resumed.
        facts: what the data module says of its data: labels, sizes, mean and std; set by the data module.
    """

    def __init__(
        self,
        network: str,
        options: dict[str, Any] | None = None,
        label_smoothing: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        warmup: float = 0.05,
        final_lr: float = 0.0,
        schedule_steps: int | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing}: expected a number from 0 to below 1")
        for name, part in (("warmup", warmup), ("final_lr", final_lr)):
            if not 0 <= part <= 1:
                raise ValueError(f"{name}={part}: expected a number from 0 to 1")
        if not facts:
            raise ValueError("facts: what the data are must be given, as data modules do in `data.facts`")
        self.save_hyperparameters(ignore=["optimizer"])
        self.labels: list[str] = list(facts["labels"])
        self.label_smoothing, self.optimizer = label_smoothing, optimizer
        self.warmup, self.final_lr, self.schedule_steps = warmup, final_lr, schedule_steps

        accepted = accepted_options(network)
        given = {name: value for name, value in facts["options"].items() if name in accepted}
        self.network = create_model(network, **(given | (options or {})))
        _check_input(network, self.network.input_kind, facts["input"])
        if "mean" in facts:
            self.mean: Tensor
            self.std: Tensor
            self.register_buffer("mean", torch.tensor(facts["mean"], dtype=torch.float32))
            self.register_buffer("std", torch.tensor(facts["std"], dtype=torch.float32))
        metrics = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(len(self.labels), average="micro"),
                "f1": MulticlassF1Score(len(self.labels), average="macro"),
            }
        )
        self.train_metrics, self.val_metrics, self.test_metrics = (
            metrics.clone(prefix=f"{stage}/") for stage in ("train", "val", "test")
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, classes) of a batch with "x" and perhaps "mask"."""
        x = batch["x"]
        if x.dtype == torch.uint8:  # pixels 0..255, (B, C, H, W) or (B, N, C)
            shape = (-1, 1, 1) if x.ndim == 4 else (-1,)
            x = (x - self.mean.view(shape)) / self.std.view(shape)
        return self.network(x, batch["mask"]) if "mask" in batch else self.network(x)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Cross entropy of a batch, with label smoothing."""
        return self._step("train", self.train_metrics, batch, smoothing=self.label_smoothing)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Loss and metrics of a batch."""
        self._step("val", self.val_metrics, batch)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Loss and metrics of a batch."""
        self._step("test", self.test_metrics, batch)

    def predict_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        """Row names and class probabilities (B, classes)."""
        return {"id": batch["id"], "probabilities": self(batch).float().softmax(-1)}

    def _step(self, stage: str, metrics: MetricCollection, batch: Batch, smoothing: float = 0.0) -> Tensor:
        logits, labels = self(batch), batch["label"]
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        metrics.update(logits, labels)
        training = stage == "train"
        self.log(f"{stage}/loss", loss, on_step=training, on_epoch=True, prog_bar=True, batch_size=len(labels))
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(labels))
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, and a learning rate that warms up and falls along a cosine, by step."""
        groups = decay_groups(self.network)
        if self.optimizer is None:
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.05)
        else:
            optimizer = self.optimizer(groups)
        steps = self.schedule_steps or planned_steps(self.trainer)
        scheduler = warmup_cosine(optimizer, steps=steps, warmup=round(self.warmup * steps), final=self.final_lr)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network or of other classes, saying which is which.

        Raises:
            ValueError: the checkpoint does not fit.
        """
        theirs = checkpoint.get("hyper_parameters", {})
        if "network" not in theirs:
            raise ValueError("ckpt_path: the checkpoint is of no classification task of lambda_seq; give one that is")
        shapes = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        saved = {name: tuple(tensor.shape) for name, tensor in checkpoint["state_dict"].items()}
        if theirs["network"] != self.hparams["network"] or shapes != saved:
            differing = [name for name in saved | shapes if shapes.get(name) != saved.get(name)]
            example = f", such as {differing[0]}" if differing else ""
            raise ValueError(
                f"ckpt_path: the checkpoint is of another model ({len(differing)} weights differ{example}).\n"
                f"  checkpoint: {_described(theirs)}\n  configured: {_described(self.hparams)}\n"
                "Give the configuration it was trained with, or another checkpoint."
            )
        labels = theirs["facts"]["labels"]
        if labels != self.labels:
            raise ValueError(
                f"ckpt_path: the checkpoint knows other classes than the data.\n  checkpoint: {', '.join(labels)}\n"
                f"  data: {', '.join(self.labels)}\nGive the data it was trained with as --data.path, and images or "
                "texts to classify as --data.predict_path."
            )


def _check_input(network: str, takes: str, kind: str) -> None:
    """That the network takes what the data are: "image", "features" or "tokens"."""
    if takes != kind:
        remedy = {
            "image": "choose a network for images, such as lambda_resnet50",
            "features": "choose lambda_encoder with options.stem: features",
            "tokens": "choose lambda_encoder with options.stem: tokens",
        }[kind]
        if (takes, kind) == ("features", "image"):
            remedy += ", or turn images into sequences of pixels with --data.as_sequence true"
        raise ValueError(f"network={network!r} takes {takes} but the data are {kind}: {remedy}")


def _described(hparams: Any) -> str:
    """Network, options and data of a model, in a line."""
    options = (hparams["facts"]["options"]) | (hparams["options"] or {})
    return f"{hparams['network']}({', '.join(f'{name}={value!r}' for name, value in sorted(options.items()))})"

"""Classification of images and sequences."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from tasks.data.windows import answer_by_document
from tasks.metrics import evaluation_metrics, mean_loss, own_rows, training_metrics
from tasks.mixing import Mixing
from tasks.training import Batch, Training, described
from tasks.transfer import load_weights


class Classification(Training):
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
        init_from: weights to start from, of all but the head: a checkpoint of masked pretraining or of another
            training, or a folder that `save_pretrained` wrote. The network must be the same but for classes, pooling
            and dropout; pictures may have another size.
        mixup: mix each training picture with another one, in shares drawn from Beta(mixup, mixup), such as 0.2. Targets
            follow; train/accuracy counts the class of the greater share.
        cutmix: as mixup, but a rectangle of the other picture is pasted over, such as 1.0. With both, each batch gets
            one of them.
        norm_momentum: part of a batch's statistics in the running ones of batch norms; default: torch's 0.1.
        channels_last: keep pictures and convolutions in the memory format channels_last, which is often faster.
        compile: compile the network with torch.compile, which takes a while at the first batch of each size.
        facts: what the data module says of its data: labels, sizes, mean and std; set by the data module.
    """

    monitor = ("val/accuracy", "max")

    def __init__(
        self,
        network: str,
        options: dict[str, Any] | None = None,
        label_smoothing: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        warmup: float = 0.05,
        final_lr: float = 0.0,
        schedule_steps: int | None = None,
        init_from: str | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        norm_momentum: float | None = None,
        channels_last: bool = False,
        compile: bool = False,
        facts: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            network,
            options,
            facts,
            optimizer=optimizer,
            warmup=warmup,
            final_lr=final_lr,
            schedule_steps=schedule_steps,
        )
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing}: expected a number from 0 to below 1")
        self.save_hyperparameters(ignore=["optimizer"])
        if "labels" not in self.hparams["facts"]:
            raise ValueError(
                "facts: the data have no labels to tell apart; choose data that have, or LanguageModelling"
            )
        self.mixing = Mixing(mixup, cutmix)
        pictures = self.network.input_kind == "image"
        for name, wanted in (("mixup", mixup), ("cutmix", cutmix), ("channels_last", channels_last)):
            if wanted and not pictures:
                raise ValueError(f"{name}={wanted}: is for pictures, and {network} takes {self.network.input_kind}")
        if norm_momentum is not None:
            set_momentum(self.network, norm_momentum)
        self.channels_last, self.compiles = channels_last, compile
        self.labels: list[str] = list(self.hparams["facts"]["labels"])
        self.label_smoothing, self.init_from = label_smoothing, init_from
        self.train_metrics = training_metrics(len(self.labels)).clone(prefix="train/")
        self.val_metrics, self.test_metrics = (
            evaluation_metrics(len(self.labels)).clone(prefix=f"{stage}/") for stage in ("val", "test")
        )
        self.val_loss, self.test_loss = mean_loss(), mean_loss()

    def setup(self, stage: str) -> None:
        """Bring the convolutions into their memory format, and compile; neither changes names of weights."""
        if self.channels_last:
            for module in self.network.modules():
                if isinstance(module, nn.Conv2d):
                    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.compiles:
            self.network.compile()

    def on_fit_start(self) -> None:
        """Load the weights to start from, at the beginning of a training that resumes no other.

        Raises:
            FileNotFoundError, ValueError: there are none, or they do not fit; see `tasks.transfer`.
        """
        if self.init_from is not None and self.trainer.ckpt_path is None:
            load_weights(self.network, self.init_from, self.hparams["facts"], described(self.hparams))

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, classes) of a batch with "x" and perhaps "mask"; B documents if they come in windows."""
        if "document" in batch:
            return answer_by_document(self.network, batch)
        x, mask = self.inputs(batch)
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.network(x) if mask is None else self.network(x, mask)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Cross entropy of a batch, with label smoothing; metrics count the class that a target has most of."""
        labels = target = batch["label"]
        if self.mixing:
            mixed, target = self.mixing(self.inputs(batch)[0], labels, len(self.labels))
            batch, labels = batch | {"x": mixed}, target.argmax(-1)
        logits = self(batch)
        loss = F.cross_entropy(logits, target, label_smoothing=self.label_smoothing)
        self.train_metrics.update(logits, labels)
        self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True, batch_size=len(labels), sync_dist=True)
        self.log_dict(self.train_metrics, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(labels))
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        """Loss and metrics of a batch; its "probabilities" (B, classes) and "labels" (B,)."""
        return self._evaluate("val", self.val_metrics, self.val_loss, batch, batch_index)

    def test_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        """As `validation_step`."""
        return self._evaluate("test", self.test_metrics, self.test_loss, batch, batch_index)

    def predict_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        """Row names and class probabilities (B, classes)."""
        return {"id": batch["id"], "probabilities": self(batch).float().softmax(-1)}

    def on_validation_epoch_end(self) -> None:
        """What simple rules reach on these data, beside the network's figures."""
        self._log_baselines("val")

    def on_test_epoch_end(self) -> None:
        """As `on_validation_epoch_end`."""
        self._log_baselines("test")

    def _log_baselines(self, stage: str) -> None:
        baselines = self.hparams["facts"].get("baselines", {}).get(stage, {})
        for name, accuracy in baselines.items():
            self.log(f"{stage}/baseline_{name}", accuracy, sync_dist=True)

    def _evaluate(
        self, stage: str, metrics: MetricCollection, mean: Metric, batch: Batch, batch_index: int
    ) -> dict[str, Tensor]:
        count = own_rows(self, batch_index, len(batch["label"]))
        logits, labels = self(batch)[:count].float(), batch["label"][:count]
        probabilities = logits.softmax(-1)
        if count:
            mean.update(F.cross_entropy(logits, labels), count)
            metrics.update(probabilities, labels)
        for name, metric in ((f"{stage}/loss", mean), *metrics.items()):
            self.log(name, metric, on_epoch=True, prog_bar="calibration" not in name, batch_size=count)
        return {"probabilities": probabilities, "labels": labels}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network or of other classes, saying which is which.

        Raises:
            ValueError: the checkpoint does not fit.
        """
        if "hidden_seed" in checkpoint:
            raise ValueError(
                "ckpt_path: the checkpoint is of masked pretraining, which knows no classes; give it as "
                "--model.init_from, to start from its weights"
            )
        super().on_load_checkpoint(checkpoint)
        labels = checkpoint["hyper_parameters"]["facts"]["labels"]
        if labels != self.labels:
            raise ValueError(
                f"ckpt_path: the checkpoint knows other classes than the data.\n  checkpoint: {', '.join(labels)}\n"
                f"  data: {', '.join(self.labels)}\nGive the data it was trained with as --data.path, and images or "
                "texts to classify as --data.predict_path."
            )


def set_momentum(network: nn.Module, momentum: float) -> None:
    """Let the batch norms take this part of each batch's statistics into the running ones.

    Raises:
        ValueError: no part between 0 and 1, or a network without batch norms.
    """
    if not 0 < momentum <= 1:
        raise ValueError(f"norm_momentum={momentum}: expected a part above 0 and up to 1, such as 0.1")
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        raise ValueError(f"norm_momentum={momentum}: the network has no batch norms; leave it out")
    for norm in norms:
        norm.momentum = momentum

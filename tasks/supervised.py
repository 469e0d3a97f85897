"""What tasks with a label for each row share: steps, metrics, predictions, and weights to start from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from lambda_seq.models.heads import Objective
from lambda_seq.tasks.facts import Facts
from lambda_seq.tasks.metrics import full, mean_loss, own_rows
from lambda_seq.tasks.networks import described
from lambda_seq.tasks.predictions.tables import AnswerTable, Table
from lambda_seq.tasks.training import Batch, Training
from lambda_seq.tasks.transfer import load_weights


class Supervised(Training):
    """A network with a head, trained by the head's loss to give each row's "label".

    A task says which head, as `head`, and which `metrics`; what a label is, the head's objective says, see
    `lambda_seq.models.heads`. Heads that answer for each position learn from real ones.

        class Regression(Supervised):
            head = "numbers"

            def metrics(self, stage):
                return MetricCollection({"error": MeanAbsoluteError()})

    Logged are "STAGE/loss" and "STAGE/NAME" of the metrics, and of test and validation "STAGE/baseline_NAME" of the
    facts. Metrics take answers, as `Objective.answers` gives them, and labels; of heads that answer for each position
    those of positions that count, one after another.

    Args:
        network, options: as for `Training`.
        init_from: weights to start from, of all but the head: a checkpoint of masked pretraining or of another
            training, or a folder that `save_pretrained` wrote. The network must be the same but for classes, pooling
            and dropout; pictures may have another size.
        channels_last: keep pictures and convolutions (with fsdp2, pictures alone) in the memory format channels_last,
            which is often faster.
        compile: compile the network with torch.compile, which takes a while at the first batch of each size.
        facts: what a data module says of its data: labels, sizes, mean and std; default: those of the trainer's.
        training: as for `Training`.

    Attributes:
        objective: of the training; the network's own counts in validation and test.
    """

    head: str | None = "classes"

    def __init__(
        self,
        network: str,
        options: dict[str, Any] | None = None,
        *,
        init_from: str | None = None,
        channels_last: bool = False,
        compile: bool = False,
        facts: Facts | dict[str, Any] | None = None,
        **training: Any,
    ) -> None:
        super().__init__(network, options, **training)
        self.init_from, self.channels_last, self.compiles = init_from, channels_last, compile
        self.begin(facts)

    @abstractmethod
    def metrics(self, stage: str) -> MetricCollection:
        """What is counted in "train", "val" or "test", by names without the stage."""

    def build(self, facts: Facts | Mapping[str, Any] | None) -> None:
        """The network, and the metrics."""
        super().build(facts)
        self.objective: Objective = self.network.objective
        self.check_pictures(channels_last=self.channels_last)
        self.train_metrics, self.val_metrics, self.test_metrics = (
            self.metrics(stage).clone(prefix=f"{stage}/") for stage in ("train", "val", "test")
        )
        self.val_loss, self.test_loss = mean_loss(), mean_loss()

    def check_pictures(self, **options: float) -> None:
        """Refuse options that are for pictures where there are none.

        Raises:
            ValueError: one is given.
        """
        for name, wanted in options.items():
            if wanted and self.network.input_kind != "image":
                raise ValueError(f"{name}={wanted}: is for pictures, and {self.named} takes {self.network.input_kind}")

    def arrange(self) -> None:
        """Bring the convolutions into their memory format, and compile; neither changes names of weights."""
        if self.channels_last and self.device_mesh is None:  # FSDP2 spreads contiguous weights only
            for module in self.network.modules():
                if isinstance(module, nn.Conv2d):
                    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.compiles:
            self.network.compile()

    def on_fit_start(self) -> None:
        """Load the weights to start from, at the beginning of a training that resumes no other; count without any.

        Raises:
            FileNotFoundError, ValueError: there are none, or they do not fit; see `tasks.transfer`.
        """
        if self.init_from is None:
            super().on_fit_start()
        elif self.trainer.ckpt_path is None:
            load_weights(self.network, self.init_from, self.facts, described(self.hparams))

    def forward(self, batch: Batch) -> Tensor:
        """Logits of a batch with "x" and perhaps "mask"."""
        return self.answer(*self.inputs(batch))

    def answer(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Logits of what `inputs` gives."""
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.network(x) if mask is None else self.network(x, mask)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The loss of a batch."""
        return self.learn(full(self(batch)), batch["label"], batch["label"], self._real(batch))

    def learn(self, logits: Tensor, target: Tensor, labels: Tensor, real: Tensor | None = None) -> Tensor:
        """The loss of logits, counted and logged.

        Args:
            logits: of a batch.
            target: what the loss is of.
            labels: what metrics count.
            real: positions that do, for heads that answer for each.
        """
        loss, count = self.objective.loss(logits, target, real)
        self.train_loss.update(loss.detach(), count)
        answers = self.network.objective.answers(logits.detach())
        self.train_metrics.update(*self._counted(answers, labels, real))
        self.weigh(loss, count)
        return loss

    @property
    def training_metrics(self) -> Mapping[str, Metric]:
        """The loss, and the metrics."""
        return {"train/loss_epoch": self.train_loss, **dict(self.train_metrics.items())}

    def validation_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        """Loss and metrics of a batch; its answers and labels."""
        return self.evaluate("val", batch, batch_index)

    def test_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        """As `validation_step`."""
        return self.evaluate("test", batch, batch_index)

    def predict_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        """Row names, and answers."""
        return {"id": batch["id"], "answers": self.network.objective.answers(self(batch))}

    def prediction_table(self) -> Table:
        """What predictions look like in a file."""
        return AnswerTable()

    def on_validation_epoch_end(self) -> None:
        """What simple rules reach on these data, beside the network's figures."""
        self._log_baselines("val")

    def on_test_epoch_end(self) -> None:
        """As `on_validation_epoch_end`."""
        self._log_baselines("test")

    def _log_baselines(self, stage: str) -> None:
        for name, figure in self.facts.baselines.get(stage, {}).items():
            self.log(f"{stage}/baseline_{name}", figure, sync_dist=True)

    def evaluate(self, stage: str, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        """Count and log the rows of a batch that no other process counts; their "answers" and "labels"."""
        count = own_rows(self, batch_index, len(batch["label"]))
        logits, labels, real = full(self(batch))[:count], batch["label"][:count], self._real(batch)
        real = None if real is None else real[:count]
        metrics: MetricCollection = getattr(self, f"{stage}_metrics")
        mean: Metric = getattr(self, f"{stage}_loss")
        answers = self.network.objective.answers(logits)
        if count:
            mean.update(*self.network.objective.loss(logits, labels, real))
            metrics.update(*self._counted(answers, labels, real))
        for name, metric in ((f"{stage}/loss", mean), *metrics.items()):
            self.log(name, metric, on_epoch=True, prog_bar="calibration" not in name, batch_size=count)
        return {"answers": answers, "labels": labels}

    def _real(self, batch: Batch) -> Tensor | None:
        """Real positions, or frames, of a head that answers for each; None where all are, and of other heads."""
        if self.objective.pooled or batch.get("mask") is None:
            return None
        mask = self.inputs(batch)[1]
        stride: Any = getattr(getattr(self.network, "stem", None), "stride", 1)
        return None if mask is None else mask[:, ::stride]

    def _counted(self, answers: Tensor, labels: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
        """Answers and labels that count, of a head that answers for each position in a row."""
        if self.objective.pooled:
            return answers, labels
        known = self.objective.known(labels)
        known = known if real is None else known & real.view(*real.shape, *[1] * (known.ndim - real.ndim))
        return answers[known], labels[known]

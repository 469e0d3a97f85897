"""Classification of images and sequences: a row's class, labels or numbers, or its words' labels, as the data say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.fsdp import FSDPModule
from torchmetrics import MetricCollection

from lambda_seq.layers import UNSHARDED
from lambda_seq.layers.norm import BatchNorm
from lambda_seq.models.heads import make_objective
from lambda_seq.tasks.answers import Answer, answer_for
from lambda_seq.tasks.data.batches import answer_by_document, answer_by_word
from lambda_seq.tasks.facts import Facts, Target
from lambda_seq.tasks.metrics import full
from lambda_seq.tasks.mixing import Mixing
from lambda_seq.tasks.predictions.tables import Table
from lambda_seq.tasks.supervised import Supervised
from lambda_seq.tasks.training import Batch


class Classification(Supervised):
    """A network of the registry, trained to answer what the data know of each row: `facts.target`.

    That is one class of several, by cross entropy; any of several labels, by the binary cross entropy of each; numbers,
    by their squared errors; or a label for each word of a text, by the cross entropy of each. `tasks.answers` has loss,
    metrics and predictions of each kind.

    Args:
        network: name of the network; `python -c "from lambda_seq import list_models; print(list_models())"` lists them.
        options: arguments of the network. Sizes that follow from the data (num_classes, in_channels, vocab_size,
            image_size, max_length) are filled in where the network takes them and nothing else is given.
        label_smoothing: probability spread evenly over all classes in the target, from 0 to below 1; of several labels
            the part of each target that is 1/2.
        class_weight: factors of the training loss: "balanced", by which rare classes count as much as others, a number
            for each class in their order, or numbers by name, such as {"spam": 5}, 1 for others. Of several labels they
            are of rows that have the label, of labels of words they are of words. Figures of validation and test are
            not weighted.
        huber: of numbers: errors beyond so many standard deviations count by their size, no more by its square, such
            as 1.0.
        mixup: mix each training row, a picture or a sequence of samples or vectors, with another one, in shares drawn
            from Beta(mixup, mixup), such as 0.2. Targets follow; train/accuracy counts the class of the greater share.
        cutmix: as mixup, of pictures only, but a rectangle of the other picture is pasted over, such as 1.0. With both,
            each batch gets one of them.
        norm_momentum: part of a batch's statistics in the running ones of batch norms; default: torch's 0.1.
        facts: what a data module says of its data: labels, sizes, mean and std; default: those of the trainer's.
        training: as for `Supervised`.
    """

    monitor = ("val/accuracy", "max")  # of one class; `judged_by` says that of others
    shares_sequences = True
    compared = "accuracy"
    head = "classes"

    def __init__(
        self,
        network: str,
        options: dict[str, Any] | None = None,
        label_smoothing: float = 0.0,
        class_weight: list[float] | dict[str, float] | str | None = None,
        huber: float | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        norm_momentum: float | None = None,
        facts: Facts | dict[str, Any] | None = None,
        **training: Any,
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing}: expected a number from 0 to below 1")
        self.label_smoothing, self.class_weight = label_smoothing, class_weight
        self.huber, self.norm_momentum = huber, norm_momentum
        self.mixing = Mixing(mixup, cutmix)
        super().__init__(network, options, facts=facts, **training)

    def build(self, facts: Facts | Mapping[str, Any] | None) -> None:
        """The network, and loss and metrics of what the data know of rows.

        Raises:
            ValueError: that is nothing, or an option does not apply to such data or network.
        """
        if facts:
            facts = Facts.of(facts)
            if facts.labels is None:
                raise ValueError(
                    "facts: the data have no labels to tell apart; choose data that have, or LanguageModelling"
                )
            self._answer_as(facts)
        super().build(facts)
        self.objective = self._trained_for
        self.check_pictures(cutmix=self.mixing.cutmix)
        stride: Any = getattr(getattr(self.network, "stem", None), "stride", 1)
        if not self.objective.pooled and stride > 1:
            raise ValueError(
                f"options.strides: {self.named} has one vector for {stride} positions, in which several words may "
                "begin; labels of words need one for each: --model.options.strides []"
            )
        if self.mixing and self.network.input_kind == "tokens":
            raise ValueError(
                f"mixup={self.mixing.mixup}: is for pictures, audio and vectors, and {self.named} takes tokens, which "
                "have no mean; leave it out"
            )
        if self.norm_momentum is not None:
            set_momentum(self.network, self.norm_momentum)

    def _answer_as(self, facts: Facts) -> None:
        """Head, loss and metrics of what such data know of rows."""
        self.answers: Answer = answer_for(facts)
        self.head, self.head_options = self.answers.head, self.answers.head_options
        self.compared = self.answers.compared
        self._trained_for = self.answers.objective(self.label_smoothing, self.class_weight, self.huber)

    @property
    def labels(self) -> list[str]:
        """Names of the classes or labels, in order."""
        return self.facts.labels or []

    def metrics(self, stage: str) -> MetricCollection:
        """As `tasks.answers` has them for such data."""
        return self.answers.metrics(stage)

    def report_metrics(self) -> MetricCollection | None:
        """What is counted of each class; None where there are none."""
        return self.answers.report_metrics()

    def judged_by(self, facts: Facts) -> tuple[str, str]:
        """That of what the data know of rows."""
        return answer_for(facts).monitor

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, classes) of a batch with "x" and perhaps "mask"; B documents, or clips, if they are in windows.

        Of labels of words those of each, (B, words, labels).
        """
        if "position" in batch:
            read = super().forward
            return answer_by_word(lambda x, mask: read({"x": x, "mask": mask}), batch, self._calls)
        if "document" not in batch:
            return super().forward(batch)
        whole = super().forward
        return answer_by_document(
            lambda x, mask: whole({"x": x, "mask": mask}), batch, self.network.objective, self._calls
        )

    def _calls(self, needed: int) -> int:
        """How often the network is called for a batch that needs so many calls.

        Where each call gathers weights of all processes, it is as often as the one with the most windows does; else
        that one would wait forever.
        """
        if not isinstance(self, FSDPModule):
            return needed
        most = torch.tensor(needed, device=self.device)
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
        return int(most)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The loss of a batch, with label smoothing and weights; metrics count what a mixed target has most of."""
        if not self.mixing:
            return super().training_step(batch, batch_index)
        x, mask = self.inputs(batch)
        context = getattr(self.network, "sequence", UNSHARDED)
        mixed, target, mask = self.mixing(
            x, batch["label"], len(self.labels), mask, agreed=lambda share: context.gather(share)[0]
        )
        return self.learn(full(self.answer(mixed, mask)), target, self.answers.counted(target))

    def evaluate(self, stage: str, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        """As of all tasks; returned is what `tasks.answers` has for callbacks."""
        found = super().evaluate(stage, batch, batch_index)
        return self.answers.evaluated(found["answers"], found["labels"])

    def predict_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        """Row names and answers, of classes their probabilities (B, classes), of words also these."""
        found = super().predict_step(batch, batch_index)
        shown: dict[str, Any] = {name: batch[name] for name in ("words", "texts") if name in batch}
        return {"id": found["id"], **shown, **self.answers.predicted(found["answers"])}

    def _real(self, batch: Batch) -> Tensor | None:
        """As of all tasks; of words those that have a label."""
        return None if "position" in batch else super()._real(batch)

    def _counted(self, answers: Tensor, labels: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
        """As of all tasks; of words the likeliest label (B, words), in whole texts, in which entities are counted."""
        if self.objective.pooled:
            return super()._counted(answers, labels, real)
        return answers.argmax(-1), labels

    def prediction_table(self) -> Table:
        """As `tasks.answers` has it."""
        return self.answers.table()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network or of other classes, saying which is which; answer in its units.

        Raises:
            ValueError: the checkpoint does not fit.
        """
        if "hidden_seed" in checkpoint:
            raise ValueError(
                "ckpt_path: the checkpoint is of masked pretraining, which knows no classes; give it as "
                "--model.init_from, to start from its weights"
            )
        stored = checkpoint.get("hyper_parameters", {}).get("facts", {})
        kinds = (Target(**stored.get("target", {})).kind, self.facts.target.kind)
        if kinds[0] != kinds[1]:
            other = "" if "tags" in kinds else f", or --data.target.kind {kinds[0]}"
            raise ValueError(
                f"ckpt_path: the checkpoint has learned {kinds[0]} of rows, and the data have {kinds[1]}; give the "
                f"data it was trained with as --data.path{other}"
            )
        super().on_load_checkpoint(checkpoint)
        theirs = Facts.from_dict(stored)
        labels = theirs.labels or []
        if labels != self.labels:
            raise ValueError(
                f"ckpt_path: the checkpoint knows other classes than the data.\n  checkpoint: {', '.join(labels)}\n"
                f"  data: {', '.join(self.labels)}\nGive the data it was trained with as --data.path, and images or "
                "texts to classify as --data.predict_path."
            )
        if theirs.target.mean is not None:
            self._adopt(theirs)

    def _adopt(self, theirs: Facts) -> None:
        """Answer numbers in the units of a checkpoint, which its weights are made for, whatever rows are read now."""
        self.facts = replace(self.facts, target=theirs.target)
        self.hparams["facts"] = self.facts.to_dict()
        self._answer_as(self.facts)
        self.objective = self._trained_for
        self.network.objective = make_objective(self.answers.head, self.head_options)
        self.network.options = {**(self.network.options or {}), "head_options": self.head_options}


def set_momentum(network: nn.Module, momentum: float) -> None:
    """Let the batch norms take this part of each batch's statistics into the running ones.

    Raises:
        ValueError: no part between 0 and 1, or a network without batch norms.
    """
    if not 0 < momentum <= 1:
        raise ValueError(f"norm_momentum={momentum}: expected a part above 0 and up to 1, such as 0.1")
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    if not norms:
        raise ValueError(f"norm_momentum={momentum}: the network has no batch norms; leave it out")
    for norm in norms:
        norm.momentum = momentum

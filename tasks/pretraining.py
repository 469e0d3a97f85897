"""Masked self-pretraining: an encoder learns from a task's own data, without labels, what is hidden from it."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torchmetrics import Metric, R2Score

from lambda_seq.models import LambdaEncoder, Model, accepted_options
from lambda_seq.models.registry import class_of
from lambda_seq.tasks.facts import Facts
from lambda_seq.tasks.metrics import Exact, Mean, exact, full, mean_loss, own_rows
from lambda_seq.tasks.networks import network_for
from lambda_seq.tasks.trainers import trainer_of
from lambda_seq.tasks.training import Batch, Training

STAGES = {"train": 0, "val": 1, "test": 2}
TUNED = ("num_classes", "pool", "head", "head_options")  # options of the head, which fine-tuning makes anew


class MaskedPretraining(Training):
    """An encoder that learns to fill in what is hidden from it; labels are ignored.

    Spans of positions are hidden, and the head "tokens" or "values" says of each hidden position what stood there:

    - of tokens, which: cross entropy. Hidden ones are replaced by the padding id. It stands at no real position, so
      that it can be told from all others, and fine-tuning goes on with the same vocabulary. Where the stem has strides,
      all tokens of a frame are hidden together, and each of them is said.
    - of features (pixels, log-mel frames), their values, as standardised by the data module: mean squared error.
      Behind the stem, a learned vector stands for what is hidden.
    - of waveforms, the samples of a frame, of which there are as many as the stem's strides multiplied, standardised by
      mean and deviation of the clip: mean squared error. Hidden samples are zeros, so that no frame beside them can
      hear them, and a learned vector stands for hidden frames.

    Which positions of a row are hidden depends on the seed, the epoch and what the row holds alone: not on its batch,
    its padding or the number of processes, so that a resumed run hides what the uninterrupted one did; validation and
    test hide the same each time. Logged are the loss, and accuracy (tokens) or R² (others) at hidden positions.
    Fine-tune with `Classification` and `init_from`: a checkpoint of this.

    Spans are those of wav2vec 2.0 (A. Baevski et al., 2020): each position begins one with the same probability, and
    they may overlap. The probability is such that a position is hidden with probability `hidden`.

    Args:
        network: name of an encoder; `python -c "from lambda_seq import list_models; print(list_models())"` lists all.
        options: arguments of the network; those of the fine-tuning, of which num_classes and pool are its own. Sizes
            that follow from the data are filled in.
        hidden: share of the positions that is hidden, above 0 and below 1.
        span: positions (frames, behind strides) that are hidden together.
        facts: what a data module says of its data; default: those of the trainer's.
        training: as for `Training`.
    """

    exports = False  # of its encoder, fine-tuning makes a model

    def __init__(
        self,
        network: str = "lambda_encoder",
        options: dict[str, Any] | None = None,
        hidden: float = 0.3,
        span: int = 6,
        facts: Facts | dict[str, Any] | None = None,
        **training: Any,
    ) -> None:
        super().__init__(network, options, **training)
        if not 0 < hidden < 1:
            raise ValueError(f"hidden={hidden}: expected a share of the positions above 0 and below 1")
        if span < 1:
            raise ValueError(f"span={span}: expected at least 1 position")
        self.hidden, self.span = hidden, span
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0))  # of --seed_everything
        self.begin(facts)

    def build(self, facts: Facts | Mapping[str, Any] | None) -> None:
        """The encoder, what stands for hidden frames, and what counts."""
        super().build(facts)
        self.tokens = self.facts.kind == "tokens"
        self.pad = 0 if self.facts.tokens is None else self.facts.tokens.pad
        self.frame: int = self.encoder.stem.stride  # samples or tokens of a frame; otherwise 1
        dim = self.encoder.dim
        self.vector = None if self.tokens else nn.Parameter(torch.randn(dim) * dim**-0.5)  # in place of what is hidden
        self.metric = "accuracy" if self.tokens else "r2"
        for stage in STAGES:
            setattr(self, f"{stage}_{self.metric}", Hits() if self.tokens else Explained())
        self.val_loss, self.test_loss = mean_loss(), mean_loss()

    def make_network(self) -> Model:
        """An encoder with a head that says what stood at each position, in place of the one of the fine-tuning.

        Raises:
            ValueError: the network is no encoder of sequences.
        """
        if self.facts.kind == "image" or "pool" not in accepted_options(self.named):
            raise ValueError(
                f"network={self.named!r} is a {class_of(self.named)}, which has no features of each position: "
                "choose lambda_encoder, and of images give --data.as_sequence true"
            )
        options = {name: value for name, value in (self.options or {}).items() if name not in TUNED}
        sizes = {name: value for name, value in self.facts.options.items() if name not in TUNED}
        head = "tokens" if self.facts.kind == "tokens" else "values"
        return network_for(self.named, options, replace(self.facts, options=sizes), head=head)

    @property
    def encoder(self) -> LambdaEncoder:
        """The network."""
        return self.network  # type: ignore[return-value]

    def forward(self, x: Tensor, mask: Bool[Tensor, "B N"] | None, hidden: Bool[Tensor, "B M"]) -> Float[Tensor, "n o"]:
        """What the head says of the n hidden positions, or frames, of inputs in which nothing is hidden yet.

        Returns:
            Logits of token ids (frame · vocab_size, a token's together), or values (frame · channels, a sample's
            channels together).
        """
        covered = self._samples(hidden, x.shape[1])  # (B, N)
        x = x.masked_fill(covered if x.ndim == 2 else covered[..., None], self.pad)
        behind = None if self.vector is None else (hidden, self.vector)
        features, _ = self.encoder.features(x, mask, hidden=behind)  # (B, M, dim)
        return self.encoder.head(features[hidden])

    def setup(self, stage: str) -> None:
        """Refuse to predict.

        Raises:
            ValueError: there are no classes; says what to do.
        """
        if stage == "predict":
            raise ValueError(
                "model: MaskedPretraining knows no classes to predict; fine-tune first: `lambda-seq fit` with model "
                "Classification and --model.init_from CHECKPOINT"
            )

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The loss at hidden positions."""
        return self._step("train", batch, batch_index)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Loss and accuracy, or R², at hidden positions."""
        self._step("val", batch, batch_index)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """As `validation_step`."""
        self._step("test", batch, batch_index)

    def _step(self, stage: str, batch: Batch, batch_index: int) -> Tensor:
        x, mask = self.inputs(batch)
        hidden = self._choose(stage, x, mask, batch_index, batch)  # (B, M)
        if stage != "train":
            hidden[own_rows(self, batch_index, len(hidden)) :] = False
        at_once = batch.get("at_once", len(x))  # all windows of long documents may be too many
        masks = [None] * len(x) if mask is None else mask.split(at_once)
        pieces = zip(x.split(at_once), masks, hidden.split(at_once), strict=False)
        answer = full(torch.cat([self(*piece) for piece in pieces]))  # (n, outputs)
        target, real = self._targets(x, mask, hidden)  # (n, frame · C)
        if self.tokens:
            answer, target = answer.unflatten(1, (self.frame, -1))[real], target[real]  # (t, vocab_size), (t,)
            loss = F.cross_entropy(answer, target, reduction="sum") / max(len(target), 1)
        else:
            loss = ((answer - target).square() * real).sum() / real.sum().clamp_min(1)
            answer, target = answer[real], target[real]
        metric: Metric = getattr(self, f"{stage}_{self.metric}")
        mean: Metric = getattr(self, f"{stage}_loss")
        mean.update(loss, len(target))
        metric.update(answer, target)
        if stage == "train":
            self.weigh(loss, len(target))
        else:
            for name, figure in (("loss", mean), (self.metric, metric)):
                self.log(f"{stage}/{name}", figure, on_epoch=True, prog_bar=True, batch_size=len(target))
        return loss

    @property
    def training_metrics(self) -> Mapping[str, Metric]:
        """Loss, and accuracy or R²."""
        return {"train/loss_epoch": self.train_loss, f"train/{self.metric}": getattr(self, f"train_{self.metric}")}

    def _choose(
        self, stage: str, x: Tensor, mask: Tensor | None, batch_index: int, raw: Batch | None = None
    ) -> Bool[Tensor, "B M"]:
        """Real positions to hide, chosen on the CPU, so that all devices hide the same.

        Args:
            stage: "train", "val" or "test".
            x: what the network takes.
            mask: real positions of it.
            batch_index: which batch it is; nothing depends on that.
            raw: the batch that x was made of, whose bits are the same on all devices; None for x and mask themselves.
        """
        raw = {"x": x, "mask": mask} if raw is None else raw
        trainer = trainer_of(self)
        epoch = trainer.current_epoch if stage == "train" and trainer is not None else 0
        real = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask.cpu()
        real = real[:, :: self.frame]  # (B, M)
        hidden = torch.zeros_like(real)
        for row, content in enumerate(contents(raw["x"], raw.get("mask"))):
            if real[row].any():
                random = np.random.default_rng([self.seed, STAGES[stage], epoch, content])
                length = int(real[row].nonzero().max()) + 1
                hidden[row, :length] = choose_spans(length, self.hidden, self.span, random)
        return (hidden & real).to(x.device)

    @property
    def _before(self) -> int:
        """Samples of frame j in front of sample frame · j, at which it is centred (causal: ends)."""
        return self.frame - 1 if self.encoder.causal else self.frame // 2

    def _samples(self, hidden: Bool[Tensor, "B M"], count: int) -> Bool[Tensor, "B N"]:
        """Which samples stand in hidden frames."""
        covered = hidden.repeat_interleave(self.frame, 1)[:, self._before :]  # (B, at most count)
        return F.pad(covered, (0, count - covered.shape[1]))

    def _targets(
        self, x: Tensor, mask: Tensor | None, hidden: Tensor
    ) -> tuple[Shaped[Tensor, "n o"], Bool[Tensor, "n o"]]:
        """Values, or token ids, of hidden frames, and which of them are real: a frame at an end may stand out."""
        x = x[..., None] if x.ndim == 2 else x  # (B, N, C)
        x = x if self.tokens else full(x)
        real = torch.ones_like(x, dtype=torch.bool) if mask is None else mask[..., None].expand(x.shape)  # (B, N, C)
        if self.network.input_kind == "waveform":
            count = real.sum((1, 2), keepdim=True).clamp_min(1)
            x = torch.where(real, x, 0)
            x = torch.where(real, x - x.sum((1, 2), keepdim=True) / count, 0)
            x = x / (x.square().sum((1, 2), keepdim=True) / count).sqrt().clamp_min(1e-5)
        after = hidden.shape[1] * self.frame - self._before - x.shape[1]
        frames = (F.pad(part, (0, 0, self._before, after)) for part in (x, real))  # (B, M · frame, C)
        values, known = (part.reshape(*hidden.shape, -1)[hidden] for part in frames)  # (n, frame · C)
        return values, known

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the seed of what is hidden, and what `Training` does."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["hidden_seed"] = self.seed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network; go on with the seed of the run that is resumed.

        Raises:
            ValueError: the checkpoint does not fit.
        """
        weights = checkpoint.get("state_dict", {})
        for name in [name for name in weights if name.startswith("network.pool.")]:
            del weights[name]  # of versions that kept a pool, which nothing was trained by
        super().on_load_checkpoint(checkpoint)
        self.seed = checkpoint["hidden_seed"]


class Hits(Mean):
    """The share of right answers; unlike torchmetrics' accuracy it takes batches in which nothing is hidden."""

    def update(self, answer: Tensor, target: Tensor) -> None:  # type: ignore[override]
        """Add logits (t, classes) and ids (t,); of logits with a NaN none is greatest, so that they are not right."""
        right = (answer.argmax(-1) == target) & ~answer.isnan().any(-1)
        self.mean_value += exact(right.sum(), self.weight.device)
        self.weight += len(target)


class Explained(Exact, R2Score):
    """R² = 1 − Σ (target − answer)² / Σ (target − mean target)²; not a number of fewer than two values."""

    def update(self, answer: Tensor, target: Tensor) -> None:
        """Add values."""
        super().update(*(exact(values, self.residual.device) for values in (answer, target)))

    def compute(self) -> Tensor:
        """R² of all values so far."""
        return super().compute() if self.total >= 2 else torch.full_like(self.residual, torch.nan)


def contents(x: Tensor, mask: Tensor | None) -> Iterator[int]:
    """A number for the real values of each row of (B, N, …), which no padding changes."""
    rows = x.detach().cpu()
    for row, real in zip(rows, [slice(None)] * len(rows) if mask is None else mask.cpu(), strict=True):
        yield zlib.crc32(row[real].contiguous().flatten().view(torch.uint8).numpy())


def choose_spans(length: int, share: float, span: int, random: np.random.Generator) -> Bool[Tensor, " N"]:
    """Positions in spans that begin anywhere, also in front of the first position, and may overlap.

    A position is in none if none of `span` positions begins one, of probability (1 − q)^span; q is such that this is
    1 − share, at all positions alike.
    """
    beginning = 1 - (1 - share) ** (1 / span)
    begins = torch.from_numpy(random.random(length + span - 1) < beginning)
    return begins.unfold(0, span, 1).any(-1)

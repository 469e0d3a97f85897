"""Masked self-pretraining: an encoder learns from a task's own data, without labels, what is hidden from it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torchmetrics import R2Score
from torchmetrics.classification import MulticlassAccuracy

from lambda_seq.models import LambdaEncoder
from tasks.distributed import weighed
from tasks.metrics import mean_loss, own_rows
from tasks.training import Batch, Training

STAGES = {"train": 0, "val": 1, "test": 2}


class MaskedPretraining(Training):
    """An encoder that learns to fill in what is hidden from it; labels are ignored.

    Spans of positions are hidden, and a linear head says of each hidden position what stood there:

    - of tokens, which: cross entropy. Hidden ones are replaced by the padding id. It stands at no real position, so
      that it can be told from all others, and fine-tuning goes on with the same vocabulary. Where the stem has strides,
      all tokens of a frame are hidden together, and each of them is said.
    - of features (pixels, log-mel frames), their values, as standardised by the data module: mean squared error.
      Behind the stem, a learned vector stands for what is hidden.
    - of waveforms, the samples of a frame, of which there are as many as the stem's strides multiplied, standardised by
      mean and deviation of the clip: mean squared error. Hidden samples are zeros, so that no frame beside them can
      hear them, and a learned vector stands for hidden frames.

    Which positions are hidden depends on the seed and the step alone, so that a resumed run hides what the
    uninterrupted one did; validation and test hide the same each time. Logged are the loss, and accuracy (tokens) or R²
    (others) at hidden positions. Fine-tune with `Classification` and `init_from`: a checkpoint of this.

    Spans are those of wav2vec 2.0 (A. Baevski et al., 2020): each position begins one with the same probability, and
    they may overlap. The probability is such that a position is hidden with probability `hidden`.

    Args:
        network: name of an encoder; `python -c "from lambda_seq import list_models; print(list_models())"` lists all.
        options: arguments of the network; those of the fine-tuning. Sizes that follow from the data are filled in.
        hidden: share of the positions that is hidden, above 0 and below 1.
        span: positions (frames, behind strides) that are hidden together.
        optimizer: any of torch.optim, or a function of parameters; default AdamW with lr 0.001 and weight_decay 0.05.
            Biases, norms and position tables do not decay.
        warmup: part of the steps in which the learning rate grows linearly from 0.
        final_lr: learning rate at the last step, as a part of the greatest; it falls along a cosine.
        schedule_steps: optimizer steps over which the learning rate goes its way; default: all steps of
            --trainer.max_epochs, or else --trainer.max_steps. Give it if a run is stopped by fewer epochs and resumed.
        facts: what the data module says of its data; set by the data module.
    """

    exports = False  # of its encoder, fine-tuning makes a model

    def __init__(
        self,
        network: str = "lambda_encoder",
        options: dict[str, Any] | None = None,
        hidden: float = 0.3,
        span: int = 6,
        optimizer: OptimizerCallable | None = None,
        warmup: float = 0.05,
        final_lr: float = 0.0,
        schedule_steps: int | None = None,
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
        if not 0 < hidden < 1:
            raise ValueError(f"hidden={hidden}: expected a share of the positions above 0 and below 1")
        if span < 1:
            raise ValueError(f"span={span}: expected at least 1 position")
        if not isinstance(self.network, LambdaEncoder):
            raise ValueError(
                f"network={network!r} is a {type(self.network).__name__}, which has no features of each position: "
                "choose lambda_encoder, and of images give --data.as_sequence true"
            )
        self.save_hyperparameters(ignore=["optimizer"])
        known: dict[str, Any] = self.hparams["facts"]
        self.hidden, self.span = hidden, span
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0))  # of --seed_everything
        self.tokens = self.network.input_kind == "tokens"
        self.pad = known.get("tokens", {}).get("pad", 0)
        self.frame: int = self.network.stem.stride  # samples or tokens of a frame; otherwise 1

        full = self.network.options or {}
        channels = full.get("in_channels") or 1
        vocab_size = full.get("vocab_size") or 257
        outputs = self.frame * (vocab_size if self.tokens else channels)
        dim = self.network.head.in_features
        self.network.head = nn.Linear(dim, outputs)  # for each position
        self.network.pool.requires_grad_(False)  # nothing is pooled
        self.vector = None if self.tokens else nn.Parameter(torch.randn(dim) * dim**-0.5)  # in place of what is hidden

        name = "accuracy" if self.tokens else "r2"
        for stage in STAGES:
            metric = (
                MulticlassAccuracy(vocab_size, average="micro", validate_args=False) if self.tokens else Explained()
            )
            setattr(self, f"{stage}_{name}", metric)
        self.val_loss, self.test_loss = mean_loss(), mean_loss()
        self.metric = name

    @property
    def encoder(self) -> LambdaEncoder:
        """The network, whose head answers for each position."""
        return self.network  # type: ignore[return-value]

    def forward(self, x: Tensor, mask: Bool[Tensor, "B N"] | None, hidden: Bool[Tensor, "B M"]) -> Float[Tensor, "n o"]:
        """What the head says of the n hidden positions, or frames, of inputs in which nothing is hidden yet.

        Returns:
            Logits of token ids (frame · vocab_size, a token's together), or values (frame · channels, a sample's
            channels together).
        """
        covered = self._samples(hidden, x.shape[1])  # (B, N)
        if self.vector is None:
            features, _ = self.encoder.features(x.masked_fill(covered, self.pad), mask)  # (B, M, dim)
        else:
            x = x.masked_fill(covered if x.ndim == 2 else covered[..., None], 0)
            with replaced(self.encoder.stem, hidden, self.vector):
                features, _ = self.encoder.features(x, mask)  # (B, M, dim)
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
        hidden = self._choose(stage, x, mask, batch_index)  # (B, M)
        if stage != "train":
            hidden[own_rows(self, batch_index, len(hidden)) :] = False
        at_once = batch.get("at_once", len(x))  # all windows of long documents may be too many
        masks = [None] * len(x) if mask is None else mask.split(at_once)
        pieces = zip(x.split(at_once), masks, hidden.split(at_once), strict=False)
        answer = torch.cat([self(*piece) for piece in pieces]).float()  # (n, outputs)
        target, real = self._targets(x, mask, hidden)  # (n, frame · C)
        if self.tokens:
            answer, target = answer.unflatten(1, (self.frame, -1))[real], target[real]  # (t, vocab_size), (t,)
            loss = F.cross_entropy(answer, target, reduction="sum") / max(len(target), 1)
        else:
            loss = ((answer - target).square() * real).sum() / real.sum().clamp_min(1)
            answer, target = answer[real], target[real]
        metric = getattr(self, f"{stage}_{self.metric}")
        if len(target):
            metric.update(answer, target)
        options: dict[str, Any] = {"on_epoch": True, "prog_bar": True, "batch_size": len(target)}
        if stage == "train":
            loss = weighed(self, loss, len(target))
            self.log("train/loss", loss, on_step=True, sync_dist=True, **options | {"batch_size": len(x)})
        else:
            mean = self.val_loss if stage == "val" else self.test_loss
            mean.update(loss.detach(), len(target))
            self.log(f"{stage}/loss", mean, on_step=False, **options)
        self.log(f"{stage}/{self.metric}", metric, on_step=False, **options)
        return loss

    def _choose(self, stage: str, x: Tensor, mask: Tensor | None, batch_index: int) -> Bool[Tensor, "B M"]:
        """Real positions to hide, chosen on the CPU, so that all devices hide the same."""
        training = stage == "train" and self._trainer is not None
        epoch = self.trainer.current_epoch if training else 0
        rank = 0 if self._trainer is None else self.trainer.global_rank
        entropy = [self.seed, STAGES[stage], epoch, batch_index, rank]
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        hidden = choose_spans(x.shape[0], -(-x.shape[1] // self.frame), self.hidden, self.span, generator)
        hidden = hidden.to(x.device)
        return hidden if mask is None else hidden & mask[:, :: self.frame]

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
        x = x if self.tokens else x.float()
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
        """Store the seed of what is hidden."""
        checkpoint["hidden_seed"] = self.seed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network; go on with the seed of the run that is resumed.

        Raises:
            ValueError: the checkpoint does not fit.
        """
        super().on_load_checkpoint(checkpoint)
        self.seed = checkpoint["hidden_seed"]


class Explained(R2Score):
    """R² = 1 − Σ (target − answer)² / Σ (target − mean target)²; not a number of fewer than two values."""

    def compute(self) -> Tensor:
        """R² of all values so far."""
        return super().compute() if self.total >= 2 else torch.full_like(self.residual, torch.nan)


def choose_spans(rows: int, length: int, share: float, span: int, generator: torch.Generator) -> Bool[Tensor, "B N"]:
    """Positions in spans that begin anywhere, also in front of the first position, and may overlap.

    A position is in none if none of `span` positions begins one, of probability (1 − q)^span; q is such that this is
    1 − share, at all positions alike.
    """
    beginning = 1 - (1 - share) ** (1 / span)
    begins = torch.rand(rows, length + span - 1, generator=generator) < beginning
    return begins.unfold(1, span, 1).any(-1)


@contextmanager
def replaced(stem: nn.Module, hidden: Bool[Tensor, "B M"], vector: Float[Tensor, " dim"]) -> Iterator[None]:
    """Lets a stem put a vector in place of what it makes of hidden positions."""

    def replace(module: nn.Module, given: Any, made: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
        stemmed, mask = made  # (B, M, dim), (B, M)
        return torch.where(hidden[..., None], vector.to(stemmed.dtype), stemmed), mask

    handle = stem.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()

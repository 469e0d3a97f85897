"""Language modelling: predicting each token of a text from those before it."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from lambda_seq.layers import WHOLE, Whole
from lambda_seq.models.generation import GenerativeModel
from tasks.data.packs import IGNORED
from tasks.distributed import weighed
from tasks.training import Batch, Training


class LanguageModelling(Training):
    """A causal network of the registry, trained with cross entropy to predict the next token.

    Logged are the loss in nats per token, its exponential, the perplexity, and bits per byte of text, which compare
    networks whatever their tokens are. What is counted is each prediction of the data module's rows: every token of a
    document, the first from nothing, and its end; the bits that the end costs count, too, though it has no bytes.

    Args:
        network: name of a language model; `python -c "from lambda_seq import list_models; print(list_models('*_lm*'))"`
            lists them.
        options: arguments of the network. Sizes that follow from the data (vocab_size, max_length) are filled in.
        optimizer: any of torch.optim, or a function of parameters; default AdamW with lr 0.001 and weight_decay 0.05.
            Biases, norms and position tables do not decay.
        warmup: part of the steps in which the learning rate grows linearly from 0.
        final_lr: learning rate at the last step, as a part of the greatest; it falls along a cosine.
        schedule_steps: optimizer steps over which the learning rate goes its way; default: all steps of
            --trainer.max_epochs, or else --trainer.max_steps. Give it if a run is stopped by fewer epochs and resumed.
        facts: what the data module says of its data; set by the data module.
    """

    def __init__(
        self,
        network: str = "lambda_lm",
        options: dict[str, Any] | None = None,
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
        if not isinstance(self.network, GenerativeModel):
            raise ValueError(
                f"network={network!r} is a {type(self.network).__name__}, which predicts no next token: choose a "
                "language model, such as lambda_lm"
            )
        self.save_hyperparameters(ignore=["optimizer"])
        known: dict[str, Any] = self.hparams["facts"]
        if "labels" in known or "tokens" not in known:
            raise ValueError("facts: the data are for classification and have no next tokens; choose CorpusData")
        needed, found = known["options"]["vocab_size"], self.network.vocab_size
        if found < needed:
            raise ValueError(f"options.vocab_size={found}: the data have {needed} tokens; leave it out")
        self.train_scores, self.val_scores, self.test_scores = Scores(), Scores(), Scores()

    def forward(self, batch: Batch) -> Float[Tensor, "B N vocab_size"]:
        """Logits of the token after each of "x" (B, N), of several documents in a row as "documents" says."""
        logits: Tensor = self.network(batch["x"], batch.get("mask"), batch["documents"])
        return logits

    @property
    def shards(self) -> Whole:
        """What knows of the processes that share the rows."""
        return getattr(self.network, "shards", WHOLE)

    def losses(self, batch: Batch) -> Float[Tensor, "B n"]:
        """Nats of each prediction, 0 where it does not count; of rows that processes share, at this one's positions."""
        logits, target = self(batch).float(), self.shards.chunk(batch["target"], fill=IGNORED)
        losses = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=IGNORED, reduction="none")
        return losses.view_as(target)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Nats per token of a batch."""
        return self._step("train", batch)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Loss, perplexity and bits per byte of a batch."""
        self._step("val", batch)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """As `validation_step`."""
        self._step("test", batch)

    def _step(self, stage: str, batch: Batch) -> Tensor:
        nats, count = self.shards.sum(self.losses(batch).sum()), (batch["target"] != IGNORED).sum()
        loss = nats / count.clamp_min(1)
        scores: Scores = getattr(self, f"{stage}_scores")
        scores.update(nats.detach(), count, batch["bytes"].sum())
        rows = len(batch["x"])
        if stage == "train":
            loss = weighed(self, loss, count)
            self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True, batch_size=rows, sync_dist=True)
        else:
            self.log(f"{stage}/loss", scores.loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=rows)
        for name in ("perplexity", "bits_per_byte"):
            score: Metric = getattr(scores, name)
            self.log(f"{stage}/{name}", score, on_step=False, on_epoch=True, prog_bar=True, batch_size=rows)
        return loss

    def predict_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        """Of each piece of the rows, one after another: "id", and "nats", "tokens" and "bytes" (P,)."""
        losses = self.losses(batch)
        counts = (self.shards.chunk(batch["target"], fill=IGNORED) != IGNORED).long()
        rows, most = batch["bytes"].shape
        documents = self.shards.chunk(batch["documents"], fill=-1)
        piece = documents.clamp_min(0) + most * torch.arange(rows, device=documents.device)[:, None]  # (B, N)
        real = torch.tensor([[place < len(names) for place in range(most)] for names in batch["id"]])
        real = real.flatten().to(documents.device)

        def by_piece(values: Tensor) -> Tensor:
            sums = values.new_zeros(rows * most).index_add_(0, piece.flatten(), values.flatten())
            return self.shards.sum(sums)[real].cpu()

        return {
            "id": [name for names in batch["id"] for name in names],
            "nats": by_piece(losses.double() if losses.device.type != "mps" else losses),
            "tokens": by_piece(counts),
            "bytes": batch["bytes"].flatten()[real].cpu(),
        }

    def prediction_table(self) -> DocumentTable:
        """What predictions look like in a file."""
        return DocumentTable()


class Scores(nn.Module):
    """Loss in nats per token, perplexity, and bits per byte, over any number of batches."""

    def __init__(self) -> None:
        super().__init__()
        self.loss, self.perplexity, self.bits_per_byte = MeanMetric(), Perplexity(), MeanMetric()

    def update(self, nats: Tensor, tokens: Tensor, size: Tensor) -> None:
        """Add the sum of nats of some predictions, their number, and bytes of the text they predict."""
        loss = nats / tokens.clamp_min(1)
        self.loss.update(loss, tokens)
        self.perplexity.update(loss, tokens)
        # A batch of nothing but ends has no byte to share its bits: weighed by next to nothing they still add up.
        size = size.clamp_min(1e-6)
        self.bits_per_byte.update(nats / math.log(2) / size, size)


class Perplexity(MeanMetric):
    """The exponential of a mean."""

    def compute(self) -> Tensor:
        """Of all updates."""
        return super().compute().exp()


class DocumentTable:
    """A row for each document: id, tokens (with its end), bytes, loss in nats per token, and bits per byte.

    The windows of a long document come one after another and make one row. If several processes read them, or workers
    of a stream, each writes a row for its own.
    """

    def __init__(self) -> None:
        self.columns = {"id": "string", "tokens": "int64", "bytes": "int64"}
        self.columns |= {"loss": "float32", "bits_per_byte": "float32"}
        self._open: tuple[str, float, int, float] | None = None  # id, nats, tokens and bytes of the last document

    def rows(self, prediction: dict[str, Any]) -> list[list[Any]]:
        """The rows of documents that are complete, as another has begun."""
        found = []
        values = (prediction[name].tolist() for name in ("nats", "tokens", "bytes"))
        for name, nats, tokens, size in zip(prediction["id"], *values, strict=True):
            if self._open is not None and self._open[0] == name:
                nats, tokens, size = nats + self._open[1], tokens + self._open[2], size + self._open[3]
            else:
                found += self.rest()
            self._open = name, nats, tokens, size
        return found

    def rest(self) -> list[list[Any]]:
        """The row of the last document."""
        if self._open is None:
            return []
        name, nats, tokens, size = self._open
        self._open = None
        return [[name, tokens, round(size), nats / max(tokens, 1), nats / math.log(2) / max(size, 1e-9)]]

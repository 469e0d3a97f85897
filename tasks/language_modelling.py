"""Language modelling: predicting each token of a text from those before it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics import Metric

from lambda_seq import parallel
from lambda_seq.functional import Packing
from lambda_seq.layers import UNSHARDED, SequenceContext
from lambda_seq.models import Model
from lambda_seq.models.sequence.generation import GenerativeModel
from lambda_seq.tasks.data.language.packs import IGNORED
from lambda_seq.tasks.facts import Facts
from lambda_seq.tasks.metrics import Mean, exact, exact_device, full
from lambda_seq.tasks.networks import network_for
from lambda_seq.tasks.training import Batch, Training


class LanguageModelling(Training):
    """A causal network of the registry, trained with cross entropy to predict the next token.

    Logged are the loss in nats per token, its exponential, the perplexity, and bits per byte of text, which compare
    networks whatever their tokens are. What is counted is each prediction of the data module's rows: every token of a
    document, the first from nothing, and its end; the bits that the end costs count, too, though it has no bytes.

    Args:
        network: name of a language model; `python -c "from lambda_seq import list_models; print(list_models('*_lm*'))"`
            lists them.
        options: arguments of the network. Sizes that follow from the data (vocab_size, max_length) are filled in.
        facts: what a data module says of its data; default: those of the trainer's.
        training: as for `Training`.
    """

    shares_sequences = True
    compared = "bits_per_byte"

    def __init__(
        self,
        network: str = "lambda_lm",
        options: dict[str, Any] | None = None,
        facts: Facts | dict[str, Any] | None = None,
        **training: Any,
    ) -> None:
        super().__init__(network, options, **training)
        self.begin(facts)

    def build(self, facts: Facts | Mapping[str, Any] | None) -> None:
        """The network, and what counts.

        Raises:
            ValueError: the network predicts no next token, or the data are no text, or have other tokens.
        """
        super().build(facts)
        if self.facts.labels is not None or self.facts.tokens is None:
            raise ValueError("facts: the data are for classification and have no next tokens; choose CorpusData")
        needed, found = self.facts.options["vocab_size"], self.network.vocab_size
        if found is not None and found < needed:
            raise ValueError(f"options.vocab_size={found}: the data have {needed} tokens; leave it out")
        self.train_scores, self.val_scores, self.test_scores = Scores(self.train_loss), Scores(), Scores()

    def make_network(self) -> Model:
        """A language model.

        Raises:
            ValueError: the network of this name is none.
        """
        network = network_for(self.named, self.options, self.facts)
        if not isinstance(network, GenerativeModel):
            raise ValueError(
                f"network={self.named!r} is a {type(network).__name__}, which predicts no next token: choose a "
                "language model, such as lambda_lm"
            )
        return network

    def forward(self, batch: Batch) -> Float[Tensor, "B N vocab_size"]:
        """Logits of the token after each of "x" (B, N), of several documents in a row as "documents" says."""
        packing: Packing = batch["documents"].packing
        logits: Tensor = self.network(batch["x"], packing.mask, packing)  # its own mask, which it need not compare
        return logits

    @property
    def sequence(self) -> SequenceContext:
        """What knows of the processes that share the rows."""
        return getattr(self.network, "sequence", UNSHARDED)

    def chunk(self, whole: Tensor, fill: int) -> Tensor:
        """The positions of rows that the network has in this process."""
        return parallel.chunk_for(self.network, whole, fill=fill)

    def losses(self, batch: Batch) -> Float[Tensor, "B n"]:
        """Nats of each prediction, 0 where it does not count; of rows that processes share, at this one's positions."""
        logits, target = full(self(batch)), self.chunk(batch["target"], IGNORED)
        return self.network.objective.losses(logits, target)

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
        nats, count = self.sequence.sum(self.losses(batch).sum()), (batch["target"] != IGNORED).sum()
        loss = nats / count.clamp_min(1)
        scores: Scores = getattr(self, f"{stage}_scores")
        scores.update(nats.detach(), count, float(batch["bytes"].sum()))
        if stage == "train":
            self.weigh(loss, count)
            return loss
        for name in ("loss", "perplexity", "bits_per_byte"):
            score: Metric = getattr(scores, name)
            self.log(f"{stage}/{name}", score, on_epoch=True, prog_bar=True, batch_size=len(batch["x"]))
        return loss

    @property
    def training_metrics(self) -> Mapping[str, Metric]:
        """Loss, perplexity and bits per byte."""
        scores = self.train_scores
        others = {"train/perplexity": scores.perplexity, "train/bits_per_byte": scores.bits_per_byte}
        return {"train/loss_epoch": self.train_loss, **others}

    def predict_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        """Of each piece of the rows, one after another: "id", and "nats", "tokens" and "bytes" (P,)."""
        losses, packing = self.losses(batch), batch["documents"].packing
        counts = (self.chunk(batch["target"], IGNORED) != IGNORED).long()
        pieces = self.chunk(packing.number, -1).clamp_min(0)  # (B, N), padding has no losses

        def by_piece(values: Tensor) -> Tensor:
            place = pieces.flatten().to(values.device)
            sums = values.new_zeros(max(len(packing), 1)).index_add_(0, place, values.flatten())
            return self.sequence.sum(sums).cpu()[: len(packing)]

        sizes = [row[: len(names)] for row, names in zip(batch["bytes"], batch["id"], strict=True)]
        return {
            "id": [name for names in batch["id"] for name in names],
            "nats": by_piece(exact(losses, exact_device(losses.device))),
            "tokens": by_piece(counts),
            "bytes": torch.from_numpy(np.concatenate(sizes)),
        }

    def prediction_table(self) -> DocumentTable:
        """What predictions look like in a file."""
        return DocumentTable()


class Scores(nn.Module):
    """Loss in nats per token, perplexity, and bits per byte, over any number of batches.

    Args:
        loss: what counts the loss; None for a new one.
    """

    def __init__(self, loss: Mean | None = None) -> None:
        super().__init__()
        self.loss, self.perplexity, self.bits_per_byte = loss or Mean(), Perplexity(), BitsPerByte()

    def update(self, nats: Tensor, tokens: Tensor, size: Tensor | float) -> None:
        """Add the sum of nats of some predictions, their number, and bytes of the text they predict."""
        device = exact_device(nats.device)
        mean = exact(nats, device) / exact(tokens, device).clamp_min(1)
        self.loss.update(mean, tokens)
        self.perplexity.update(mean, tokens)
        self.bits_per_byte.update(nats, size)


class Perplexity(Mean):
    """The exponential of a mean."""

    def compute(self) -> Tensor:
        """Of all updates."""
        return super().compute().exp()


class BitsPerByte(Mean):
    """Bits over bytes; a batch of nothing but ends has bits, and no byte to share them."""

    def update(self, nats: Tensor, size: Tensor | float) -> None:  # type: ignore[override]
        """Add the sum of nats of some predictions, and bytes of the text they predict."""
        self.mean_value += exact(nats, self.weight.device) / math.log(2)
        self.weight += exact(size, self.weight.device)


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

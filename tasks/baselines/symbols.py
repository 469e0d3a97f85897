"""Sequences of symbols that are no text, as generated tasks have them: logistic regression on how many there are."""

from __future__ import annotations

from functools import partial

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from lambda_seq.tasks.baselines.fitted import Fitted
from lambda_seq.tasks.baselines.labelled import Kind, fit_features, has_labels
from lambda_seq.tasks.data.base import Data
from lambda_seq.tasks.data.module import ClassificationData

SYMBOLS = 2048  # that are told apart; more share places
MOST = 20_000  # training sequences that are looked at


def applies(data: Data) -> bool:
    """Tokens with classes."""
    return has_labels(data) and data.facts.kind == "tokens"


def fit(data: ClassificationData) -> Fitted:
    """On the share of each symbol, and on the first and the last one."""
    count = min(int(data.facts.options["vocab_size"]), SYMBOLS)
    kind = Kind(
        "counts of symbols",
        "sequences",
        f"how often each of {count:,} symbols comes, and which is first and last",
    )
    return fit_features(data, kind, partial(counts, symbols=count), MOST)


def counts(x: Int[Tensor, " N"], symbols: int) -> Float[np.ndarray, " d"]:
    """Log(1 + count) of each symbol, and the first and the last as one of all."""
    ids = x.numpy() % symbols
    ends = np.zeros((2, symbols), np.float32)
    if len(ids):
        ends[[0, 1], ids[[0, -1]]] = 1
    return np.concatenate([np.log1p(np.bincount(ids, minlength=symbols)), *ends])

"""DNA and proteins: logistic regression on how often each stretch of a few letters comes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from lambda_seq.inference.alphabets import ALPHABETS, reverse_complement
from lambda_seq.tasks.baselines.fitted import Fitted
from lambda_seq.tasks.baselines.labelled import Kind, fit_features, has_labels
from lambda_seq.tasks.data.base import Data
from lambda_seq.tasks.data.module import ClassificationData

FEATURES = 1500  # stretches that are counted, of as many letters as keep within that
MOST = 50_000  # training sequences that are looked at


def applies(data: Data) -> bool:
    """Letters of an alphabet, with classes."""
    return has_labels(data) and data.facts.tokens is not None and data.facts.tokens.kind in ALPHABETS


def fit(data: ClassificationData) -> Fitted:
    """On counts of k-mers, of both strands where the network reads both."""
    tokens: Any = data.facts.tokens
    letters, longest = ALPHABETS[tokens.kind].plain, 1
    while sum(letters**k for k in range(1, longest + 2)) <= FEATURES:
        longest += 1
    both = tokens.strands == 2
    strands = ", on both strands" if both else ""
    kind = Kind("k-mers", "sequences", f"how often each stretch of 1 to {longest} letters comes{strands}")
    return fit_features(data, kind, partial(kmers, letters=letters, longest=longest, both=both), MOST)


def kmers(x: Int[Tensor, " N"], letters: int, longest: int, both: bool = False) -> Float[np.ndarray, " d"]:
    """Log(1 + count) of each k-mer of plain letters, for k from 1 to `longest`.

    Args:
        x: ids, of which those of plain letters are 1 to `letters`.
        letters: that are plain.
        longest: greatest k.
        both: count those of the other strand as well.
    """
    strands = [x.numpy(), reverse_complement(x.numpy())] if both else [x.numpy()]
    found = []
    for k in range(1, longest + 1):
        counts = np.zeros(letters**k)
        for ids in strands:
            if len(ids) < k:
                continue
            windows = np.lib.stride_tricks.sliding_window_view(ids - 1, k)  # (N − k + 1, k)
            plain = windows[((windows >= 0) & (windows < letters)).all(1)]
            counts += np.bincount(plain @ letters ** np.arange(k)[::-1], minlength=letters**k)
        found.append(np.log1p(counts))
    return np.concatenate(found)

"""Interpolated Kneser–Ney n-grams of token ids, counted and looked up by sorting.

R. Kneser, H. Ney, Improved backing-off for m-gram language modeling, ICASSP 1995, in the form with three discounts of
S. F. Chen, J. Goodman, An empirical study of smoothing techniques for language modeling, Computer Speech and Language
13, 1999, section 3. Of the longest n-grams occurrences are counted, of shorter ones the different tokens in front:

    P(w | h) = (c(h w) − D(c(h w))) / Σ_v c(h v) + γ(h) · P(w | h without its first token)
    γ(h) = (D₁ N₁(h) + D₂ N₂(h) + D₃ N₃(h)) / Σ_v c(h v)

where N_i(h) is the number of tokens v with c(h v) = i, or more than 2 for i = 3. Below single tokens all are alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

NONE = -1  # the number of what was not seen, or would begin before its document
LEAST = 0.05  # discount, so that what was not seen has a probability above 0


@dataclass(frozen=True)
class Text:
    """Documents one after another, whose first tokens are given and all others predicted.

    Attributes:
        ids: tokens, (N,).
        place: of each in its document, from 0 on.
    """

    ids: Int[np.ndarray, " N"]
    place: Int[np.ndarray, " N"]

    @classmethod
    def of(cls, documents: Sequence[Int[np.ndarray, " n"]]) -> Text:
        """Ids of each document, with the mark at its beginning."""
        if not documents:
            return cls(np.zeros(0, np.int64), np.zeros(0, np.int64))
        return cls(np.concatenate(documents), np.concatenate([np.arange(len(one)) for one in documents]))

    def cut(self, at: int) -> tuple[Text, Text]:
        """In two, before token `at` > 0; the second begins with the token before it, which it does not predict."""
        place = self.place[at - 1 :].copy()
        place[place - np.arange(len(place)) == place[0]] -= place[0]  # of the document that is cut
        return Text(self.ids[:at], self.place[:at]), Text(self.ids[at - 1 :], place)

    @property
    def predicted(self) -> Bool[np.ndarray, " N"]:
        """Which tokens are predicted."""
        return self.place > 0


@dataclass(frozen=True)
class Table:
    """What n-grams of one length say of a token behind a context.

    Attributes:
        share: (c(h w) − D) / Σ_v c(h v) of each n-gram, (G,).
        rest: γ(h) of each context, (C,); 1 if nothing was seen behind it.
    """

    share: Float[np.ndarray, " G"]
    rest: Float[np.ndarray, " C"]

    def __call__(
        self, context: Int[np.ndarray, " n"], place: Int[np.ndarray, " n"], lower: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """Probabilities, of numbers of contexts and places of n-grams, or `NONE`, and those of shorter n-grams."""
        rest = np.where(context == NONE, 1, self.rest[context])
        return np.where(place == NONE, 0, self.share[place]) + rest * lower

    @classmethod
    def of(cls, counts: Int[np.ndarray, " G"], context: Int[np.ndarray, " G"], contexts: int) -> Table:
        """From counts of n-grams, and the number of each one's context."""
        discounts = _discounts(counts)
        kind = np.minimum(counts, 3)
        total = np.bincount(context, counts, minlength=contexts)
        taken = np.bincount(context, discounts[kind], minlength=contexts)
        seen = total > 0
        rest = np.where(seen, taken / np.where(seen, total, 1), 1)
        share = np.where(counts > 0, (counts - discounts[kind]) / np.maximum(total[context], 1), 0)
        return cls(share.astype(np.float32), rest.astype(np.float32))


def _discounts(counts: Int[np.ndarray, " G"]) -> Float[np.ndarray, " 4"]:
    """D of counts 0, 1, 2, and more: i − (i + 1) Y n_{i+1} / n_i with Y = n₁ / (n₁ + 2 n₂)."""
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(np.float64)
    y = n[1] / (n[1] + 2 * n[2]) if n[1] and n[2] else 0.5
    found = [i - (i + 1) * y * n[i + 1] / n[i] if n[i] else y for i in (1, 2, 3)]
    return np.array([0.0, *(min(max(d, LEAST), i) for i, d in enumerate(found, 1))])


@dataclass(frozen=True)
class Level:
    """All n-grams of a length that were seen.

    Attributes:
        keys: number of the context · V + the last token, in order, (G,). Contexts of one token have its id as number,
            longer ones their place among the keys of their length.
        lower: by different tokens in front, for longer n-grams to fall back on.
        top: by occurrences, where these are the longest.
    """

    keys: Int[np.ndarray, " G"]
    lower: Table
    top: Table


class Ngrams:
    """N-grams of up to `order` tokens.

    Args:
        text: in which they are counted.
        vocabulary: number of ids, V.
        order: tokens of the longest n-grams; fewer if there are none so long.

    Raises:
        ValueError: nothing in the text is predicted.
    """

    def __init__(self, text: Text, vocabulary: int, order: int) -> None:
        if not text.predicted.any():
            raise ValueError(f"text: {len(text.ids)} tokens, of which none is predicted from another")
        self.vocabulary = vocabulary
        self.levels: list[Level] = []
        found = list(_counted(text, vocabulary, order))
        contexts = [1, vocabulary, *(len(level.keys) for level in found[1:])]
        for number, level in enumerate(found):
            front = level.counts
            if number + 1 < len(found):
                wider = np.bincount(found[number + 1].suffix, minlength=len(level.keys))
                front = np.where(wider, wider, level.counts)  # nothing stands in front of the mark
            context = level.keys // vocabulary
            tables = (Table.of(counts, context, contexts[number]) for counts in (front, level.counts))
            self.levels.append(Level(level.keys, *tables))

    def shortened(self, order: int) -> Ngrams:
        """The same with n-grams of up to `order` tokens alone."""
        shorter = copy(self)
        shorter.levels = self.levels[:order]
        return shorter

    @property
    def order(self) -> int:
        """Tokens of the longest n-grams."""
        return len(self.levels)

    @property
    def size(self) -> int:
        """Different n-grams of all lengths."""
        return sum(len(level.keys) for level in self.levels)

    def nats(self, text: Text) -> Float[np.ndarray, " predictions"]:
        """−log P of each token of a text that is predicted."""
        *_, last = self.by_order(text)
        return last

    def by_order(self, text: Text) -> Iterator[Float[np.ndarray, " predictions"]]:
        """The same for n-grams of up to 1, 2, … `order` tokens."""
        predicted = text.predicted
        lower = np.full(int(predicted.sum()), 1 / self.vocabulary)
        context = np.zeros(len(text.ids), np.int64)  # number of the tokens before each that are one fewer
        for length, level in enumerate(self.levels, 1):
            keys = np.where(context == NONE, NONE, context * self.vocabulary + text.ids)
            place = np.minimum(np.searchsorted(level.keys, keys), len(level.keys) - 1)
            there = level.keys[place] == keys
            behind, seen = context[predicted], np.where(there, place, NONE)[predicted]
            yield -np.log(level.top(behind, seen, lower))
            lower = level.lower(behind, seen, lower)
            numbers = text.ids if length == 1 else np.where(there, place, NONE)
            context = np.where(text.place >= length, np.concatenate([[NONE], numbers[:-1]]), NONE)


@dataclass(frozen=True)
class _Counts:
    """N-grams of a length: keys, occurrences, and the place of each one's last n − 1 tokens among those."""

    keys: np.ndarray
    counts: np.ndarray
    suffix: np.ndarray


def _counted(text: Text, vocabulary: int, order: int) -> Iterator[_Counts]:
    """The n-grams of 1, 2, … tokens whose last one is predicted."""
    context = np.where(text.predicted, 0, NONE)
    place = context  # among the keys, of the n-gram that ends at each token
    for length in range(1, order + 1):
        ends = np.flatnonzero(context != NONE)
        if not len(ends):
            return
        keys, first, inverse, counts = np.unique(
            context[ends] * vocabulary + text.ids[ends], return_index=True, return_inverse=True, return_counts=True
        )
        yield _Counts(keys, counts, place[ends[first]])
        place = np.full(len(text.ids), NONE)
        place[ends] = inverse.reshape(-1)
        numbers = text.ids if length == 1 else place
        context = np.where(text.place >= length, np.concatenate([[NONE], numbers[:-1]]), NONE)

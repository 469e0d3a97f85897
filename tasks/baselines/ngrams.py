"""Words and characters of texts as weighted counts, TF-IDF."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from scipy import sparse
from sklearn.feature_extraction.text import TfidfTransformer, TfidfVectorizer

WORDS = 200_000  # words and pairs of words that are kept, the most frequent ones
MANY = 1000  # texts from which on what occurs in a single one is left out
SIZES = (3, 4, 5)  # of the runs of characters
BITS = 20  # of the numbers that runs of characters have
CHARACTERS = 200_000  # runs of characters that are kept, those of most texts
SPACE = ord(" ")
# Odd numbers that a character's number is multiplied with by its place in a run, and the mixing of splitmix64
# (G. L. Steele, D. Lea, C. H. Flood, OOPSLA 2014).
FACTORS = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F], np.uint64
)
MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Words:
    """Words and pairs of neighbours, in small letters; 1 + log(count) · idf, of length 1."""

    def fit(self, texts: Sequence[str]) -> sparse.csr_matrix | None:
        """Learn which there are; features (n, d) of the same texts, or None if there are no words."""
        self.vectorizer = TfidfVectorizer(
            ngram_range=(1, 2),
            token_pattern=r"(?u)\b\w+\b",
            min_df=2 if len(texts) >= MANY else 1,
            max_features=WORDS,
            sublinear_tf=True,
            dtype=np.float32,
        )
        try:
            return self.vectorizer.fit_transform(texts)
        except ValueError:  # an empty vocabulary, which the library has no error of its own for
            return None

    def __call__(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """Features (n, d)."""
        return self.vectorizer.transform(texts)


class Characters:
    """Runs of 3 to 5 characters within a word and the spaces around it; 1 + log(count) · idf, of length 1.

    Runs are known by numbers of 20 bits, which few of them share: so a text costs some array operations.
    `TfidfVectorizer(analyzer="char_wb")`, which counts the same but for words shorter than a run, took 15 times as long
    for 1.3 MB of documents (4.7 s and 0.3 s on a core).
    """

    def fit(self, texts: Sequence[str]) -> sparse.csr_matrix | None:
        """Learn which there are; features (n, d) of the same texts, or None if there are none."""
        counts = self._counts(texts)
        if not counts.nnz:
            return None
        documents = np.bincount(counts.indices, minlength=2**BITS)  # texts that each occurs in
        enough = np.flatnonzero(documents >= (2 if len(texts) >= MANY else 1))
        most = enough[np.argsort(-documents[enough], kind="stable")[:CHARACTERS]]
        self.kept = np.sort(most)
        self.weights = TfidfTransformer(sublinear_tf=True)
        return self.weights.fit_transform(counts[:, self.kept])

    def __call__(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """Features (n, d)."""
        return self.weights.transform(self._counts(texts)[:, self.kept])

    @staticmethod
    def _counts(texts: Sequence[str]) -> sparse.csr_matrix:
        numbers, counts, ends = [], [], [0]
        for text in texts:
            number, count = np.unique(runs(text), return_counts=True)
            numbers.append(number)
            counts.append(count.astype(np.float32))
            ends.append(ends[-1] + len(number))
        data, indices = (np.concatenate(found) if found else np.zeros(0) for found in (counts, numbers))
        return sparse.csr_matrix((data, indices.astype(np.int32), np.array(ends)), shape=(len(texts), 2**BITS))


def runs(text: str) -> Int[np.ndarray, " n"]:
    """Numbers of 20 bits of all runs of characters of a text, as often as they occur."""
    padded = f" {' '.join(text.lower().split())} ".encode("utf-32-le", "replace")
    codes = np.frombuffer(padded, np.uint32)
    inner = codes != SPACE
    wide = codes.astype(np.uint64)
    found = []
    for size in SIZES:
        count = len(codes) - size + 1
        if count < 1:
            break
        number = np.full(count, size, np.uint64)
        within = np.ones(count, bool)
        for place in range(size):
            number += wide[place : place + count] * FACTORS[place]
            if 0 < place < size - 1:
                within &= inner[place : place + count]
        number = number[within]
        number = (number ^ (number >> np.uint64(30))) * MIX[0]
        number = (number ^ (number >> np.uint64(27))) * MIX[1]
        found.append((number >> np.uint64(64 - BITS)).astype(np.int64))
    return np.concatenate(found) if found else np.zeros(0, np.int64)

"""Words as numbers: the same for a word on every machine, of any vocabulary, without training."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from lambda_seq.models.inputs import WORD_IDS

WORD = re.compile(r"\w+|[^\w\s]")  # of Unicode, as `re` has it
KEPT = 2**20  # words whose ids are kept in memory


class _Known(dict[str, int]):
    """Ids of the words that were seen, each hashed once."""

    def __missing__(self, word: str) -> int:
        if len(self) >= KEPT:
            self.clear()
        digest = hashlib.blake2b(word.encode("utf-8", errors="replace"), digest_size=8).digest()
        index = self[word] = int.from_bytes(digest, "little") % (WORD_IDS - 1) + 1
        return index


_KNOWN = _Known()


def word_ids(text: str) -> list[int]:
    """An id from 1 to 2³¹ − 1 for each word of a text, in order; 0 is left for padding.

    A word is a run of letters, digits and underscores, in lower case and in Unicode's form NFC; each other character
    that is no white space is a word of its own. Its id is a hash, BLAKE2b of its UTF-8: two of a million words share
    theirs with a probability of 1 to 2,000 each, and no text comes back from ids.
    """
    return list(map(_KNOWN.__getitem__, words_of(text)))


def words_of(text: str) -> list[str]:
    """The words of a text, in order, as `word_ids` hashes them."""
    return WORD.findall(unicodedata.normalize("NFC", text).lower())


def takes_words(preprocessing: Mapping[str, Any] | None) -> bool:
    """Whether a saved model says, by the facts of its data, that its tokens are words."""
    tokens = (preprocessing or {}).get("tokens")
    return isinstance(tokens, Mapping) and tokens.get("kind") == "words"

"""Letters of DNA and of proteins as token ids, and the other strand of DNA."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int

SPACE = b" \t\r\n\v\f"  # which is no letter


@dataclass(frozen=True)
class Alphabet:
    """Letters whose ids are 1, 2, … in order, in either case; 0 is padding.

    Attributes:
        name: what `--data.tokenizer` calls it.
        letters: the first ones are those that sequences are made of, the others say what is not known.
        plain: how many of them are of the first kind.
        unknown: the letter that any other character is read as.
        same: letters that are read as others.
        complements: the letter that is opposite to each on the other strand; "" where there is no such.
    """

    name: str
    letters: str
    plain: int
    unknown: str
    same: dict[str, str] = field(default_factory=dict)
    complements: str = ""

    @property
    def table(self) -> Int[np.ndarray, "256"]:
        """The id of each byte."""
        ids = np.full(256, self.letters.index(self.unknown) + 1, np.int64)
        for letter in (*self.letters, *self.same):
            place = self.letters.index(self.same.get(letter, letter)) + 1
            ids[[ord(letter), ord(letter.lower())]] = place
        return ids

    def encode(self, text: bytes) -> Int[np.ndarray, " N"]:
        """Ids of a sequence, int64, without white space."""
        return _TABLES[self.name][np.frombuffer(text.translate(None, SPACE), np.uint8)]

    def decode(self, ids: Int[np.ndarray, " N"]) -> str:
        """The letters of ids, without padding."""
        return "".join(self.letters[index - 1] for index in ids.tolist() if index)

    def strangers(self, text: bytes) -> dict[str, int]:
        """Characters that are no letters, and how often they come."""
        known = "".join([self.letters, *self.same])
        left = text.translate(None, SPACE + (known + known.lower()).encode())
        return {character: left.decode("latin-1").count(character) for character in sorted(set(left.decode("latin-1")))}

    @property
    def opposite(self) -> Int[np.ndarray, " ids"]:
        """The id on the other strand, of each id.

        Raises:
            ValueError: these are no letters of DNA.
        """
        if not self.complements:
            raise ValueError(f"tokenizer={self.name!r}: only DNA has another strand; leave it out, or use 'dna'")
        return np.array([0, *(self.letters.index(letter) + 1 for letter in self.complements)])


# Codes of the IUPAC-IUB: one letter for any of several bases, 1984; one letter for an amino acid, 1983
DNA = Alphabet("dna", "ACGTNRYSWKMBDHV-", 4, "N", {"U": "T"}, "TGCANYRSWMKVHDB-")
PROTEIN = Alphabet("protein", "ACDEFGHIKLMNPQRSTVWYXBZJUO*-", 20, "X")
ALPHABETS = {one.name: one for one in (DNA, PROTEIN)}
_TABLES = {name: one.table for name, one in ALPHABETS.items()}


def reverse_complement(ids: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """The other strand of DNA, read in its own direction; ids are those of "dna", and padding stays padding."""
    return DNA.opposite[ids[::-1]]

"""DNA, RNA and proteins with labels: fasta files, or tables with a column of sequences."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import datasets
from torch.utils.data import DataLoader, Dataset

from lambda_seq.inference.alphabets import ALPHABETS, Alphabet
from lambda_seq.tasks.data.labels import Rows
from lambda_seq.tasks.data.reading.notes import note
from lambda_seq.tasks.data.text.data import TextData
from lambda_seq.tasks.data.text.fasta import has_fasta, load_fasta
from lambda_seq.tasks.data.text.sites import SITES, sites
from lambda_seq.tasks.data.text.strands import EitherStrand, other_strand
from lambda_seq.tasks.facts import Facts


class BiosequenceData(TextData):
    """Sequences of letters with one label each: DNA and RNA, or proteins.

    A token is a letter, in either case: of DNA A, C, G, T and the letters of IUPAC for any of several bases, of which N
    is any of all, with U as T; of proteins the twenty amino acids, and what stands for several or for none of them.
    Other characters are read as N, or as X, and counted in a line; white space is none.

    Of DNA, training can read either strand of a sequence, and evaluation and predictors both, whose answers are
    averaged: so that the answer is the same for a sequence and for its reverse complement. That is for labels to which
    the strand does not matter.

    Args:
        path: fasta files (.fasta, .fa, .fna, .faa, also as .gz): one, or a folder of such, named train, validation and
            test for the splits, or with a folder, or a file, for each class; a table (csv, tsv, parquet, jsonl) with a
            column of sequences and one of labels; a hub name; or "generated:sites", DNA with and without a protein's
            binding site.
        tokenizer: "dna", also of RNA, or "protein".
        max_length: letters that are read of a sequence, or that a window has.
        reverse_complement: training reads each sequence of DNA as it is or as its reverse complement, at random.
        both_strands: evaluation and predictors average the answers to both strands of DNA.
        label_table: of fasta files: a table with a column of ids and one of labels; default: the only one beside them,
            else headers (label=…), folders and names of files say labels.
        options: as for `TextData`.

    Raises:
        ValueError: another tokenizer, strands of proteins, or generated DNA as proteins.
    """

    def __init__(
        self,
        path: str = SITES,
        tokenizer: str = "dna",
        max_length: int = 4096,
        reverse_complement: bool = False,
        both_strands: bool = False,
        label_table: str | None = None,
        **options: Any,
    ) -> None:
        if tokenizer not in ALPHABETS:
            raise ValueError(
                f"tokenizer={tokenizer!r}: expected one of {', '.join(map(repr, ALPHABETS))}; others are of TextData"
            )
        for name, wanted in (("reverse_complement", reverse_complement), ("both_strands", both_strands)):
            if wanted and not ALPHABETS[tokenizer].complements:
                raise ValueError(f"{name}=true with tokenizer={tokenizer!r}: only DNA has another strand; leave it out")
        if path == SITES and tokenizer != "dna":
            raise ValueError(f"tokenizer={tokenizer!r} with path={path!r}, which is DNA: give a path, or leave it out")
        super().__init__(path, tokenizer=tokenizer, max_length=max_length, **options)
        self.reverse_complement, self.both_strands, self.label_table = reverse_complement, both_strands, label_table

    @property
    def alphabet(self) -> Alphabet:
        """The letters."""
        return ALPHABETS[self.tokenizer]

    def load_tables(self, path: str, subset: str | None = None, whole: bool = False) -> dict[str, datasets.Dataset]:
        """The splits found at a path, or with `whole` all sequences as one; see `load_fasta`."""
        if path == SITES:
            return sites()
        if has_fasta(path):
            return load_fasta(path, whole, self.label_table, self.table)
        return super().load_tables(path, subset, whole)

    def measure(self) -> Facts:
        """As of texts; and whether both strands are read."""
        for name, rows in self.splits.items():
            self._note_strangers(rows, f"{name} split of path={self.path!r}")
        found = super().measure()
        if not self.both_strands or found.tokens is None:
            return found
        return replace(found, tokens=replace(found.tokens, strands=2))

    def _note_strangers(self, rows: Rows, where: str) -> None:
        found: Counter[str] = Counter()
        for text in self.texts(rows):
            found.update(self.alphabet.strangers(text))
        if found:
            shown = ", ".join(repr(letter) for letter, _ in found.most_common(5))
            note(
                f"{where}: {found.total():,} characters are no letters of {self.tokenizer}, such as {shown}: they are "
                f"read as {self.alphabet.unknown}"
            )

    def rows_as_items(self, rows: Rows, split: str, *, training: bool = False) -> Any:
        """Letters, (N,); in training those of either strand, if asked for."""
        if not any(rows.table is known.table for known in self.splits.values()):
            self._note_strangers(rows, f"predict_path={self.predict_path!r}")
        items: Dataset = super().rows_as_items(rows, split, training=training)
        return EitherStrand(items, self.seed) if training and self.reverse_complement else items

    def _in_order(self, rows: Rows, split: str) -> DataLoader:
        return (
            self._in_windows(rows, split, other_strand) if self._record.strands == 2 else super()._in_order(rows, split)
        )

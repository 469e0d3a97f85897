"""Files by the endings of their names, and their bytes, unpacked."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

PACKED: dict[str, Callable[[str], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": partial(pa.input_stream, compression="zstd"),
}

FASTA = (".fasta", ".fa", ".fna", ".ffn", ".faa", ".frn", ".fas")  # letters of DNA and proteins
SERIES = (".ts", ".npz", ".npy")  # series of numbers
SHARDS = (".tar",)  # of WebDataset


class BadFileError(Exception):
    """A file that cannot be read."""


def kind_of(file: Path) -> tuple[str, str]:
    """The endings of a file that say its kind and its compression: ".csv" and ".gz" or ""."""
    last = file.suffix.lower()
    return (Path(file.stem).suffix.lower(), last) if last in PACKED else (last, "")


def open_binary(file: Path) -> Any:
    """A file's bytes, unpacked."""
    unpack = PACKED.get(kind_of(file)[1])
    return open(file, "rb") if unpack is None else unpack(str(file))

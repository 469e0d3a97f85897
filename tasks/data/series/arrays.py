"""Series as arrays of numpy: .npz files with x and y, of one or of several splits, and .npy files of series alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lambda_seq.tasks.data.reading.files import BadFileError
from lambda_seq.tasks.data.reading.layout import ALIASES
from lambda_seq.tasks.data.reading.notes import some

KINDS = (".npz", ".npy")
SERIES = ("x", "series", "data", "values")  # what arrays of series are called
LABELS = ("y", "label", "labels", "target", "targets", "class")


def is_arrays(file: Path) -> bool:
    """Whether a file holds arrays, by its name."""
    return file.suffix.lower() in KINDS


def read_arrays(file: Path) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Series (n, C, N) and, as far as they are known, their labels (n,), by split; "" where names say none.

    Of a .npz file names are x and y, or x_train, y_train, x_test and so on.

    Raises:
        BadFileError: it cannot be read, or holds something else.
    """
    try:
        found = np.load(file, allow_pickle=False)
        arrays = {"x": found} if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
    except (ValueError, OSError, EOFError) as error:
        hint = "; save numbers, not objects" if "pickle" in str(error).lower() else ""
        raise BadFileError(f"{file}: cannot be read as arrays of numbers: {error}{hint}") from error
    parts = {name: _part(name) for name in arrays}
    series = {split: name for name, (what, split) in parts.items() if what == "series"}
    labels = {split: name for name, (what, split) in parts.items() if what == "labels"}
    if not series:
        raise BadFileError(
            f"{file}: it holds {some(list(arrays))}; expected x (n, channels, length) and y (n,), or x_train, y_train, "
            "x_test and y_test"
        )
    result = {}
    for split, name in series.items():
        x, y = arrays[name], arrays[labels[split]] if split in labels else None
        x = x[:, None] if x.ndim == 2 else x
        if x.ndim != 3 or x.dtype.kind not in "fiub":
            raise BadFileError(
                f"{file}: {name} is {x.dtype} {arrays[name].shape}; expected numbers (n, channels, length), or "
                "(n, length) of one channel"
            )
        if y is not None and (y.ndim != 1 or len(y) != len(x)):
            raise BadFileError(f"{file}: {labels[split]} has shape {y.shape}; expected ({len(x)},), as {name} has")
        result[split] = x, y
    return result


def _part(name: str) -> tuple[str, str]:
    """What an array is by its name, "series", "labels" or "", and its split, "" for none."""
    word, _, split = name.casefold().rpartition("_")
    if split not in ALIASES:
        word, split = name.casefold(), ""
    kind = "series" if word in SERIES else "labels" if word in LABELS else ""
    return kind, ALIASES.get(split, "")


def as_cells(labels: np.ndarray) -> list[Any]:
    """Labels as cells of a table, bytes as text."""
    return [cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell for cell in labels.tolist()]

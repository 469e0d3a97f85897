"""What pictures and clips share: tables that hold files or name them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lambda_seq.tasks.data.labels import Rows
from lambda_seq.tasks.data.module import ClassificationData
from lambda_seq.tasks.data.reading.cells import Cells


class Origin(NamedTuple):
    """Where rows come from."""

    words: str  # for errors
    root: Path | None  # that paths in cells are relative to
    known: bool  # one of the splits of `path`, not other rows to predict


class MediaData(ClassificationData):
    """Rows of a table whose cells are files, or the names of files relative to the table's folder."""

    @abstractmethod
    def cells(self, rows: Rows, split: str) -> Cells:
        """The files of these rows."""

    def inputs(self, rows: Rows, split: str) -> tuple[list[str], Callable[[int], str]]:
        """Paths, or numbers of rows that hold the bytes of files, which are no text."""
        cells = self.cells(rows, split)
        names = [cells.name(row) for row in range(len(cells))]
        return names, lambda row: "" if names[row] == str(row) else names[row]

    def origin(self, rows: Rows, split: str) -> Origin:
        """Where the rows of a split, or of data to predict, come from."""
        known = split in self.splits and rows.table is self.splits[split].table
        if known or self.predict_path is None:
            return Origin(f"{split} split of path={self.path!r}", _folder(self.path), True)
        return Origin(f"predict_path={self.predict_path!r}", _folder(self.predict_path), False)


def _folder(path: str) -> Path | None:
    """The folder itself, or that of the file; None if there is neither, as of a name on the hub."""
    local = Path(path).expanduser()
    if local.is_file():
        return local.parent
    return local if local.is_dir() else None

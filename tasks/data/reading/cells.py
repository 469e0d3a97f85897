"""Pictures and clips in the cells of a table: named by the path of a file, held as its bytes, or both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import datasets
import pyarrow as pa

from lambda_seq.tasks.data.labels import LABEL_NAMES, Rows, find_column, reads_as_numbers
from lambda_seq.tasks.data.reading.notes import note

MOST_NAMED = 20  # bad files in one message

Result = TypeVar("Result")


class Cells:
    """The files in rows of a table, read when asked for; every complaint names the row and, if it has one, the file.

    A cell holds the path of a file, the bytes of one, or both as {"bytes", "path"} like the `Image` and `Audio` columns
    of `datasets`; where there are bytes the path is only a name.

    Args:
        rows: which rows of which table.
        column: of the files.
        where: the rows' origin, for errors.
        root: folder that paths are relative to; a path that is not found there is tried from the working folder.
    """

    kind: ClassVar[str] = "file"
    several: ClassVar[str] = "files"

    def __init__(self, rows: Rows, column: str, where: str, root: Path | None = None) -> None:
        self.rows, self.column, self.where, self.root = rows, column, where, root
        self.table = rows.table.select_columns(column).with_format("arrow")  # which decodes nothing

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, row: int) -> str:
        """The row's file, or its number if it has none of its own."""
        raw, path = self._cell(row)
        return str(self.rows.indices[row]) if raw is not None or path is None else path

    def read(self, row: int, read: Callable[[str | bytes], Result]) -> Result:
        """What `read` makes of the path or the bytes of a row.

        Raises:
            ValueError: the cell is empty, or `read` complains; names the row.
        """
        raw, path = self._cell(row)
        try:
            if raw is not None:
                return read(raw.as_py())
            if path is None:
                raise ValueError(f"no {self.kind}")
            return read(path)
        except ValueError as error:
            file = f", {path}" if path else ""
            raise ValueError(
                f"{self.where}, row {self.rows.indices[row]}{file}: {error}; replace or remove it"
            ) from error

    def _cell(self, row: int) -> tuple[pa.Scalar | None, str | None]:
        """The bytes, not yet copied, and the path of a row, as far as it has them."""
        cell = self.table[int(self.rows.indices[row])].column(0)[0]
        fields = dict(cell.items()) if isinstance(cell, pa.StructScalar) and cell.is_valid else {"": cell}
        raw, path = None, None
        for field in fields.values():
            if field.is_valid and isinstance(field, pa.StringScalar | pa.LargeStringScalar):  # which are BinaryScalars
                path = field.as_py() or None
            elif field.is_valid:
                raw = field
        if raw is None and path is not None and self.root is not None and (self.root / path).exists():
            path = str(self.root / path)
        return raw, path


def read_all(sets: Sequence[tuple[Cells, Callable[[int], Result]]]) -> list[list[Result]]:
    """What `read` gives for each row of each set (cells, read).

    Raises:
        ValueError: some cannot be read; lists them, the first `MOST_NAMED` by name.
    """
    results: list[list[Result]] = []
    bad: list[str] = []
    for cells, read in sets:
        found = []
        for row in range(len(cells)):
            try:
                found.append(read(row))
            except ValueError as error:
                bad.append(str(error))
        results.append(found)
    if len(bad) == 1:
        raise ValueError(bad[0])
    if bad:
        more = f"\n  and {len(bad) - MOST_NAMED} more" if len(bad) > MOST_NAMED else ""
        several = sets[0][0].several
        raise ValueError(f"{len(bad)} {several} cannot be used:\n  " + "\n  ".join(bad[:MOST_NAMED]) + more)
    return results


def find_cells(
    table: datasets.Dataset, option: str, given: str | None, names: tuple[str, ...], feature: type, kind: str
) -> str:
    """The column of files that the option names, else the first of a usual name, else the only one that can be it.

    If there are columns that hold files themselves, columns of paths are not looked at.

    Raises:
        ValueError: none or several could be it, or the one named holds something else.
    """

    def embeds(column: str) -> bool:
        found = table.features[column]
        if isinstance(found, dict):
            return bool({"bytes", "path"} & set(found))
        return isinstance(found, feature) or _is(found, "binary", "large_binary")

    paths = [name for name in table.column_names if holds_paths(table, name) and name not in LABEL_NAMES]
    paths = [name for name in paths if name in names or not reads_as_numbers(table, name)]
    embedding = list(filter(embeds, table.column_names))
    usual = [name for name in names if name in (embedding or paths)]
    guesses = usual or embedding or ([] if set(names) & set(table.column_names) else paths)
    guess = guesses[0] if usual or len(guesses) == 1 else None
    column = find_column(table, option, given or guess, names, lambda found: isinstance(found, feature))
    if given is None and guess and not usual and not embedding:
        note(f"Column {column!r} is read as {option}, as no other fits. Choose with --data.{option}")
    if given is None and len(usual) > 1:
        note(f"Column {column!r} is read; {', '.join(usual[1:])} could be it too. Choose with --data.{option}")
    if not embeds(column) and not holds_paths(table, column):
        raise ValueError(
            f"{option}={column!r} holds {table.features[column]}: expected {kind}, bytes of files or paths. Name "
            f"another column: --data.{option} NAME"
        )
    return column


def holds_paths(table: datasets.Dataset, column: str) -> bool:
    """Whether a column holds nothing but the names of files."""
    return _is(table.features[column], "string", "large_string")


def _is(feature: Any, *kinds: str) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype in kinds

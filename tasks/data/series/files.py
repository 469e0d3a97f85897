"""Where series come from: files of time series (.ts), arrays (.npz, .npy), tables, or the generated waves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc

from lambda_seq.tasks.data.reading.cache import state_of
from lambda_seq.tasks.data.reading.columns import flat
from lambda_seq.tasks.data.reading.dialects import GUESSED, TableOptions
from lambda_seq.tasks.data.reading.files import BadFileError
from lambda_seq.tasks.data.reading.layout import note_others, tables_by_split, visible_files
from lambda_seq.tasks.data.reading.sources import is_saved, load_rows
from lambda_seq.tasks.data.series.arrays import as_cells, is_arrays, read_arrays
from lambda_seq.tasks.data.series.forms import COLUMN, Form, FormOptions, find_form
from lambda_seq.tasks.data.series.generated import CHANNELS, WAVES, waves
from lambda_seq.tasks.data.series.tables import as_series, stored
from lambda_seq.tasks.data.series.ts import is_ts, read_head, read_series

READING = 1  # changes when files are read otherwise


@dataclass(frozen=True)
class Loaded:
    """Series that were found.

    Attributes:
        tables: by split, with the column "series".
        channels: their names.
        form: how tables hold them; None of other files.
        numbers: whether files say that their labels are numbers to predict.
    """

    tables: dict[str, Any]
    channels: tuple[str, ...]
    form: Form | None = None
    numbers: bool = False


def load_series(
    path: str,
    subset: str | None = None,
    whole: bool = False,
    table: TableOptions = GUESSED,
    options: FormOptions = FormOptions(),  # noqa: B008 - frozen
    known: Sequence[str] = (),
    form: Form | None = None,
    names: Sequence[str] = (),
) -> Loaded:
    """The splits found at `path`.

    Args:
        path: a .ts, .npz or .npy file; a table (parquet, jsonl, json, csv, tsv); a folder of such, of which names say
            the splits, NAME_TRAIN.ts and NAME_TEST.ts too; a name on the Hugging Face hub; or "generated:waves".
        subset: the configuration of a hub data set that has several.
        whole: take all files as one split, "train", whatever their names: for prediction.
        table: how tables are written, where that is not to be guessed.
        options: how they hold series, where that is not to be guessed.
        known: columns of labels.
        form: how the tables of the training hold series, which others are read alike.
        names: of the channels, if the training is not at hand: where tables have columns of these names, they are read.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: as `load_rows`, or there are no series; names file and row.
    """
    if path == WAVES:
        return _generated()
    local = Path(path).expanduser()
    try:
        if local.is_dir() and not is_saved(path):
            for kind, name in ((is_ts, ".ts files"), (is_arrays, "arrays")):
                if files := visible_files(local, kind):
                    note_others(local, files, name, whole)
                    by_split = tables_by_split(local, files, whole)
                    return _of_ts(path, by_split) if kind is is_ts else _of_arrays(path, by_split, whole, options)
        elif local.is_file() and is_ts(local):
            return _of_ts(path, {"train": [local]})
        elif local.is_file() and is_arrays(local):
            return _of_arrays(path, {"train": [local]}, whole, options)
    except BadFileError as error:
        raise ValueError(f"path={path!r}: the data cannot be read: {error}") from error
    tables = {name: flat(found) for name, found in load_rows(path, subset, whole=whole, options=table).items()}
    if names and all(set(names) <= {*table.column_names} for table in tables.values()):
        options = replace(options, channel_columns=tuple(names))
    found = _of_tables(path, tables, options, known, form)
    _check(found.channels, names or found.channels, f"path={path!r}")
    return found


def _of_tables(
    path: str, tables: dict[str, Any], options: FormOptions, known: Sequence[str], form: Form | None
) -> Loaded:
    form = form or find_form(tables.get("train", next(iter(tables.values()))), options, known)
    found, channels = {}, form.channels
    for split, table in tables.items():
        found[split], own = as_series(table, form, f"{split} split of path={path!r}")
        channels = channels or own
        _check(own, channels, f"{split} split of path={path!r}")
    return Loaded(found, channels, form)


def _of_ts(path: str, files: dict[str, list[Path]]) -> Loaded:
    heads = [read_head(file) for members in files.values() for file in members]
    tables: dict[str, Any] = {}
    channels: tuple[str, ...] = ()
    for split, members in files.items():
        where = f"{split} split of path={path!r}"

        def series(members: list[Path] = members) -> Iterator[np.ndarray]:
            return (values for file in members for values, _ in read_series(file))

        labels = [label for file in members for _, label in read_series(file)]
        depends_on = [READING, *(state_of(file.absolute()) for file in members)]
        tables[split], channels = _joined(series, depends_on, labels, where, channels)
    return Loaded(tables, channels, None, any(head.numbers for head in heads))


def _of_arrays(path: str, files: dict[str, list[Path]], whole: bool, options: FormOptions) -> Loaded:
    parts: dict[str, list[tuple[Path, str, np.ndarray, np.ndarray | None]]] = {}
    for split, members in files.items():
        for file in members:
            for own, (x, y) in read_arrays(file).items():
                x = x.swapaxes(1, 2) if options.layout == "steps" else x
                parts.setdefault("train" if whole else own or split, []).append((file, own, x, y))
    tables: dict[str, Any] = {}
    channels: tuple[str, ...] = ()
    for split, found in parts.items():
        where = f"{split} split of path={path!r}"

        def series(found: list[Any] = found) -> Iterator[np.ndarray]:
            return (row for _, _, x, _ in found for row in x)

        labels: list[Any] = [
            label for _, _, x, y in found for label in (as_cells(y) if y is not None else [None] * len(x))
        ]
        depends_on = [READING, options.layout, *([own, state_of(file.absolute())] for file, own, _, _ in found)]
        tables[split], channels = _joined(series, depends_on, labels, where, channels)
    return Loaded(tables, channels)


def _generated() -> Loaded:
    tables = {}
    for split, (series, labels) in waves().items():
        tables[split], _ = _joined(partial(iter, series), [READING, WAVES, split], labels, split, ())
    return Loaded(tables, CHANNELS)


def _joined(
    series: Callable[[], Iterator[np.ndarray]], depends_on: Any, labels: list[Any], where: str, known: tuple[str, ...]
) -> tuple[Any, tuple[str, ...]]:
    """Series with their labels, where there are any."""
    table, channels = stored(depends_on, series, where)
    if not len(table):
        raise ValueError(f"{where}: there are no series in it; remove it or put some in it")
    _check(channels, known or channels, where)
    if all(label is None for label in labels):
        return table, channels
    own = datasets.Dataset.from_dict({"label": labels})
    return datasets.concatenate_datasets([own, table], axis=1), channels


def _check(channels: Sequence[str], known: Sequence[str], where: str) -> None:
    if len(channels) != len(known):
        raise ValueError(
            f"{where}: series of {len(channels)} channels, where others have {len(known)}; give all as many"
        )


class Stored:
    """The series of rows of a table.

    Args:
        table: with the column "series".
        indices: rows of it.
    """

    def __init__(self, table: Any, indices: np.ndarray) -> None:
        self.table, self.indices = table.select_columns(COLUMN).with_format("arrow"), indices

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, row: int) -> np.ndarray:
        """A series (C, N), float32, NaN where a number is missing."""
        cell = self.table[int(self.indices[row])].column(0)[0]
        return _values(cell)

    def lengths(self) -> np.ndarray:
        """Steps of each series, (rows,)."""
        cells = self.table[:].column(0)
        channels = pc.list_value_length(cells).to_numpy()
        inner = pc.list_value_length(pc.list_flatten(cells)).to_numpy()
        first = np.cumsum(channels) - channels
        return np.where(channels > 0, inner[np.minimum(first, max(len(inner) - 1, 0))], 0)[self.indices].astype(
            np.int64
        )


def _values(cell: Any) -> np.ndarray:
    lists = cell.values
    return np.stack([np.asarray(lists[place].values, dtype=np.float32) for place in range(len(lists))])

"""Pictures that tables hold as numbers: a column for each pixel, or all of them in a cell, as a list or as text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lambda_seq.inference.pictures import full_scale
from lambda_seq.tasks.data.labels import LABEL_NAMES, TEXT
from lambda_seq.tasks.data.reading.cache import cached_table
from lambda_seq.tasks.data.reading.columns import like_classes
from lambda_seq.tasks.data.reading.notes import note

COLUMN = "pixels"  # that holds the pictures
LEAST = 16  # numbers of a picture
AT_ONCE = 512  # rows
NUMBERED = re.compile(r"(pixels?|px|pix|column|col|attr|attribute|feature|dim|p|x|v|f)?[ _.-]?\d+([x_., -]\d+)?", re.I)
NUMBERS = re.compile(rf"\s*\[?\s*(-?[\d.]+(e-?\d+)?[\s,;]+){{{LEAST - 1},}}-?[\d.]+(e-?\d+)?\s*\]?\s*", re.I)


@dataclass(frozen=True)
class Layout:
    """Where the numbers are, and what they are.

    Attributes:
        columns: one for each pixel in reading order, or a single one with all of them.
        shape: height, width and perhaps channels; None if cells are lists of lists that say so.
        white: the number that becomes 255.
    """

    columns: tuple[str, ...]
    shape: tuple[int, ...] | None
    white: float


def find_layout(
    table: datasets.Dataset, image: str | None, label: str | None, shape: Sequence[int] | None, names: Sequence[str]
) -> Layout | None:
    """How a table holds pictures as numbers; None if it does not. What is guessed is said.

    Args:
        table: whose numbers say what white is.
        image: the column of pictures that was named.
        label: the column of labels that was named.
        shape: height, width and perhaps channels, if they were given.
        names: usual ones of columns of pictures.

    Raises:
        ValueError: numbers that make no square, without a shape, or not of the shape; or some below 0.
    """
    wanted = [image] if image else [name for name in table.column_names if name.casefold() in names]
    cells = next((name for name in wanted if name in table.column_names and holds_numbers(table, name)), None)
    columns = (cells,) if cells else () if wanted else pixel_columns(table, label)
    if not columns:
        return None
    found = Layout(columns, None, 255.0)
    first = next(_numbers(table.select(range(1)), found))[1][0]
    if first.ndim == 1:
        found = Layout(columns, _shape(first.size, shape, columns), 255.0)
    least, most, fractions = math.inf, -math.inf, False
    for row, pictures in _numbers(table, found):
        for place, numbers in enumerate(pictures):
            if not np.isfinite(numbers).all() or numbers.min() < 0:
                raise ValueError(
                    f"row {row + place}: its pixels in {_named(columns)} are missing or below 0; give numbers from 0 "
                    "to 255, or from 0 to 1"
                )
            least, most = min(least, numbers.min()), max(most, numbers.max())
            fractions = fractions or bool((numbers % 1).any())
    white = full_scale(float(most), fractions=fractions)
    size = "×".join(map(str, found.shape or first.shape))
    what = f"Columns {_named(columns)} are" if len(columns) > 1 else f"Column {columns[0]!r} is"
    note(f"{what} read as pictures of {size} pixels, 0 as black and {white:g} as white. Choose with --data.pixel_shape")
    return Layout(columns, found.shape, white)


def as_pictures(table: datasets.Dataset, layout: Layout) -> datasets.Dataset:
    """The table with pictures, as files of Netpbm, in the column "pixels" in place of the numbers.

    Raises:
        ValueError: the table lacks columns of pixels.
    """
    if lacking := [name for name in layout.columns if name not in table.column_names]:
        raise ValueError(f"the columns of pixels {_named(lacking)} are missing; give a table like that of training")

    schema = datasets.Features({COLUMN: datasets.Value("large_binary")}).arrow_schema

    def batches() -> Iterator[pa.Table]:
        for _, pictures in _numbers(table, layout):
            yield pa.table(
                {COLUMN: pa.array([_netpbm(numbers, layout.white) for numbers in pictures], pa.large_binary())}
            )

    # Private to datasets: what its own caches are named by
    depends_on = [table._fingerprint, layout.columns, layout.shape, layout.white]
    drawn = cached_table("pixels", depends_on, schema, batches)
    others = [name for name in table.column_names if name not in layout.columns]
    return datasets.concatenate_datasets([table.select_columns(others), drawn], axis=1) if others else drawn


def holds_numbers(table: datasets.Dataset, column: str) -> bool:
    """Whether the first cell of a column is a list of numbers, or text of them."""
    kind = table.features[column]
    if kind in TEXT:
        first = next((row[column] for row in table.select_columns(column) if row[column]), "")
        return bool(NUMBERS.fullmatch(first))
    while isinstance(kind, datasets.List | datasets.LargeList):
        kind = kind.feature
        if isinstance(kind, datasets.Value):
            return "int" in kind.dtype or "float" in kind.dtype
    return isinstance(kind, datasets.Array2D | datasets.Array3D)


def pixel_columns(table: datasets.Dataset, label: str | None) -> tuple[str, ...]:
    """Numbered columns of numbers; one of them at either end that is like classes is the label, if none is named so."""
    names = [name for name in table.column_names if NUMBERED.fullmatch(name.strip()) and name != label]
    if len(names) < LEAST or not all(_numeric(table, name) for name in (names[0], names[len(names) // 2], names[-1])):
        return ()
    if label is None and not {name.strip().casefold() for name in table.column_names} & set(LABEL_NAMES):
        ends = [name for name in (names[0], names[-1]) if like_classes(table, name)]
        if len(ends) == 1 and _side(len(names) - 1):
            names.remove(ends[0])
    return tuple(names)


def _numeric(table: datasets.Dataset, column: str) -> bool:
    kind = table.features[column]
    if kind in TEXT:
        try:
            return table.select_columns(column).with_format("arrow")[:LEAST].column(0).cast("float64") is not None
        except pa.ArrowInvalid:
            return False
    return isinstance(kind, datasets.Value) and ("int" in kind.dtype or "float" in kind.dtype)


def _side(count: int) -> tuple[int, ...]:
    """The shape of so many numbers that are a square, in grey or in colours; nothing if they are none."""
    for channels in (1, 3):
        side = math.isqrt(count // channels)
        if side * side * channels == count:
            return (side, side) if channels == 1 else (side, side, channels)
    return ()


def _shape(count: int, given: Sequence[int] | None, columns: Sequence[str]) -> tuple[int, ...]:
    shape = tuple(given) if given else _side(count)
    if not shape or math.prod(shape) != count:
        what = f"pixel_shape={list(given)}: does not fit" if given else "pixel_shape: there is no square of"
        raise ValueError(
            f"{what} the {count} numbers of a row in {_named(columns)}; give height and width, and 3 for colours: "
            "--data.pixel_shape [H, W]"
        )
    return shape


def _numbers(table: datasets.Dataset, layout: Layout) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Number of the first row, and numbers of some rows, shaped as far as it is known."""
    arrow = table.select_columns(list(layout.columns)).with_format("arrow")
    for begin in range(0, len(table), AT_ONCE):
        part: pa.Table = arrow[begin : begin + AT_ONCE]
        if len(layout.columns) > 1:
            columns = [pc.cast(part.column(name), pa.float64()).to_numpy() for name in layout.columns]
            rows: list[Any] = list(np.stack(columns, 1))
        else:
            rows = [_cell(cell) for cell in part.column(0).to_pylist()]
        yield begin, [row.reshape(layout.shape) if layout.shape else row for row in rows]


def _cell(cell: Any) -> np.ndarray:
    if isinstance(cell, str):
        cell = re.split(r"[\s,;]+", cell.strip().strip("[]").strip())
    numbers = np.array(math.nan if cell is None else cell, dtype=np.float64)
    if numbers.ndim == 3 and numbers.shape[0] in (1, 3) and numbers.shape[2] not in (1, 3):
        numbers = numbers.transpose(1, 2, 0)  # channels first
    return numbers


def _netpbm(numbers: np.ndarray, white: float) -> bytes:
    """A picture (H, W) or (H, W, C) as a file of Netpbm, which Pillow opens in no time."""
    pixels = (numbers * (255 / white)).round().clip(0, 255).astype(np.uint8)
    colours = pixels.ndim == 3 and pixels.shape[2] == 3
    pixels = pixels if colours else pixels.reshape(pixels.shape[:2])
    return b"P%d %d %d 255\n" % (6 if colours else 5, pixels.shape[1], pixels.shape[0]) + pixels.tobytes()


def _named(columns: Sequence[str]) -> str:
    return repr(columns[0]) if len(columns) == 1 else f"{columns[0]!r} to {columns[-1]!r}"

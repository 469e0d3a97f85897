"""Photos with their boxes in the rows of a table: a data set of the hub, parquet files, or one that was saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from lambda_seq.tasks.data.images.decoding import Pictures
from lambda_seq.tasks.data.labels import Rows
from lambda_seq.tasks.data.reading.cells import read_all
from lambda_seq.tasks.data.reading.sources import is_saved, load_rows
from lambda_seq.tasks.detection.entries import CATEGORIES, Entry, albums_of, entry_of
from lambda_seq.tasks.detection.records import Album

TABLES = (".parquet", ".arrow")
PHOTOS = ("image", "img", "photo", "picture")  # what the column of photos is called
OBJECTS = "objects"


@dataclass(frozen=True)
class Photo:
    """A photo in a table; called, it is read.

    Attributes:
        photos: the column.
        row: its number.
    """

    photos: Pictures
    row: int

    def __call__(self) -> tuple[UInt8[np.ndarray, "H W 3"], Bool[np.ndarray, "0 H W"]]:
        """Pixels, and no masks, which are drawn from outlines."""
        pixels = self.photos.load(self.row, lambda image: np.array(image.convert("RGB")))
        return pixels, np.zeros((0, *pixels.shape[:2]), bool)

    def __str__(self) -> str:
        """Where it is."""
        return f"row {self.row}"


def holds_rows(root: Path) -> bool:
    """Whether a path is a data set of rows: saved by `datasets`, a file of rows, or a folder of such."""
    if root.is_file():
        return root.suffix in TABLES
    return is_saved(root) or any(next(root.rglob(f"*{kind}"), None) for kind in TABLES)


def read_rows(path: str, subset: str | None) -> dict[str, Album]:
    """The pictures of each split.

    Args:
        path: a name on the hub, a file of rows, a folder of such, or one that `save_to_disk` wrote.
        subset: configuration of a data set that has several.

    Raises:
        FileNotFoundError: there is nothing.
        ConnectionError: `path` can only be a name on the hub, which cannot be reached.
        ValueError: no column of photos or of objects, no training split, photos that cannot be read or have another
            size than their rows say, mistakes in objects.
    """
    tables = load_rows(path, subset)
    if "train" not in tables:
        raise ValueError(f"path={path!r} has the splits {', '.join(tables)}: expected one called train")
    where = {split: f"{split} split of path={path!r}" for split in tables}
    labels = _labels(tables["train"])
    entries = {split: _entries(table, path, where[split], labels) for split, table in tables.items()}
    return albums_of(entries, where, labels)


def _entries(table: datasets.Dataset, path: str, where: str, labels: list[str] | None) -> list[Entry]:
    column = next((name for name in PHOTOS if name in table.column_names), None)
    if column is None or OBJECTS not in table.column_names:
        raise ValueError(
            f"{where} has the columns {', '.join(table.column_names)}: expected 'image' and {OBJECTS!r}; rename those "
            "that hold photos and boxes"
        )
    if _labels(table) != labels:
        raise ValueError(f"{where}: its categories have other names than in training; give all splits the same")
    local = Path(path).expanduser()
    root = local.parent if local.is_file() else local if local.is_dir() else None
    photos = Pictures(Rows(table, np.arange(len(table)), None), column, where, root)
    (sizes,) = read_all([(photos, lambda row: photos.load(row, _size))])
    entries = []
    for row, said in enumerate(table.remove_columns(column)):
        size, place = sizes[row], f"{where}, row {row}"
        known = said.get("width") or size[0], said.get("height") or size[1]
        if known != size:
            raise ValueError(
                f"{place}: the photo has {size[0]} × {size[1]} pixels, but its row says {known[0]} × {known[1]}; give "
                "the photo that was annotated"
            )
        name = said.get("image_id")
        objects = [] if said[OBJECTS] is None else said[OBJECTS]
        entries.append(entry_of(row if name is None else name, Photo(photos, row), size, objects, place, labels))
    return entries


def _size(image: Image.Image) -> tuple[int, int]:
    return image.size


def _labels(table: datasets.Dataset) -> list[str] | None:
    """Names of the categories, where the table has names of numbers."""
    fields = _within(table.features.get(OBJECTS))
    for field in (fields[key] for key in CATEGORIES if key in fields) if isinstance(fields, dict) else ():
        found = _within(field)
        return list(found.names) if isinstance(found, datasets.ClassLabel) else None
    return None


def _within(feature: Any) -> Any:
    """What a list holds; else the feature itself."""
    if isinstance(feature, list):
        return feature[0]
    return getattr(feature, "feature", feature)

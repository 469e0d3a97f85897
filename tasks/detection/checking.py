"""Mistakes in annotated pictures, found before training: each is named with its file."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from lambda_seq.tasks.data.reading.notes import note
from lambda_seq.tasks.detection.records import Album, Picture

ROUNDED = 1.0  # pixels by which an outline may leave its photo, as rounding does
READERS = 8  # files whose heads are read at once


def checked(album: Album, where: str) -> Album:
    """The album without objects that have no area; boxes end at the photo's border.

    Raises:
        FileNotFoundError: photos that are missing.
        ValueError: a photo that is none or has another size than is said, a box or an outline outside of its photo.
    """
    check_files([picture for picture in album.pictures if isinstance(picture.source, str)], where)
    pictures, empty = [], []
    for picture in album.pictures:
        _check_objects(picture, where)
        low = np.clip(picture.boxes[:, :2], 0, (picture.width, picture.height))
        high = np.clip(picture.boxes[:, :2] + picture.boxes[:, 2:], 0, (picture.width, picture.height))
        sides = high - low
        kept = (sides > 0).all(1)
        empty += [picture.id] * int((~kept).sum())
        pictures.append(replace(picture, boxes=np.concatenate([low, sides], 1)).take(kept))
    if empty:
        note(f"{where}: {len(empty)} boxes have no area and are left out, the first in photo {empty[0]}")
    return replace(album, pictures=pictures)


def check_files(pictures: Iterable[Picture], where: str) -> None:
    """That each photo is there, is one, and has the size that is said.

    Raises:
        FileNotFoundError: some are missing.
        ValueError: one is no photo, or of another size.
    """
    pictures = list(pictures)
    with ThreadPoolExecutor(READERS) as readers:
        sizes = list(readers.map(_size, (str(picture.source) for picture in pictures)))
    missing = [str(picture.source) for picture, size in zip(pictures, sizes, strict=True) if size is None]
    if missing:
        raise FileNotFoundError(
            f"{where}: {len(missing)} of {len(pictures)} photos are missing: {', '.join(missing[:3])}; add them, take "
            "them out of the annotations, or name their folder: --data.images"
        )
    for picture, size in zip(pictures, sizes, strict=True):
        if isinstance(size, str):
            raise ValueError(f"{where}: {picture.source} is no photo ({size}); replace the file")
        if size != (picture.width, picture.height):
            found, said = (f"{one[0]} × {one[1]}" for one in (size, (picture.width, picture.height)))  # type: ignore[index]
            raise ValueError(
                f"{where}: {picture.source} has {found} pixels, but its annotations say {said}; give the photo that "
                "was annotated"
            )


def size_of(file: str) -> tuple[int, int]:
    """(width, height) of a photo, of which only the head is read.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no photo.
    """
    found = _size(file)
    if found is None:
        raise FileNotFoundError(f"{file}: there is no such photo")
    if isinstance(found, str):
        raise ValueError(f"{file} is no photo ({found}); replace the file")
    return found


def _size(file: str) -> tuple[int, int] | str | None:
    """(width, height); a reason why the file is no photo; None for no file."""
    if not Path(file).is_file():
        return None
    try:
        with Image.open(file) as picture:
            return picture.size
    except UnidentifiedImageError:
        return "its format is not known"
    except (OSError, ValueError) as error:
        return str(error)


def _check_objects(picture: Picture, where: str) -> None:
    """That boxes and outlines lie in the photo."""
    size = f"{picture.width} × {picture.height} pixels"
    most = np.array([picture.width, picture.height]) + ROUNDED
    low, high = picture.boxes[:, :2], picture.boxes[:, :2] + picture.boxes[:, 2:]
    wrong = (low < -ROUNDED).any(1) | (high > most).any(1) | ~np.isfinite(picture.boxes).all(1)
    wrong |= (picture.boxes[:, 2:] < 0).any(1)
    for row in np.flatnonzero(wrong)[:1]:
        raise ValueError(
            f"{where}: photo {picture.id} ({_name(picture)}) of {size} has the box {picture.boxes[row].tolist()} (x, "
            "y, width, height), which lies outside; correct it, or leave it out"
        )
    for row, shape in enumerate(picture.shapes or []):
        if isinstance(shape, dict):
            if list(shape["size"]) != [picture.height, picture.width]:
                raise ValueError(
                    f"{where}: photo {picture.id} ({_name(picture)}) of {size} has a mask of {shape['size'][1]} × "
                    f"{shape['size'][0]} pixels, of object {row}; give masks of the photo's size"
                )
            continue
        points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in shape]) if shape else np.zeros((0, 2))
        if (points < -ROUNDED).any() or (points > most).any():
            raise ValueError(
                f"{where}: photo {picture.id} ({_name(picture)}) of {size} has a polygon, of object {row}, that "
                f"reaches to {points.max(0).tolist()}; give polygons of the photo's size"
            )


def _name(picture: Picture) -> str:
    return Path(picture.source).name if isinstance(picture.source, str) else str(picture.source)

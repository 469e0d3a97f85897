"""Photos as lines of metadata.jsonl and rows of tables describe them, and the albums that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lambda_seq.tasks.detection.records import Album, Picture

CATEGORIES = ("category", "categories", "category_id", "label", "labels", "class")  # what an object's class is called


@dataclass
class Entry:
    """A photo and its objects, whose classes have names but no numbers yet.

    Attributes:
        picture: the photo, with everything of its objects but labels.
        names: class of each object.
    """

    picture: Picture
    names: list[str]


def entry_of(
    name: int | str, source: Any, size: tuple[int, int], objects: Any, where: str, labels: Sequence[str] | None = None
) -> Entry:
    """The photo of a line or row.

    Args:
        name: the photo's id.
        source: as of `Picture`.
        size: width and height in pixels.
        objects: lists by name, of "bbox" (x, y, width, height), "category" and perhaps "segmentation", "iscrowd" and
            "area"; or a list of objects that each have these.
        where: the line or row, for errors.
        labels: names of the categories, if these are numbers from 0.

    Raises:
        ValueError: an entry that is missing, a category without a name, or unlike many boxes and categories.
    """
    if isinstance(objects, list):
        keys = {key for one in objects for key in one} or {"bbox", CATEGORIES[0]}
        objects = {key: [one.get(key) for one in objects] for key in keys}
    named = next((key for key in CATEGORIES if key in objects), None) if isinstance(objects, Mapping) else None
    if named is None or "bbox" not in objects:
        raise ValueError(f"{where}: expected 'objects' with 'bbox' and a category, one of {', '.join(CATEGORIES)}")
    boxes: list[Any] = objects["bbox"] or []
    parts = {part: objects.get(part) for part in (named, "segmentation", "iscrowd", "area")}
    for part, values in parts.items():
        if len(values or []) != len(boxes) and (values is not None or part == named):
            raise ValueError(f"{where}: {len(boxes)} boxes but {len(values or [])} of {part!r}")
    if any(box is None or len(box) != 4 for box in boxes):
        raise ValueError(f"{where}: a 'bbox' is not x, y, width, height; correct it, or leave the object out")
    areas = parts["area"] or [None] * len(boxes)
    picture = Picture(
        name,
        source,
        size[1],
        size[0],
        np.array(boxes, float).reshape(-1, 4),
        crowd=np.array(parts["iscrowd"] or [0] * len(boxes), bool),
        areas=np.array([box[2] * box[3] if area is None else area for area, box in zip(areas, boxes, strict=True)]),
        shapes=_shapes(parts["segmentation"], len(boxes)),
    )
    return Entry(picture, [_class_name(value, labels, where) for value in parts[named] or []])


def _shapes(given: list[Any] | None, count: int) -> list[Any] | None:
    """Outlines, of which a single polygon may be written without a list around it; None unless all have some."""
    if count and not (given and all(given)):
        return None
    return [[one] if isinstance(one, list) and not isinstance(one[0], list) else one for one in given or []]


def _class_name(value: Any, labels: Sequence[str] | None, where: str) -> str:
    if value is None or (labels is not None and not 0 <= value < len(labels)):
        raise ValueError(f"{where}: an object has the category {value}, which has no name; correct it, or leave it out")
    return str(value) if labels is None else labels[value]


def albums_of(
    entries: Mapping[str, list[Entry]], where: Mapping[str, str], classes: list[str] | None = None
) -> dict[str, Album]:
    """The pictures of each split.

    Args:
        entries: of each split.
        where: each split's origin, for errors.
        classes: names, numbered from 0 in the data; default: those that occur in training, numbered from 1.

    Raises:
        ValueError: a category that is unknown to training.
    """
    first = 1 if classes is None else 0
    if classes is None:
        classes = sorted({name for entry in entries["train"] for name in entry.names}, key=_by_number)
    numbers = {name: place for place, name in enumerate(classes)}
    albums = {}
    for split, members in entries.items():
        for entry in members:
            unknown = [name for name in entry.names if name not in numbers]
            if unknown:
                raise ValueError(
                    f"{where[split]}: photo {entry.picture.id} has the category {unknown[0]!r}, which no training "
                    f"photo has; the classes are {', '.join(classes)}"
                )
            entry.picture.labels = np.array([numbers[name] for name in entry.names], np.int64)
        masked = all(entry.picture.shapes is not None for entry in members)
        pictures = [entry.picture for entry in members]
        albums[split] = Album(pictures, classes, list(range(first, first + len(classes))), masked)
    return albums


def _by_number(name: str) -> tuple[bool, int, str]:
    return not name.isdigit(), int(name) if name.isdigit() else 0, name

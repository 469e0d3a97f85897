"""Folders of photos with their boxes in metadata.jsonl, and folders of photos alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lambda_seq.tasks.detection.checking import size_of
from lambda_seq.tasks.detection.coco import SPLITS
from lambda_seq.tasks.detection.records import Album, Picture

METADATA = "metadata.jsonl"
CATEGORIES = ("category", "categories", "category_id", "label", "labels", "class")  # what an object's class is called
PHOTOS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm")


def find_metadata(root: Path) -> dict[str, Path]:
    """The metadata.jsonl of each split."""
    found = {}
    for split, words in SPLITS.items():
        files = (root / word / METADATA for word in words)
        file = next((file for file in files if file.is_file()), None)
        if file is not None:
            found[split] = file
    if not found and (root / METADATA).is_file():
        return {"train": root / METADATA}
    return found


def read_metadata(files: Mapping[str, Path]) -> dict[str, Album]:
    """The pictures of each split, whose classes are those that occur in training, by name.

    Raises:
        ValueError: a line that is no JSON, lacks an entry, or has unlike many boxes and categories; a category that is
            unknown to training.
        FileNotFoundError: a photo is missing.
    """
    rows = {split: _rows(file) for split, file in files.items()}
    classes = sorted({name for row in rows["train"] for name in row["names"]}, key=_by_number)
    numbers = {name: place for place, name in enumerate(classes)}
    albums = {}
    for split, file in files.items():
        pictures = []
        for row in rows[split]:
            unknown = [name for name in row["names"] if name not in numbers]
            if unknown:
                raise ValueError(
                    f"{file}: photo {row['id']} has the category {unknown[0]!r}, which no training photo has; the "
                    f"classes are {', '.join(classes)}"
                )
            pictures.append(_picture(row, numbers, file.parent))
        masked = all(row["shapes"] is not None for row in rows[split])
        albums[split] = Album(pictures, classes, list(range(1, len(classes) + 1)), masked)
    return albums


def _by_number(name: str) -> tuple[bool, int, str]:
    return not name.isdigit(), int(name) if name.isdigit() else 0, name


def _rows(file: Path) -> list[dict[str, Any]]:
    rows = []
    for line, text in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not text.strip():
            continue
        try:
            entry = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{file}, line {line} is no JSON: {error}") from error
        objects = entry.get("objects")
        if "file_name" not in entry or not isinstance(objects, dict) or "bbox" not in objects:
            raise ValueError(f"{file}, line {line}: expected 'file_name' and 'objects' with 'bbox' and 'category'")
        named = next((key for key in CATEGORIES if key in objects), None)
        if named is None:
            raise ValueError(
                f"{file}, line {line}: its objects have no category; expected one of {', '.join(CATEGORIES)}"
            )
        boxes, names = objects["bbox"], [str(name) for name in objects[named]]
        shapes, crowd = objects.get("segmentation", None if boxes else []), objects.get("iscrowd", [0] * len(boxes))
        for part, values in ((named, names), ("segmentation", shapes), ("iscrowd", crowd)):
            if values is not None and len(values) != len(boxes):
                raise ValueError(f"{file}, line {line}: {len(boxes)} boxes but {len(values)} of {part!r}")
        areas = objects.get("area") or [box[2] * box[3] for box in boxes]
        rows.append(
            {"id": entry["file_name"], "boxes": boxes, "names": names, "shapes": shapes, "crowd": crowd, "areas": areas}
        )
    if not rows:
        raise ValueError(f"{file} has no lines")
    return rows


def _picture(row: dict[str, Any], numbers: Mapping[str, int], folder: Path) -> Picture:
    source = str(folder / row["id"])
    width, height = size_of(source)
    return Picture(
        row["id"],
        source,
        height,
        width,
        np.array(row["boxes"], float).reshape(-1, 4),
        np.array([numbers[name] for name in row["names"]], np.int64),
        np.array(row["crowd"], bool),
        np.array(row["areas"], float),
        row["shapes"],
    )


def photos(path: Path, classes: list[str], categories: list[int]) -> Album:
    """The photos of a folder, or one, of which nothing is known.

    Raises:
        FileNotFoundError: there is no such folder, or none in it.
        ValueError: a file that is no photo though its name says so.
    """
    if not path.exists():
        raise FileNotFoundError(f"predict_path={str(path)!r}: there is no such folder or photo")
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.suffix.lower() in PHOTOS)
    if not files:
        raise FileNotFoundError(f"predict_path={str(path)!r}: no photos there; expected {', '.join(PHOTOS)}")
    pictures = []
    for file in files:
        width, height = size_of(str(file))
        name = file.name if path.is_file() else file.relative_to(path).as_posix()
        pictures.append(Picture(name, str(file), height, width))
    return Album(pictures, classes, categories, masked=False)

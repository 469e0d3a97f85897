"""COCO's JSON of instances, and the photos that it is about."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lambda_seq.tasks.data.reading.notes import note
from lambda_seq.tasks.detection.records import Album, Picture

SPLITS = {"train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test", "testing")}
OTHERS = ("caption", "keypoint", "panoptic", "stuff", "image_info", "semantic", "results", "detections")
DEPTH = 3  # folders below the data's in which files are looked for


def find_annotations(root: Path, named: str | None, masks: bool | None) -> dict[str, Path]:
    """The file of each split.

    Args:
        root: folder of the data, or one file of instances, which is the training split.
        named: a path below the folder with {split} in it, such as "labels/{split}.json"; None to look for them.
        masks: whether outlines are wanted; where a split has several files, those have them.

    Raises:
        FileNotFoundError: a named file is missing.
    """
    if root.is_file():
        return {"train": root}
    if named is not None:
        found = {split: _named(root, named, split) for split in SPLITS}
        if found["train"] is None:
            raise FileNotFoundError(
                f"annotations={named!r}: there is no {root / named.format(split='train')}; name the files with "
                "{split} in the place of train, val and test"
            )
        return {split: file for split, file in found.items() if file is not None}
    return {split: _chosen(files, masks) for split, files in instances_of(root).items()}


def instances_of(root: Path) -> dict[str, list[Path]]:
    """All files of instances of each split below a folder, of those splits that have any."""
    files = [file for depth in range(DEPTH) for file in sorted(root.glob("/".join(["*"] * depth + ["*.json"])))]
    found = {
        split: [file for file in files if _is_of(file.relative_to(root), words) and is_instances(file)]
        for split, words in SPLITS.items()
    }
    return {split: files for split, files in found.items() if files}


def _named(root: Path, named: str, split: str) -> Path | None:
    files = (root / named.format(split=word) for word in SPLITS[split])
    return next((file for file in files if file.is_file()), None)


def _is_of(file: Path, words: tuple[str, ...]) -> bool:
    """Whether a file of instances is named after a split, or in a folder that is."""
    name = file.as_posix().lower()
    if any(word in name for word in OTHERS):
        return False
    parts = [part for piece in name.removesuffix(".json").split("/") for part in piece.replace("-", "_").split("_")]
    return any(part.rstrip("0123456789.") in words for part in parts)


def _chosen(files: list[Path], masks: bool | None) -> Path:
    """The file of instances; of several one with outlines, if wanted, and else that of the shortest name."""
    if len(files) > 1:
        outlined = {file for file in files if masks is not False and has_outlines(read_json(file))}
        files = sorted(files, key=lambda file: (file not in outlined, len(file.name), file.name))
        others = ", ".join(file.name for file in files[1:])
        note(f"{files[0]} is taken, not {others}; name others with --data.annotations, such as 'folder/{{split}}.json'")
    return files[0]


def is_instances(file: Path) -> bool:
    """Whether a file is COCO's JSON of instances.

    Raises:
        ValueError: it is no JSON, though it begins as such.
    """
    if file.suffix.lower() != ".json":
        return False
    with file.open(encoding="utf-8") as stream:
        if stream.read(1) != "{":
            return False
    content = read_json(file)
    return {"images", "annotations", "categories"} <= content.keys()


def has_outlines(content: dict[str, Any]) -> bool:
    """Whether all objects of a JSON have outlines."""
    return all(one.get("segmentation") for one in content["annotations"])


@lru_cache
def read_json(file: Path) -> dict[str, Any]:
    """An object of a JSON file, which may take a minute; kept until `read_json.cache_clear()`.

    Raises:
        ValueError: it is damaged, or holds something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected an object with images, annotations and categories")
    return content


def read_coco(file: Path, root: Path, images: str | None, split: str) -> Album:
    """The pictures of a file of instances.

    Args:
        file: JSON with images, annotations and categories.
        root: folder of the data.
        images: folder of the photos below `root`, perhaps with {split} in it; None to look for them.
        split: of the file.

    Raises:
        ValueError: an entry that is missing, or an annotation of a picture or category that is not listed.
    """
    content = read_json(file)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise ValueError(f"{file}: expected a list {key!r}; COCO's instances have images, annotations, categories")
    categories = sorted(content["categories"], key=lambda one: one["id"])
    numbers = {one["id"]: place for place, one in enumerate(categories)}
    entries = {one["id"]: one for one in content["images"]}
    objects: dict[Any, list[dict[str, Any]]] = {key: [] for key in entries}
    for one in content["annotations"]:
        if one.get("image_id") not in entries:
            raise ValueError(
                f"{file}: annotation {one.get('id')} is of image_id={one.get('image_id')}, which is not listed"
            )
        if one.get("category_id") not in numbers:
            raise ValueError(
                f"{file}: annotation {one.get('id')} of photo {entries[one['image_id']]['file_name']} has "
                f"category_id={one.get('category_id')}, which is not among the {len(numbers)} categories; add it"
            )
        objects[one["image_id"]].append(one)
    folder = _folder(file, root, images, split, [one["file_name"] for one in content["images"]])
    masked = has_outlines(content)
    pictures = [_picture(entry, objects[key], numbers, folder, masked) for key, entry in entries.items()]
    return Album(pictures, [one["name"] for one in categories], list(numbers), masked)


def _picture(
    entry: dict[str, Any], objects: list[dict[str, Any]], numbers: dict[int, int], folder: Path, masked: bool
) -> Picture:
    boxes = np.array([one["bbox"] for one in objects], float).reshape(-1, 4)
    areas = [one.get("area", box[2] * box[3]) for one, box in zip(objects, boxes, strict=True)]
    return Picture(
        entry["id"],
        str(folder / entry["file_name"]),
        int(entry["height"]),
        int(entry["width"]),
        boxes,
        np.array([numbers[one["category_id"]] for one in objects], np.int64),
        np.array([bool(one.get("iscrowd", 0)) for one in objects], bool),
        np.array(areas, float),
        [one["segmentation"] for one in objects] if masked else None,
    )


def _folder(file: Path, root: Path, images: str | None, split: str, names: list[str]) -> Path:
    """The folder of the photos: the one that has the first of them; without any the likeliest."""
    if images is not None:
        below = [root / images.format(split=word) for word in SPLITS[split]]
        return next((folder for folder in below if folder.is_dir()), below[0])
    candidates = list(_candidates(file, root))
    likely = [folder for folder in candidates if any(word in folder.name.lower() for word in SPLITS[split])]
    for name in names[:1] + names[-1:]:
        for folder in [*likely, *candidates]:
            if (folder / name).is_file():
                return folder
    return (likely or candidates)[0]


def _candidates(file: Path, root: Path) -> Iterator[Path]:
    root = root if root.is_dir() else file.parent
    yield file.parent
    yield root
    for depth in range(1, DEPTH):
        yield from sorted(folder for folder in root.glob("/".join(["*"] * depth)) if folder.is_dir())

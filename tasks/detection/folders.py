"""Folders of photos with their boxes in metadata.jsonl, and folders of photos alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from lambda_seq.tasks.detection.checking import size_of
from lambda_seq.tasks.detection.coco import SPLITS, instances_of, is_instances, read_json
from lambda_seq.tasks.detection.entries import Entry, albums_of, entry_of
from lambda_seq.tasks.detection.records import Album, Picture

METADATA = "metadata.jsonl"
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
    entries = {split: _entries(file) for split, file in files.items()}
    return albums_of(entries, {split: str(file) for split, file in files.items()})


def _entries(file: Path) -> list[Entry]:
    entries = []
    for line, text in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not text.strip():
            continue
        where = f"{file}, line {line}"
        try:
            said = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{where} is no JSON: {error}") from error
        if not isinstance(said, dict) or "file_name" not in said:
            raise ValueError(f"{where}: expected 'file_name' and 'objects' with 'bbox' and 'category'")
        source = str(file.parent / said["file_name"])
        entries.append(entry_of(said["file_name"], source, size_of(source), said.get("objects"), where))
    if not entries:
        raise ValueError(f"{file} has no lines")
    return entries


def about_objects(place: Path) -> str:
    """What of a file or folder says where objects are in photos, in words; "" if nothing does."""
    files: list[Path] = []
    with suppress(ValueError, OSError):  # of files that are something else
        files = instances_of(place).get("train", []) if place.is_dir() else [place] if is_instances(place) else []
    read_json.cache_clear()
    if files:
        return f"{files[0].name} has boxes of objects, as COCO's has"
    for file in find_metadata(place).values() if place.is_dir() else ():
        with file.open(encoding="utf-8") as lines:
            line = next((line for line in lines if line.strip()), "")
        if "bbox" in line and "objects" in line:
            return f"{file.parent.name}/{file.name} has boxes of objects"
    return ""


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

"""Where rows come from: a hub name, a local folder or file, or the digits that come with scikit-learn."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets.exceptions import DatasetGenerationError

DIGITS = "sklearn:digits"
BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv"}
SPLIT_NAMES = {"validation": ("validation", "valid", "val", "dev"), "train": ("train",), "test": ("test",)}


def load_rows(path: str, subset: str | None = None, streaming: bool = False) -> dict[str, Any]:
    """The splits found at `path`, under the names train, validation and test where they exist.

    Args:
        path: a local file (parquet, jsonl, json, csv, tsv), a local folder (of such files, of one image folder per
            class, or written by `datasets.Dataset.save_to_disk`), a name on the Hugging Face hub, or
            "sklearn:digits", 1,797 handwritten digits of 8 × 8 pixels.
        subset: the configuration of a hub data set that has several.
        streaming: read rows as they are asked for, in order, without downloading the data set.

    Returns:
        A `datasets.Dataset` for each split, mapped into memory; or a `datasets.IterableDataset`, when streaming.

    Raises:
        FileNotFoundError: nothing at `path`, or no data in it.
        ConnectionError: `path` can only be a hub name and the hub cannot be reached.
        ValueError: a file of unknown kind, or one that cannot be read.
    """
    if path == DIGITS:
        return _digits()
    local = Path(path).expanduser()
    if local.is_file():
        found = _load_file(local, streaming)
    elif local.is_dir():
        found = _load_folder(local, subset, streaming)
    elif re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", path) and local.suffix not in BUILDERS:
        found = _load_hub(path, subset, streaming)
    else:
        raise FileNotFoundError(f"path={path!r}: no such file or folder (looked for {local.absolute()})")
    splits: dict[str, Any] = {}
    for name, aliases in SPLIT_NAMES.items():
        for alias in aliases:
            if alias in found:
                splits.setdefault(name, found[alias])
    if not splits:
        raise ValueError(f"path={path!r} has the splits {', '.join(found)}: expected train, validation or test")
    for name, rows in splits.items():
        if not streaming and len(rows) == 0:
            raise ValueError(f"path={path!r}: the {name} split is empty; remove it or put rows in it")
    return splits


def _load_file(file: Path, streaming: bool) -> dict[str, Any]:
    builder = BUILDERS.get(file.suffix.lower())
    if builder is None:
        raise ValueError(f"path={str(file)!r}: unknown kind of file {file.suffix!r}; expected {', '.join(BUILDERS)}")
    if file.stat().st_size == 0:
        raise ValueError(f"path={str(file)!r}: the file is empty, so the train split has no rows")
    options: dict[str, Any] = {"streaming": streaming} | ({"sep": "\t"} if file.suffix.lower() == ".tsv" else {})
    return read_tables(str(file), builder, data_files={"train": str(file)}, **options)


def _load_folder(folder: Path, subset: str | None, streaming: bool) -> dict[str, Any]:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        saved = datasets.load_from_disk(str(folder))
        saved = saved if isinstance(saved, datasets.DatasetDict) else datasets.DatasetDict(train=saved)
        return {name: table.to_iterable_dataset() for name, table in saved.items()} if streaming else saved
    try:
        return read_tables(str(folder), str(folder.absolute()), subset, streaming=streaming)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"path={str(folder)!r}: no data found in this folder ({error}); expected one folder of images per class, "
            "or parquet, jsonl or csv files"
        ) from error


def _load_hub(name: str, subset: str | None, streaming: bool) -> dict[str, Any]:
    try:
        return read_tables(name, name, subset, streaming=streaming)
    except (ConnectionError, FileNotFoundError) as error:
        hint = "check the spelling, or give an existing file or folder"
        if isinstance(error, ConnectionError):
            hint = "connect to the network, or give an existing file or folder"
        raise type(error)(
            f"path={name!r}: there is no such local file or folder (looked for {Path(name).absolute()}), and as a name "
            f"on the Hugging Face hub it cannot be loaded ({error}); {hint}"
        ) from error


def read_tables(path: str, *arguments: Any, **options: Any) -> dict[str, Any]:
    """`datasets.load_dataset`, whose errors say where the data are that it could not read."""
    try:
        return datasets.load_dataset(*arguments, **options)
    except (DatasetGenerationError, ValueError) as error:
        cause = error.__cause__ or error
        if "corresponds to no data" in str(error):
            raise ValueError(f"path={path!r}: a split has no rows ({error}); put rows in it or remove it") from error
        hint = ". Choose one: --data.subset NAME" if "Config name is missing" in str(error) else ""
        raise ValueError(f"path={path!r}: the data cannot be read: {type(cause).__name__}: {cause}{hint}") from error


def to_predict(tables: dict[str, datasets.Dataset], path: str) -> datasets.Dataset:
    """The table of data to predict: the only one, or the test split.

    Raises:
        ValueError: there are several splits and none is called test.
    """
    if len(tables) > 1 and "test" not in tables:
        raise ValueError(f"predict_path={path!r} has the splits {', '.join(tables)}: give one of them")
    return tables["test"] if "test" in tables else next(iter(tables.values()))


def _digits() -> dict[str, datasets.Dataset]:
    """Handwritten digits in fixed, stratified splits: 60 % train, 20 % validation, 20 % test."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = (images.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)  # (1797, 8, 8), 0..16 -> 0..255
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=[str(digit) for digit in range(10)])
    )
    fifth = np.empty(len(labels), dtype=int)  # of its class, for each row
    order = np.argsort(labels, kind="stable")
    fifth[order] = np.arange(len(labels)) % 5
    members = {"train": fifth < 3, "validation": fifth == 3, "test": fifth == 4}
    return {
        name: datasets.Dataset.from_dict(
            {"image": list(pixels[chosen]), "label": labels[chosen]}, features=features, split=name
        )
        for name, chosen in members.items()
    }

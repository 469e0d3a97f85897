"""Where rows come from: a hub name, a local folder or file, or the digits that come with scikit-learn."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import packaged_modules
from datasets.exceptions import DatasetGenerationError
from huggingface_hub import metadata_load
from yaml import YAMLError

from lambda_seq.tasks.data.reading.dialects import GUESSED, TableOptions
from lambda_seq.tasks.data.reading.files import kind_of
from lambda_seq.tasks.data.reading.layout import (
    NO_ROWS,
    SPLIT_NAMES,
    named_split,
    note_missing_parts,
    tables_by_split,
    visible_files,
)
from lambda_seq.tasks.data.reading.notes import note, some
from lambda_seq.tasks.data.reading.pictures import is_picture, load_pictures
from lambda_seq.tasks.data.reading.shards import is_shard, load_shards
from lambda_seq.tasks.data.reading.tables import KINDS, is_table, read_tables, stream_tables

DIGITS = "sklearn:digits"
UNREAD = (".xlsx", ".xls", ".ods", ".feather", ".orc", ".avro", ".pkl", ".zip", ".tar", ".tgz", ".7z")  # may be rows
SAME_KIND = {".ndjson": ".jsonl", ".json": ".jsonl", ".tsv": ".csv"}
BUILDERS = {module.name for module in pkgutil.iter_modules(packaged_modules.__path__)}  # of `datasets`, for files


def load_rows(
    path: str,
    subset: str | None = None,
    streaming: bool = False,
    whole: bool = False,
    options: TableOptions = GUESSED,
) -> dict[str, Any]:
    """The splits found at `path`, under the names train, validation and test where they exist.

    Local files are only ever read: no script and no pickle in a folder is run. Which files are which split is decided
    by `tasks.data.reading.layout`, and tables are read by `tasks.data.reading.tables`.

    Args:
        path: a local file (parquet, jsonl, json, csv, tsv, also as .gz, .bz2, .xz or .zst; a picture; a .tar of
            WebDataset), a local folder (of such files, of one folder of pictures per class, or written by
            `datasets.Dataset.save_to_disk`), a name on the Hugging Face hub, or "sklearn:digits", 1,797 handwritten
            digits of 8 × 8 pixels.
        subset: the configuration of a data set that has several.
        streaming: read rows as they are asked for, in order, without downloading the data set.
        whole: take all local files as one split, "train", whatever their names: for prediction.
        options: how local tables are written, where that is not to be guessed.

    Returns:
        A `datasets.Dataset` for each split, mapped into memory; or a `datasets.IterableDataset`, when streaming.

    Raises:
        FileNotFoundError: nothing at `path`, or no data in it.
        ConnectionError: `path` can only be a hub name and the hub cannot be reached.
        ValueError: a file of unknown kind, or one that cannot be read; files of which it is not clear what they are.
    """
    if path == DIGITS:
        return _digits()
    local = Path(path).expanduser()
    if local.is_file():
        found = _load_file(local, streaming, options)
    elif is_saved(path):
        saved = _load_saved(local)
        found = dict(saved) if isinstance(saved, datasets.DatasetDict) else {"train": saved}
        found = _streamed(found, streaming)
    elif local.is_dir():
        found = _load_folder(local, subset, streaming, whole, options)
    elif path in BUILDERS:
        raise FileNotFoundError(
            f"path={path!r}: no such file or folder (looked for {local.absolute()}), and on the hub no data set, but a "
            "kind of file that `datasets` reads; give the file or the folder itself"
        )
    elif re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", path) and not is_table(local):
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
    if unused := [name for name in found if not any(found[name] is rows for rows in splits.values())]:
        note(f"path={path!r}: the splits {some(unused)} are left out; used are {', '.join(splits)}")
    for name, rows in splits.items():
        if not streaming and len(rows) == 0:
            what = "it" if whole else f"the {name} split"
            raise ValueError(f"path={path!r}: {what} has no rows; remove it or put rows in it")
    return splits


def is_saved(path: str | Path) -> bool:
    """Whether a folder was written by `save_to_disk` of `datasets`."""
    folder = Path(path).expanduser()
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _load_saved(folder: Path) -> Any:
    try:
        return datasets.load_from_disk(str(folder))
    except (OSError, ValueError, LookupError, TypeError) as error:  # a file of it is missing, empty or damaged
        raise ValueError(
            f"path={str(folder)!r}: what `save_to_disk` has written there cannot be read: {type(error).__name__}: "
            f"{error}; save rows again"
        ) from error


def to_predict(tables: dict[str, datasets.Dataset], path: str) -> datasets.Dataset:
    """The rows to predict: all that local files hold, whatever split their names say; of a data set its test split.

    Raises:
        ValueError: a data set with several splits, none of which is called test.
    """
    if len(tables) == 1:
        return next(iter(tables.values()))
    if not _is_files(path):
        if "test" not in tables:
            raise ValueError(f"predict_path={path!r} has the splits {', '.join(tables)}: give one of them")
        return tables["test"]
    first, *others = tables.values()
    shared = [
        name for name, feature in first.features.items() if all(other.features.get(name) == feature for other in others)
    ]
    return datasets.concatenate_datasets([table.select_columns(shared) for table in tables.values()])


@contextmanager
def named_predict_path() -> Iterator[None]:
    """Errors of data that are read at `predict_path` name this option."""
    try:
        yield
    except (ValueError, OSError) as error:
        if type(error) not in (ValueError, FileNotFoundError, ConnectionError):
            raise
        raise type(error)(re.sub(r"(?<![\w.])path=", "predict_path=", str(error))) from error


def _is_files(path: str) -> bool:
    return Path(path).expanduser().exists() and not is_saved(path)


def _load_file(file: Path, streaming: bool, options: TableOptions) -> dict[str, Any]:
    if is_picture(file):
        return load_pictures(file, [file])
    if is_shard(file):
        return _streamed(load_shards(str(file), {"train": [file]}), streaming)
    if not is_table(file) and kind_of(file)[0] not in KINDS:
        hint = "unpack it; " if file.suffix.lower() in (".zip", ".tgz", ".7z") else ""
        raise ValueError(
            f"path={str(file)!r}: unknown kind of file {file.suffix!r}; {hint}expected one of {', '.join(KINDS)}, also "
            "packed as .gz, .bz2, .xz or .zst, or shards of WebDataset (.tar)"
        )
    return _read({"train": [file]}, file, streaming, options)


def _read(files: dict[str, list[Path]], where: Path, streaming: bool, options: TableOptions) -> dict[str, Any]:
    read = stream_tables if streaming else read_tables
    if where.is_dir():
        note_missing_parts(where, [file for members in files.values() for file in members])
    return {split: read(str(where), members, options) for split, members in files.items()}


def _load_folder(
    folder: Path, subset: str | None, streaming: bool, whole: bool, options: TableOptions
) -> dict[str, Any]:
    place, files = _described(folder, subset)
    if files is not None:
        if whole:
            files = {"train": sorted({file for members in files.values() for file in members})}
        return _read(files, folder, streaming, options)
    tables = visible_files(place, lambda file: is_table(file) and file.name not in NO_ROWS)
    pictures = visible_files(place, is_picture)
    if pictures and (found := load_pictures(place, pictures, tables, whole, options)):
        return _streamed(found, streaming)
    if not tables and (shards := visible_files(place, is_shard)):
        by_split = tables_by_split(place, shards, whole)
        note_missing_parts(place, shards)
        return _streamed(load_shards(str(place), by_split), streaming)
    if tables and (left := visible_files(place, lambda file: file.suffix.lower() in UNREAD)):
        note(f"path={str(place)!r}: {len(left)} files of other kinds are left out, such as {left[0]}")
    if not tables:
        others = [file.name for file in visible_files(place, lambda file: True)]
        raise FileNotFoundError(
            f"path={str(place)!r}: no data found in this folder ({some(others, 3) or 'it is empty'}); expected one "
            "folder of files per class, or parquet, jsonl or csv files, unpacked"
        )
    by_split = tables_by_split(place, tables if whole else _of_one_kind(place, tables), whole)
    return _read(by_split, place, streaming, options)


def _streamed(found: dict[str, Any], streaming: bool) -> dict[str, Any]:
    return {name: table.to_iterable_dataset() for name, table in found.items()} if streaming else found


def _of_one_kind(folder: Path, tables: list[Path]) -> list[Path]:
    """Tables of a folder without those of other kinds that lie beside; it must be clear which these are."""
    same: dict[str, list[Path]] = {}
    for file in tables:
        same.setdefault(str(file).removesuffix(kind_of(file)[1]), []).append(file)
    if twice := next((files for files in same.values() if len(files) > 1), None):
        names = some([file.name for file in twice])
        raise ValueError(f"path={str(folder)!r} holds {names}, the same rows: leave one of them")
    kinds = {file: SAME_KIND.get(kind_of(file)[0], kind_of(file)[0]) for file in tables}
    if len(set(kinds.values())) == 1:
        return tables
    named = {file: split for file in tables if (split := named_split(folder, file))}
    of_splits: dict[str, set[str]] = {}
    for file, split in named.items():
        of_splits.setdefault(split, set()).add(kinds[file])
    names = some([str(file.relative_to(folder)) for file in tables])
    if not named or any(len(found) > 1 for found in of_splits.values()):
        raise ValueError(
            f"path={str(folder)!r} holds tables of several kinds, {names}: leave one kind, or give one table"
        )
    wanted = set().union(*of_splits.values())
    left = [str(file.relative_to(folder)) for file in tables if kinds[file] not in wanted]
    if left:
        note(f"path={str(folder)!r}: {some(left)}: left out, as the files named for splits are of another kind")
    return [file for file in tables if kinds[file] in wanted]


def _described(folder: Path, subset: str | None) -> tuple[Path, dict[str, list[Path]] | None]:
    """The folder of a subset, and the files by split where a README.md from the hub names them."""
    readme = folder / "README.md"
    try:
        described = (metadata_load(readme) or {}) if readme.is_file() else {}
    except (YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{readme}: its head is no readable YAML ({reason}); correct it or remove it") from error
    configs = [config for config in described.get("configs") or [] if "config_name" in config]
    if not configs:
        if subset is None:
            return folder, None
        if not (folder / subset).is_dir():
            raise ValueError(f"subset={subset!r}: there is no such folder in path={str(folder)!r}; leave it out")
        return folder / subset, None
    names = [str(config["config_name"]) for config in configs]
    defaults = [config for config in configs if config.get("default") or config["config_name"] == "default"]
    chosen = [config for config in configs if config["config_name"] == subset] if subset else defaults or configs
    if len(chosen) != 1:
        raise ValueError(
            f"path={str(folder)!r}: its README.md has the configurations {some(names)}, and "
            f"subset={subset!r} is none of them. Choose one: --data.subset NAME"
        )
    place = folder / str(chosen[0].get("data_dir") or "")
    given = chosen[0].get("data_files")
    if given is None:
        return place, None
    by_split = given if isinstance(given, list) and all(isinstance(one, dict) for one in given) else [{"path": given}]
    files: dict[str, list[Path]] = {}
    for one in by_split:
        path = one.get("path")
        patterns = path if isinstance(path, list) else [str(path)]
        if outside := [pattern for pattern in patterns if Path(pattern).is_absolute()]:
            raise ValueError(f"{readme}: data_files {some(outside)} lie elsewhere; name files in {place}")
        members = sorted({file for pattern in patterns for file in place.glob(pattern) if file.is_file()})
        if not members or not all(map(is_table, members)):
            raise ValueError(
                f"path={str(folder)!r}: its README.md says that {some(patterns)} are the rows, but "
                f"{'there are none' if not members else 'these are no tables'}; give a file or another folder"
            )
        files[str(one.get("split", "train"))] = members
    return place, files


def _load_hub(name: str, subset: str | None, streaming: bool) -> dict[str, Any]:
    try:
        return datasets.load_dataset(name, subset, streaming=streaming, **_as_written(name, subset))
    except (ConnectionError, FileNotFoundError) as error:
        hint = "check the spelling, or give an existing file or folder"
        if isinstance(error, ConnectionError):
            hint = "connect to the network, or give an existing file or folder"
        raise type(error)(
            f"path={name!r}: there is no such local file or folder (looked for {Path(name).absolute()}), and as a name "
            f"on the Hugging Face hub it cannot be loaded ({error}); {hint}"
        ) from error
    except (DatasetGenerationError, ValueError) as error:
        cause = error.__cause__ or error
        hint = ". Choose one: --data.subset NAME" if "Config name is missing" in str(error) else ""
        raise ValueError(f"path={name!r}: the data cannot be read: {type(cause).__name__}: {cause}{hint}") from error


def _as_written(name: str, subset: str | None) -> dict[str, Any]:
    """Options that let `datasets` read csv files as text, as `tasks.data.reading.tables` does; none of other data."""
    builder = datasets.load_dataset_builder(name, subset)
    if builder.name != "csv" or builder.info.features is not None:
        return {}
    streams = datasets.load_dataset(name, subset, streaming=True, na_filter=False)
    columns = {column: datasets.Value("string") for rows in streams.values() for column in next(iter(rows), {})}
    return {"na_filter": False, "features": datasets.Features(columns)}


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

"""Where audio comes from: folders of clips, tables that name or hold them, or the generated tones."""

from __future__ import annotations

import logging
from pathlib import Path

import datasets

from tasks.data.sources import BUILDERS, SPLIT_NAMES, load_rows, read_tables
from tasks.data.tones import TONES, tones
from tasks.data.waveforms import SUFFIXES

log = logging.getLogger(__name__)


def load_audio(path: str, subset: str | None = None) -> tuple[dict[str, datasets.Dataset], Path | None]:
    """The splits found at `path`, and the folder that paths in their cells are relative to.

    Args:
        path: a folder of clips, or of tables (parquet, jsonl, csv) beside clips; a single clip or table; a name on the
            Hugging Face hub; or "generated:tones". In a folder of clips, train/, validation/ and test/ are splits and
            the folders in them classes; without such all clips are for training. Classes may hold folders of their own.
        subset: the configuration of a hub data set that has several.

    Raises:
        FileNotFoundError, ConnectionError: as `load_rows`.
        ValueError: clips beside class folders, or as `load_rows`.
    """
    if path == TONES:
        return tones(), None
    local = Path(path).expanduser()
    if local.is_file():
        if local.suffix.lower() in SUFFIXES:
            return {"train": datasets.Dataset.from_dict({"audio": [str(local)]})}, None
        return load_rows(path, subset), local.parent
    if local.is_dir():
        tables = sorted(file for file in local.iterdir() if file.suffix.lower() in BUILDERS)
        clips = [] if (local / "dataset_dict.json").is_file() else _clips_below(local)
        if clips:
            return (_load_tables(local, tables) if tables else _load_clips(local, clips)), local
        return load_rows(path, subset), local
    return load_rows(path, subset), None


def _clips_below(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def _load_clips(folder: Path, clips: list[Path]) -> dict[str, datasets.Dataset]:
    """Clips by split and class: SPLIT/CLASS/…/clip or CLASS/…/clip below the folder; else unlabelled."""
    splits = {alias: split for split, aliases in SPLIT_NAMES.items() for alias in aliases}
    found: dict[str, list[tuple[Path, tuple[str, ...]]]] = {}  # of each split: clips, and the folders between
    for clip in clips:
        first, *rest = clip.relative_to(folder).parts
        split = splits.get(first.lower()) if rest else None
        found.setdefault(split or "", []).append((clip, tuple(rest[:-1]) if split else (first, *rest)[:-1]))
    loose = found.pop("", [])
    if found and loose:
        log.warning("%s clips outside train, validation and test are left out, such as %s", len(loose), loose[0][0])
    elif loose:
        found = {"train": loose}
    tables = {}
    for split, members in found.items():
        columns = {"audio": [str(clip) for clip, _ in members]}
        unlabelled = [clip for clip, folders in members if not folders]
        if unlabelled and len(unlabelled) < len(members):
            raise ValueError(
                f"path={str(folder)!r}: {unlabelled[0]} lies beside folders of classes, so its class is not known; put "
                "it into one of them, or remove it"
            )
        if not unlabelled:
            columns["label"] = [folders[0] for _, folders in members]
        tables[split] = datasets.Dataset.from_dict(columns)
    return tables


def _load_tables(folder: Path, tables: list[Path]) -> dict[str, datasets.Dataset]:
    """Tables that name clips: train*, validation* and test* are splits, any other one is for training."""
    files: dict[str, list[str]] = {}
    for table in tables:
        stem = table.stem.lower()
        split = next((name for name, aliases in SPLIT_NAMES.items() if stem.startswith(aliases)), "train")
        files.setdefault(split, []).append(str(table))
    kinds = {BUILDERS[table.suffix.lower()] for table in tables}
    if len(kinds) > 1:
        raise ValueError(
            f"path={str(folder)!r} holds tables of several kinds, {', '.join(table.name for table in tables)}: leave "
            "one kind, or give one table"
        )
    return dict(read_tables(str(folder), kinds.pop(), data_files=files))

"""Where audio comes from: folders of clips, tables that name or hold them, or the generated tones."""

from __future__ import annotations

from pathlib import Path

import datasets

from lambda_seq.inference.clips import SUFFIXES
from lambda_seq.tasks.data.audio.tones import TONES, tones
from lambda_seq.tasks.data.reading.dialects import GUESSED, TableOptions
from lambda_seq.tasks.data.reading.layout import NO_ROWS, note_others, samples_by_split, visible_files
from lambda_seq.tasks.data.reading.pictures import load_described, metadata_of
from lambda_seq.tasks.data.reading.sources import is_saved, load_rows
from lambda_seq.tasks.data.reading.tables import first_row, is_table


def load_audio(
    path: str, subset: str | None = None, whole: bool = False, options: TableOptions = GUESSED
) -> dict[str, datasets.Dataset]:
    """The splits found at `path`; paths in their cells are relative to it, or to the folder of a table.

    Args:
        path: a folder of clips, or of tables (parquet, jsonl, csv) beside clips; a single clip or table; a name on the
            Hugging Face hub; or "generated:tones". In a folder of clips, train/, validation/ and test/ are splits and
            the folders in them classes; without such all clips are for training. Classes may hold folders of their own.
            Tables called metadata give the rows by a column "file_name" of paths from their own place on. Other tables
            beside clips do if their first row names or holds a clip, or if the clips are in fewer than two classes;
            otherwise they are left out.
        subset: the configuration of a hub data set that has several.
        whole: take all files as one split, "train", whatever their names: for prediction.
        options: how tables are written, where that is not to be guessed.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: as `load_rows`.
    """
    if path == TONES:
        return tones()
    local = Path(path).expanduser().absolute()
    if local.is_file():
        if _is_clip(local):
            return {"train": datasets.Dataset.from_dict({"audio": [str(local)]})}
        return load_rows(path, subset, options=options)
    if local.is_dir() and not is_saved(path) and (clips := visible_files(local, _is_clip)):
        tables = visible_files(local, lambda file: is_table(file) and file.name not in NO_ROWS)
        if (described := metadata_of(tables)) and not whole:
            return load_described(local, clips, described, "audio", datasets.Value("string"), "clips", options)
        found = _load_clips(local, clips, whole)
        if not tables or not (_name_clips(tables, options) or _lack_classes(found, whole)):
            note_others(local, clips, "clips", whole)
            return found
    return load_rows(path, subset, whole=whole, options=options)


def _is_clip(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES


def _name_clips(tables: list[Path], options: TableOptions) -> bool:
    """Whether the first row of a table names a clip, or holds one."""
    cells = [cell for table in tables for cell in first_row(table, options).values()]
    return any(isinstance(cell, bytes | dict) or (isinstance(cell, str) and _is_clip(Path(cell))) for cell in cells)


def _lack_classes(found: dict[str, datasets.Dataset], whole: bool) -> bool:
    """Whether the folders of clips are fewer than two classes, where classes are wanted."""
    labels = {label for table in found.values() for label in table.to_dict().get("label", ())}
    return not whole and len(labels - {None}) < 2


def _load_clips(folder: Path, clips: list[Path], whole: bool) -> dict[str, datasets.Dataset]:
    """Clips by split; their class is the folder below that of the split, or none."""
    tables = {}
    for split, samples in samples_by_split(folder, clips, whole).items():
        columns: dict[str, list] = {"audio": [str(sample.file) for sample in samples]}
        if any(sample.folders for sample in samples):
            columns["label"] = [sample.folders[0] if sample.folders else None for sample in samples]
        tables[split] = datasets.Dataset.from_dict(columns)
    return tables

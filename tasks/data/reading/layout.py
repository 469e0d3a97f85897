"""Which local files belong to which split, and to which class: the one place that goes by names of files and folders.

A split is recognised where a person means one, and never within the name of something else:

- A folder called train, validation (valid, val, dev) or test (eval). Beside other folders that hold files as it does,
  it is a class like them, unless there are both train and another one.
- A table (csv, jsonl, parquet) called so, with or without the number of a shard, as train-00000-of-00002.parquet; or
  whose name begins so, if other tables are for training; or whose names all differ in such words, as news_train.csv and
  news_test.csv.
- Pictures, clips and texts are rows, whose names say nothing; but train.txt beside test.txt are splits.

Whatever had to be guessed is said.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lambda_seq.tasks.data.reading.files import FASTA, PACKED, SERIES, SHARDS
from lambda_seq.tasks.data.reading.notes import note, some
from lambda_seq.tasks.data.reading.tables import KINDS, is_table

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
ALIASES = {alias: split for split, aliases in SPLIT_NAMES.items() for alias in aliases}
SHARD = re.compile(r"([a-z]+)([-._ ]?\d+([-._ ]of[-._ ]\d+)?([-._ ][0-9a-f]{8,})?)?")  # train, train-3, train-0-of-2
PART = re.compile(r"(.*?)[-._ ](\d+)[-._ ]of[-._ ](\d+)")
ENDINGS = {*KINDS, *PACKED, *FASTA, *SERIES, *SHARDS, ".txt"}
JUNK = ("__MACOSX", "__pycache__", "Thumbs.db", "desktop.ini")  # what programs leave behind
NO_ROWS = ("config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json")  # what is beside rows
ABOUT = ("readme", "license", "licence")  # stems of files about the data, which nobody misses


class Sample(NamedTuple):
    """A file that is one row."""

    file: Path
    folders: tuple[str, ...]  # from the folder of its split, or of all data, to the file


def visible_files(folder: Path, chosen: Callable[[Path], bool]) -> list[Path]:
    """Files of a folder and those in it, also by links, in the order of their paths; hidden ones are left out.

    Raises:
        ValueError: a file's name is no text in UTF-8, as no table could hold it.
    """
    files = sorted(file for file in _walk(folder, set()) if chosen(file))
    for file in files:
        if (raw := os.fsencode(file)).decode(errors="replace") != str(file):
            raise ValueError(f"path={str(folder)!r}: the name of the file {raw!r} is not UTF-8; rename it")
    if lost := [file for file in files if file.is_symlink() and not file.exists()]:
        note(f"path={str(folder)!r}: {len(lost)} links lead nowhere and are left out, such as {lost[0]}")
    return [file for file in files if file not in set(lost)] if lost else files


def note_others(folder: Path, taken: Collection[Path], kind: str, whole: bool = False) -> None:
    """Say which files and folders beside those that are taken hold nothing of this kind.

    Files at the top are passed over if none there is taken, but for tables, and so are those about the data.

    Args:
        folder: of the data.
        taken: files in it, as `visible_files` gives them.
        kind: what they are, such as "pictures".
        whole: folders say nothing, so that an empty one is no lost class.
    """
    known, holding = set(taken), {file.parent for file in taken}
    others = [file for file in sorted(_walk(folder, set())) if file not in known and file.exists()]
    others = [file for file in others if file.stem.lower() not in ABOUT and file.name not in NO_ROWS]
    if left := [file for file in others if file.parent != folder or folder in holding or is_table(file)]:
        note(f"path={str(folder)!r}: {len(left)} files that are no {kind} are left out, such as {left[0]}")
    above = {place.parent for place in holding if place != folder}
    holding |= {place for file in holding for place in file.parents}
    beside = {one for place in above for one in place.iterdir() if one.is_dir() and not one.name.startswith(".")}
    if not whole and (empty := sorted(one for one in beside - holding if one.name not in JUNK)):
        note(f"path={str(folder)!r}: folders without {kind} are no classes: {some([str(one) for one in empty], 3)}")


def _walk(folder: Path, seen: set[str]) -> Iterator[Path]:
    if (real := os.path.realpath(folder)) in seen:  # a link into itself
        return
    for entry in os.scandir(folder):
        if entry.name.startswith(".") or entry.name in JUNK:
            continue
        if entry.is_dir():
            yield from _walk(Path(entry.path), seen | {real})
        elif entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path)):
            yield Path(entry.path)


def stem(file: Path) -> str:
    """A file's name without the endings that say its kind: of a.jsonl.gz, "a"."""
    name = file.name
    while (ending := Path(name).suffix).lower() in ENDINGS:
        name = name[: -len(ending)]
    return name


def named_split(folder: Path, file: Path) -> str | None:
    """The split for which a table is named: by a folder that it is in, or by its own name, maybe with a number."""
    folders = [part.lower() for part in file.relative_to(folder).parts[:-1]]
    shard = SHARD.fullmatch(stem(file).lower())
    return next((ALIASES[part] for part in folders if part in ALIASES), ALIASES.get(shard[1]) if shard else None)


def tables_by_split(folder: Path, files: Iterable[Path], whole: bool = False) -> dict[str, list[Path]]:
    """Tables by split: by the folders they are in, then by their own names.

    Those that are named for no split are for training if no other is; otherwise they are left out. It is said.

    Args:
        folder: of the data.
        files: in it.
        whole: all files are one split, "train", whatever they are called.
    """
    files = list(files)
    if whole:
        return {"train": files}
    named = {file: named_split(folder, file) for file in files}
    words = {file: _words(stem(file)) for file, split in named.items() if split is None}
    begun = named | {file: ALIASES.get(found[0]) for file, found in words.items() if found}
    spoken = {file: _only_split(found) for file, found in words.items()}
    if len(splits := {split or "train" for split in begun.values()}) > 1 and "train" in splits:
        named = begun
    elif not any(named.values()) and "train" in spoken.values() and len(set(spoken.values()) - {None}) > 1:
        named = dict(spoken)
    elif odd := [file.name for file, split in spoken.items() if split not in (None, "train")]:
        note(f"path={str(folder)!r}: {some(odd, 3)}: not taken for a split, as no file is named for training likewise")
    return _without_strays(folder, named)


def note_missing_parts(folder: Path, files: Iterable[Path]) -> None:
    """Say of which tables in several files, called NAME-1-of-3 and so on, not all files are there."""
    parts: dict[tuple[Path, str, int], set[int]] = {}
    for file in files:
        if found := PART.match(stem(file)):
            parts.setdefault((file.parent, found[1], int(found[3])), set()).add(int(found[2]))
    for (place, name, count), numbers in parts.items():
        if len(numbers) < count:
            which = (place / name).relative_to(folder)
            note(f"path={str(folder)!r}: of {which} only {len(numbers)} of its {count} files are there: get the others")


def samples_by_split(folder: Path, files: Iterable[Path], whole: bool = False) -> dict[str, list[Sample]]:
    """Pictures, clips or texts by split, and the folders below it, one of which is a file's class.

    Files outside the folders of splits are for training if none of these is; otherwise they are left out. It is said.

    Args:
        folder: of the data.
        files: in it.
        whole: all files are one split, "train", whatever folders are called.
    """
    files = list(files)
    place, splits = (folder, {}) if whole else _split_folders(folder, files)
    chosen = {file: splits.get(file.relative_to(place).parts[0]) for file in files}
    if not whole and all(file.parent == folder and file.suffix.lower() == ".txt" for file in files):
        stems = {file: ALIASES.get(stem(file).lower()) for file in files}
        if len(set(stems.values()) - {None}) > 1 and "train" in stems.values():
            chosen = stems
    found: dict[str, list[Sample]] = {}
    for split, members in _without_strays(folder, chosen).items():
        for file in members:
            folders = file.relative_to(place).parts[:-1]
            below = folders[1:] if splits.get(folders[0] if folders else "") else folders
            found.setdefault(split, []).append(Sample(file, below))
    return found


def classes_of(samples: list[Sample]) -> list[str | None] | None:
    """The innermost folder of each file, its class, or None for one in no folder; None if that is true of all."""
    found = [sample.folders[-1] if sample.folders else None for sample in samples]
    if trimmed := sorted({repr(name) for name in found if name and name != name.strip()}):
        note(f"White space at the ends of the names of folders is left out of the classes: {some(trimmed)}")
    names = [name and name.strip() for name in found]
    return names if any(names) else None


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[-._ \d]+", name.lower()) if word]


def _only_split(words: list[str]) -> str | None:
    """The split of which some words speak, if it is one."""
    found = {ALIASES[word] for word in words if word in ALIASES}
    return found.pop() if len(found) == 1 else None


def _split_folders(folder: Path, files: list[Path]) -> tuple[Path, dict[str, str]]:
    """The folders that are splits, by their names, and the place where they lie: `folder`, or a single folder in it."""
    parts = [file.relative_to(folder).parts for file in files]
    tops = sorted({part[0] for part in parts if len(part) > 1})
    nested = {part[0] for part in parts if len(part) > 2}  # with folders in them
    splits = {top: ALIASES[top.lower()] for top in tops if top.lower() in ALIASES}
    others = [top for top in tops if top not in splits]
    if not splits and len(tops) == 1 and len(nested) == 1 and all(len(part) > 1 for part in parts):
        place, inner = _split_folders(folder / tops[0], files)
        return (place, inner) if inner else (folder, {})
    several = "train" in splits.values() and len(set(splits.values())) > 1
    if others and splits and not several and not nested & splits.keys():
        note(f"path={str(folder)!r}: folders taken for classes, as {some(others)} beside them: {some(list(splits))}")
        return folder, {}
    if not splits and len(nested) == len(tops) > 1:  # news_train and news_test
        spoken = {top: _only_split(_words(top)) for top in tops}
        rests = {tuple(word for word in _words(top) if word not in ALIASES) for top in tops}
        if len(rests) == 1 and len(set(spoken.values())) == len(tops) and "train" in spoken.values():
            splits = {top: split for top, split in spoken.items() if split}
    return folder, splits


def _without_strays(folder: Path, chosen: dict[Path, str | None]) -> dict[str, list[Path]]:
    """Files by split; those of none are for training, unless others are."""
    strays = [file for file, split in chosen.items() if split is None]
    found: dict[str, list[Path]] = {}
    for file, split in chosen.items():
        if split is not None:
            found.setdefault(split, []).append(file)
    if strays and "train" in found:
        note(
            f"path={str(folder)!r}: {len(strays)} of {len(chosen)} files lie outside the splits and are left out, such "
            f"as {strays[0].relative_to(folder)}; to train on them, put them with those of train"
        )
    elif strays:
        if found:
            others = some([f"{len(members)} for {split}" for split, members in found.items()])
            note(f"path={str(folder)!r}: {len(strays)} files outside the splits are for training, {others}")
        found["train"] = strays
    return {split: found[split] for split in SPLIT_NAMES if split in found}

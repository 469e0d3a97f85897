"""Data sets whose authors cut them into folds: each is tested by a network that was trained on the others."""

from __future__ import annotations

from pathlib import Path

from datasets import Audio, Dataset, concatenate_datasets, load_dataset


def make_folds(pack: Path, column: str, out: Path) -> list[Path]:
    """A folder for each fold, with train.parquet, validation.parquet and test.parquet; those that are there stay.

    The fold is the test, the one before it (of the first: the last) validates, the others train.

    Args:
        pack: folder of the data set, of any splits, which are put together.
        column: that says of each row in which fold it is.
        out: folder for the folds' own.

    Returns:
        The folders, in the order of the folds.

    Raises:
        ValueError: no such column, or fewer than three folds.
    """
    rows = concatenate_datasets(list(load_dataset(str(pack)).values()))
    if column not in rows.column_names:
        raise ValueError(
            f"column={column!r}: {pack} has no such column; expected one of {', '.join(rows.column_names)}"
        )
    for name, feature in rows.features.items():
        if isinstance(feature, Audio):
            rows = rows.cast_column(name, Audio(decode=False))
    folds = sorted(set(rows[column]))
    if len(folds) < 3:
        raise ValueError(f"column={column!r}: {pack} has {len(folds)} folds; expected 3, to train, validate and test")
    found = []
    for place, fold in enumerate(folds):
        folder = out / f"fold_{fold}"
        found.append(folder)
        held = {"test": fold, "validation": folds[place - 1]}
        folder.mkdir(parents=True, exist_ok=True)
        for split in ("train", *held):
            file = folder / f"{split}.parquet"
            if not file.exists():
                _chosen(rows, column, split, held).to_parquet(file)
    return found


def _chosen(rows: Dataset, column: str, split: str, held: dict[str, int]) -> Dataset:
    """Rows of a split, in their order."""
    if split == "train":
        return rows.select([place for place, fold in enumerate(rows[column]) if fold not in held.values()])
    return rows.select([place for place, fold in enumerate(rows[column]) if fold == held[split]])

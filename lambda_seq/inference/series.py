"""Series of numbers: in the forms that a person has them in, and as a network takes them, standardised and filled."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

STANDARDIZATIONS = ("train", "series", "none")
FILLINGS = ("mean", "last")
MARKS = ("", "?", "na", "n/a", "null", "none", "nan", "-")  # what people write for a number that is missing


class SeriesFrontend(nn.Module):
    """Series as the network takes them; its arguments are what a data module of series says in `facts["series"]`.

    Each channel is standardised: by `standardize` "train" with mean and deviation of all training series, by "series"
    with those of the series itself, over what is known of it, so that its level and scale tell nothing; "none" leaves
    numbers as they are. A missing number, NaN, then becomes 0, the channel's mean (of "none", 0); or, by `missing`
    "last", the number before it in its channel, as far as there is one.

    Args:
        mean, std: of each channel over training series.
        standardize: "train", "series" or "none".
        missing: "mean" or "last".
        indicator: whether each channel gets another one beside it, behind all, that is 1 where a number is missing.
        others: facts of the data that nothing here depends on, such as max_length.

    Raises:
        ValueError: another standardisation or filling.
    """

    def __init__(
        self,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        standardize: str = "train",
        missing: str = "mean",
        indicator: bool = False,
        **others: Any,
    ) -> None:
        super().__init__()
        check_choices(standardize, missing)
        self.standardize, self.missing, self.indicator = standardize, missing, indicator
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    @torch.no_grad()
    def forward(
        self, x: Float[Tensor, "B N C"], mask: Bool[Tensor, "B N"] | None = None
    ) -> tuple[Float[Tensor, "B N D"], Bool[Tensor, "B N"] | None]:
        """Series with NaN for what is missing to series without, D = C or, with indicators, 2 C; the mask stays.

        Computed in float32; the result has the dtype of x. It is 0 where the mask is False.
        """
        with torch.autocast(x.device.type, enabled=False):
            real = x.new_ones((*x.shape[:2], 1), dtype=torch.bool) if mask is None else mask[..., None]  # (B, N, 1)
            known = ~x.isnan() & real  # (B, N, C)
            result = self._standardized(x.float().masked_fill(~known, 0), known).masked_fill(~known, 0)
            if self.missing == "last":
                result = carried(result, known) * real
            if self.indicator:
                result = torch.cat([result, (real & ~known).to(result.dtype)], -1)  # (B, N, 2 C)
        return result.to(x.dtype), mask

    def _standardized(self, x: Tensor, known: Tensor) -> Tensor:
        if self.standardize == "train":
            return (x - self.mean) / self.std
        if self.standardize == "none":
            return x
        count = known.sum(1, keepdim=True).clamp_min(1)  # (B, 1, C)
        mean = x.sum(1, keepdim=True) / count
        away = (x - mean).masked_fill(~known, 0)
        std = (away.square().sum(1, keepdim=True) / count).sqrt()
        return away / std.clamp_min(1e-6).maximum(1e-6 * mean.abs())  # a constant stays 0, whatever rounding left


def carried(x: Float[Tensor, "B N C"], known: Bool[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
    """Each number that is not known as the last known one in front of it in its channel, 0 where there is none."""
    place = torch.arange(x.shape[1], device=x.device)[:, None].expand_as(x)
    last = place.masked_fill(~known, -1).cummax(1).values  # (B, N, C)
    return x.gather(1, last.clamp_min(0)).masked_fill(last < 0, 0)


def check_choices(standardize: str, missing: str) -> None:
    """That both are among the choices.

    Raises:
        ValueError: one is not; names it and the choices.
    """
    for name, given, known in (("standardize", standardize, STANDARDIZATIONS), ("missing", missing, FILLINGS)):
        if given not in known:
            raise ValueError(f"{name}={given!r}: expected one of {', '.join(map(repr, known))}")


def series_of(given: Any, channels: Sequence[str]) -> Float[np.ndarray, "N C"]:
    """A series in any of its forms, float32, NaN where a number is missing.

    Args:
        given: an array or tensor (channels, N), or (N,) of one channel; a list of the numbers of one channel; a mapping
            from the names of channels to their numbers; or the path of a file that holds one series: `.npy`, or a table
            (`.csv`, `.tsv`) with a column for each channel and a row for each step.
        channels: names of all channels, in their order.

    Raises:
        TypeError, ValueError: it is none, or not of these channels; says why.
    """
    if isinstance(given, str | Path):
        given = _read(Path(given), channels)
    if isinstance(given, Mapping):
        given = _by_names(given, channels)
    try:
        values = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{type(given).__name__} is no series: the model takes arrays (channels, N), numbers of one channel, "
            "numbers by the names of channels, and paths of .npy, .csv and .tsv files"
        ) from error
    values = values[None] if values.ndim == 1 else values
    if values.ndim != 2 or len(values) != len(channels):
        wanted = "(N,), or (1, N)" if len(channels) == 1 else f"({len(channels)}, N)"
        turned = "; transpose it" if values.ndim == 2 and values.shape[1] == len(channels) else ""
        raise ValueError(
            f"a series of shape {np.shape(given)}: expected {wanted}, channels first: {_some(channels)}{turned}"
        )
    if np.isinf(values).any():
        raise ValueError("holds numbers that are infinite; give NaN for what is not known")
    return np.ascontiguousarray(values.T, dtype=np.float32)


def is_numbers(given: Any) -> bool:
    """Whether it is a list of numbers, which are a series of one channel."""
    return isinstance(given, list) and bool(given) and isinstance(given[0], Real)


def _by_names(given: Mapping[str, Any], channels: Sequence[str]) -> np.ndarray:
    if lacking := [name for name in channels if name not in given]:
        raise ValueError(f"the channels {_some(lacking)} are missing; there are {_some(list(given))}")
    columns = [np.asarray(given[name], dtype=np.float64) for name in channels]
    if len({column.shape for column in columns}) > 1:
        raise ValueError(f"channels of different lengths, {[len(column) for column in columns]}; fill in NaN")
    return np.stack(columns)


def _read(file: Path, channels: Sequence[str]) -> Any:
    """What a file of one series holds, as numbers by channels or as an array."""
    if not file.is_file():
        raise ValueError("there is no such file")
    kind = file.suffix.lower()
    if kind == ".npy":
        try:
            return np.load(file, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"cannot be read as an array: {error}") from error
    if kind not in (".csv", ".tsv"):
        raise ValueError(
            f"a file of kind {kind!r}: a single series is an .npy, .csv or .tsv file; files of many are read by "
            "lambda-seq predict --model FOLDER --input FILE"
        )
    with file.open(encoding="utf-8-sig", newline="") as stream:
        rows = [row for row in csv.reader(stream, delimiter="\t" if kind == ".tsv" else ",") if row]
    if not rows:
        raise ValueError("holds no rows")
    named = not all(_is_number(cell) for cell in rows[0])
    names = [cell.strip() for cell in rows.pop(0)] if named else list(channels)
    if bad := next((line for line, row in enumerate(rows, 1 + named) if len(row) != len(names)), None):
        raise ValueError(f"line {bad} has another number of cells than the {len(names)} of the first; correct it")
    return {name: [number(row[place]) for row in rows] for place, name in enumerate(names) if name in channels}


def number(cell: str) -> float:
    """A cell as a number, NaN for one that is missing.

    Raises:
        ValueError: it is no number.
    """
    return float("nan") if cell.strip().casefold() in MARKS else float(cell)


def _is_number(cell: str) -> bool:
    try:
        number(cell)
    except ValueError:
        return False
    return True


def _some(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more

"""Pictures of what a classifier does: its confusion matrix, how far its confidence can be trusted, its predictions."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

WRITTEN = 40  # most classes whose cells hold numbers
NAMED = 100  # most classes whose names stand at the axes
COLUMNS = 8  # pictures side by side on a contact sheet
SHORTEST = 18  # characters of a line below such a picture
LONGEST = 24  # characters of a name that are shown
RIGHT, GAP = "#0072B2", "#D55E00"  # blue and vermilion of Okabe & Ito, for all eyes
SHADES = LinearSegmentedColormap.from_list("shares", ["#FFFFFF", "#C6DBEF", "#6BAED6", "#2171B5", "#08306B"])


def draw_confusion(matrix: list[list[int]], labels: list[str], reliability: list[dict[str, Any]], path: Path) -> None:
    """Draw the confusion matrix, with a reliability diagram beside it, as a PNG.

    A cell's colour, and the number below its count, is its share of the class's rows.

    Args:
        matrix: counts (classes, classes); a row for each class, a column for each prediction.
        labels: class names.
        reliability: "rows", "confidence" and "accuracy" for each bin of confidence.
        path: file to write.
    """
    counts = np.array(matrix)
    size = min(max(0.46 * len(labels), 4.0), 19.0)  # inches; a cell of 0.46 holds two lines of small print
    style: Any = {"font.size": 10, "axes.titlesize": 11, "axes.titleweight": "bold"}
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a script that the font lacks
        figure = Figure(figsize=(size + 6.5, size + 1.2), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, width_ratios=(size, 4.0))
        _confusion(left, counts, labels)
        _reliability(right, reliability)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, bbox_inches="tight", pad_inches=0.1)  # with the panel below the diagram


def _confusion(axes: Axes, counts: np.ndarray, labels: list[str]) -> None:
    support = counts.sum(1, keepdims=True)
    shares = counts / np.maximum(support, 1)  # a class without rows has none
    image = axes.imshow(shares, cmap=SHADES, vmin=0, vmax=1)
    axes.figure.colorbar(image, ax=axes, label="share of the class's rows", fraction=0.04, aspect=30, pad=0.02)
    axes.set(xlabel="prediction", ylabel="class", title="Confusion matrix")
    if len(labels) <= NAMED:
        names = [label if len(label) <= LONGEST else label[: LONGEST - 1] + "…" for label in labels]
        plain: Any = {"parse_math": False, "fontsize": 9 if len(labels) <= WRITTEN else 6}
        upright = max(map(len, names)) * len(names) > 60  # too long to stand side by side
        axes.set_xticks(range(len(names)), names, rotation=90 if upright else 0, **plain)
        axes.set_yticks(range(len(names)), names, **plain)
    if len(labels) > WRITTEN:
        return
    axes.set_xticks(np.arange(1, len(labels)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(labels)) - 0.5, minor=True)
    axes.grid(which="minor", color="#DDDDDD", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            share = shares[row, column]
            axes.text(
                column,
                row,
                f"{count}\n{share:.0%}",
                ha="center",
                va="center",
                fontsize=12 if len(labels) <= 4 else 7.5,
                in_layout=False,  # it stays in its cell, and measuring hundreds takes seconds
                color="white" if share > 0.5 else "black",
            )


def _reliability(axes: Axes, bins: list[dict[str, Any]]) -> None:
    """Accuracy in bins of confidence; on the diagonal, confidence is what it says."""
    rows = np.array([entry["rows"] for entry in bins])
    known = rows > 0
    accuracy, confidence = (
        np.array([entry[name] or 0.0 for entry in bins], dtype=float) for name in ("accuracy", "confidence")
    )
    width = 1 / len(bins)
    centres = (np.arange(len(bins)) + 0.5) * width
    options: Any = {"width": width, "edgecolor": "white", "linewidth": 0.8}
    axes.bar(centres[known], accuracy[known], color=RIGHT, label="accuracy", **options)
    axes.plot(confidence[known], confidence[known], "o", color=GAP, markersize=4, label="mean confidence")
    axes.plot([0, 1], [0, 1], "--", color="#888888", linewidth=1)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", title="Reliability", box_aspect=1, anchor="N")
    error = (rows * np.abs(accuracy - confidence)).sum() / max(rows.sum(), 1)
    shares = axes.inset_axes((0, -0.42, 1, 0.2), sharex=axes)  # how many rows each bin has
    shares.bar(centres, rows / max(rows.sum(), 1), color="#999999", **options)
    shares.set_ylabel("rows")
    shares.yaxis.set_major_formatter("{x:.0%}")
    legend: Any = {"framealpha": 0.8, "edgecolor": "none", "alignment": "left"}
    axes.legend(loc="upper left", title=f"calibration error {error:.3f}", **legend)
    for panel in (axes, shares):
        panel.spines[["top", "right"]].set_visible(False)


class Shown(NamedTuple):
    """A picture (H, W, C) of bytes on a contact sheet, its name, the likeliest class and the probability of that."""

    pixels: np.ndarray
    name: str
    label: str
    probability: float


def draw_sheet(groups: dict[str, list[Shown]], path: Path) -> None:
    """Draw pictures in rows under the title of their group, each above its class and name, as a PNG.

    Args:
        groups: pictures by title.
        path: file to write.
    """
    rows = [-(-len(shown) // COLUMNS) for shown in groups.values()]
    tile, title = 1.75, 0.45  # inches
    heights = [title + tile * count for count in rows]
    with mpl.rc_context({"font.size": 8}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a script that the font lacks
        figure = Figure(figsize=(COLUMNS * 1.45, sum(heights)), dpi=120)
        FigureCanvasAgg(figure)
        top = sum(heights)
        for (name, shown), height in zip(groups.items(), heights, strict=True):
            figure.text(0.01, (top - 0.12) / sum(heights), name, va="top", fontsize=12, fontweight="bold")
            for index, one in enumerate(shown):
                line, column = divmod(index, COLUMNS)
                bottom = top - title - tile * line - 1.25
                axes = figure.add_axes(
                    ((column + 0.07) / COLUMNS, bottom / sum(heights), 0.86 / COLUMNS, 1.25 / sum(heights))
                )
                _picture(axes, one)
            top -= height
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _picture(axes: Axes, shown: Shown) -> None:
    grey = shown.pixels.shape[-1] == 1
    axes.imshow(shown.pixels[..., 0] if grey else shown.pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set(xticks=[], yticks=[], anchor="S")
    axes.spines[:].set_visible(False)
    plain: Any = {"transform": axes.transAxes, "ha": "center", "va": "top", "parse_math": False}
    axes.text(0.5, -0.04, f"{_cut(shown.label, SHORTEST - 6)} {shown.probability:.1%}", fontweight="bold", **plain)
    axes.text(0.5, -0.16, _cut(shown.name[::-1], SHORTEST)[::-1], fontsize=7, color="#555555", **plain)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"

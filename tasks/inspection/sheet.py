"""A sheet of pictures, or of waveforms, as a PNG."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLUMNS = 8  # tiles side by side
LONGEST = 22  # characters below a tile
POINTS = 400  # of a waveform, each with its least and greatest sample


class Tile(NamedTuple):
    """A picture (H, W, C) of bytes or samples (N,) from −1 to 1, its class and its name."""

    content: np.ndarray
    label: str
    name: str


def draw_sheet(title: str, tiles: list[Tile], path: Path) -> None:
    """Draw tiles in rows, each above its class and name.

    Args:
        title: of the sheet.
        tiles: in order.
        path: file to write.
    """
    rows = -(-len(tiles) // COLUMNS)
    with mpl.rc_context({"font.size": 8}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a script that the font lacks
        figure = Figure(figsize=(COLUMNS * 1.45, 0.55 + 1.75 * rows), dpi=120)
        FigureCanvasAgg(figure)
        height = 0.55 + 1.75 * rows
        figure.text(0.01, 1 - 0.14 / height, title, va="top", fontsize=12, fontweight="bold", parse_math=False)
        for index, tile in enumerate(tiles):
            line, column = divmod(index, COLUMNS)
            bottom = height - 0.55 - 1.75 * line - 1.25
            place = ((column + 0.07) / COLUMNS, bottom / height, 0.86 / COLUMNS, 1.25 / height)
            _draw(figure.add_axes(place), tile)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _draw(axes: Axes, tile: Tile) -> None:
    if tile.content.ndim == 1:
        parts = np.array_split(tile.content, min(POINTS, len(tile.content)))
        least, most = (np.array([chosen(part) for part in parts]) for chosen in (np.min, np.max))
        axes.fill_between(range(len(parts)), least, most, color="#0072B2", linewidth=0.5)
        axes.set(ylim=(-1.05, 1.05), xlim=(0, max(len(parts) - 1, 1)))
        axes.axhline(0, color="#BBBBBB", linewidth=0.5)
    else:
        axes.imshow(tile.content, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color("#DDDDDD")
    for place, text, options in (
        (-0.04, tile.label, {"fontweight": "bold"}),
        (-0.16, tile.name, {"fontsize": 7, "color": "#555555"}),
    ):
        cut = text if len(text) <= LONGEST else "…" + text[1 - LONGEST :]
        axes.text(0.5, place, cut, transform=axes.transAxes, ha="center", va="top", parse_math=False, **options)

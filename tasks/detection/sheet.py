"""A sheet of pictures: what was found beside what is there."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lambda_seq.tasks.callbacks.pictures import GAP, RIGHT
from lambda_seq.tasks.checkpointing.storage import replacing

PAIRS = 2  # pictures side by side
SURE = 0.5  # least score of a box that is drawn
TINT = 0.45  # of a mask's colour over the picture


class Seen(NamedTuple):
    """A picture (H, W, 3) of bytes, what was found in it, and what is there; None where that is not known."""

    name: str
    pixels: np.ndarray
    found: dict[str, Any]
    truth: dict[str, Any] | None


def draw(seen: list[Seen], classes: list[str], path: Path) -> None:
    """Draw the pictures as a PNG: found boxes of a score of at least 0.5, and beside them the true ones."""
    columns = PAIRS * (2 if any(one.truth is not None for one in seen) else 1)
    rows = -(-len(seen) // PAIRS)
    with mpl.rc_context({"font.size": 7}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a script that the font lacks
        figure = Figure(figsize=(columns * 2.8, rows * 2.4), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for panel in panels:
            panel.set_axis_off()
        step = columns // PAIRS
        for place, one in enumerate(seen):
            sure = one.found["scores"] >= SURE
            found = {name: part[sure] for name, part in one.found.items()}
            _draw(panels[step * place], one.pixels, found, classes, f"{one.name}: found", RIGHT)
            if one.truth is not None:
                _draw(panels[step * place + 1], one.pixels, one.truth, classes, "true", GAP)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            figure.savefig(partial, format="png")


def _draw(axes: Axes, pixels: np.ndarray, objects: dict[str, Any], classes: list[str], title: str, colour: str) -> None:
    axes.set_title(title, parse_math=False)
    shown = pixels.astype(np.float32) / 255
    if "masks" in objects and len(objects["masks"]):
        covered = np.asarray(objects["masks"]).astype(bool).any(0)
        shown[covered] = (1 - TINT) * shown[covered] + TINT * np.array(mpl.colors.to_rgb(colour))
    axes.imshow(shown)
    scores = objects.get("scores", [None] * len(objects["labels"]))
    for (x, y, right, low), label, score in zip(
        objects["boxes"].tolist(), objects["labels"].tolist(), scores, strict=True
    ):
        axes.add_patch(Rectangle((x, y), right - x, low - y, fill=False, edgecolor=colour, linewidth=1.2))
        words = classes[label - 1] + ("" if score is None else f" {float(score):.2f}")
        axes.text(x, y, words, color="white", backgroundcolor=colour, fontsize=5, va="bottom", parse_math=False)

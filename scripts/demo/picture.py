"""The memory demo's picture: memory and time against length, both axes logarithmic, each line named where it ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Of Okabe and Ito, which colour-blind readers tell apart, two of them darker; each line has a marker of its own too.
STYLES = {
    "local": ("#0072B2", "o"),
    "global": ("#003A5C", "s"),
    "content": ("#56B4E9", "D"),
    "exponential": ("#3B7F8C", "p"),
    "fused": ("#D55E00", "^"),
    "materialised": ("#000000", "v"),
    "local-attention": ("#B8860B", "<"),
    "axial-attention": ("#7A5195", "h"),
    "linear-attention": ("#009E73", ">"),
    "published": ("#CC79A7", "P"),
}
ROOM = 2000  # a line that is predicted to rise over so many times what was measured leaves the diagram
LABEL = 15  # points from a label above a diagram to the next


def size_text(count: float) -> str:
    """2**16 -> '64 KiB'."""
    for unit, power in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 2**power:
            return f"{count / 2**power:g} {unit}"
    return f"{count:g} B"


@dataclass(frozen=True)
class Line:
    """A method in a picture.

    Args:
        name: key of STYLES.
        label: what it is called there.
        measured: (positions, value).
        failed: where it was tried and failed: (positions, "out of memory" or "too slow").
        expected: the prediction, if there is one.
        slope: power of the length that it grows with.
        ours: drawn thicker.
    """

    name: str
    label: str
    measured: tuple[tuple[int, float], ...]
    failed: tuple[tuple[int, str], ...]
    expected: Callable[[int], float] | None
    slope: float | None
    ours: bool

    @property
    def text(self) -> str:
        """Name and slope."""
        return self.label if self.slope is None else f"{self.label}  {abs(self.slope):.2f}"


@dataclass(frozen=True)
class Panel:
    """One of the two diagrams; `ceiling` is a line across it, (value, what it says)."""

    title: str
    lines: Sequence[Line]
    ceiling: tuple[float, str] | None
    unit: Callable[[float], str]


def draw(
    file: Path, title: str, subtitle: str, panels: Sequence[Panel], lengths: Sequence[int], ticks: Sequence[str]
) -> None:
    """Write the picture as `file`, PNG, and as SVG beside it.

    Args:
        file: with suffix .png.
        title, subtitle: above the diagrams.
        panels: side by side.
        lengths, ticks: positions, and what stands below them.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"svg.hashsalt": "memory_demo", "font.size": 11}):
        figure, axes = plt.subplots(1, len(panels), figsize=(13.8, 6.6), dpi=140)
        figure.text(0.012, 0.965, title, fontsize=17, fontweight="bold", va="top")
        figure.text(0.012, 0.905, subtitle, fontsize=11, color="0.3", va="top")
        _legend(figure, panels)
        labels = [_draw_panel(place, panel, lengths, ticks) for place, panel in zip(axes, panels, strict=True)]
        room = 13 + LABEL * max(3, *labels)  # points between the diagrams and their titles
        figure.subplots_adjust(left=0.055, right=0.8225, top=0.85 - room / 475, bottom=0.15, wspace=0.88)
        for place, panel in zip(axes, panels, strict=True):
            place.set_title(panel.title, loc="left", fontsize=13, fontweight="bold", pad=room)
        figure.savefig(file)
        figure.savefig(file.with_suffix(".svg"), metadata={"Date": None})
        plt.close(figure)


def _legend(figure: Any, panels: Sequence[Panel]) -> None:
    from matplotlib.lines import Line2D

    failures = {kind for panel in panels for line in panel.lines for _, kind in line.failed}
    entries: list[tuple[str, dict[str, Any]]] = [
        ("measured", {"marker": "o", "linestyle": "-"}),
        ("predicted", {"linestyle": (0, (3, 2))}),
    ]
    if "out of memory" in failures:
        entries.append(("out of memory, really reached", {"marker": "X", "markersize": 11, "linestyle": "none"}))
    if "too slow" in failures:
        entries.append(("too slow: stopped", {"marker": "o", "mfc": "white", "markersize": 8, "linestyle": "none"}))
    handles = [Line2D([], [], color="0.3", **style) for _, style in entries]
    texts = [text for text, _ in entries]
    figure.legend(handles, texts, loc="lower left", bbox_to_anchor=(0.03, 0.0), ncols=5, frameon=False, fontsize=10.5)
    figure.text(
        0.988,
        0.022,
        "a number: the slope, 1 is linear in the length, 2 quadratic",
        ha="right",
        fontsize=10.5,
        color="0.3",
    )


def _draw_panel(axes: Any, panel: Panel, lengths: Sequence[int], ticks: Sequence[str]) -> int:
    """Draw all but the title, and return how many labels stand above the diagram."""
    values = [value for line in panel.lines for _, value in line.measured]
    if not values:
        axes.set_axis_off()
        axes.text(0, 1, "nothing was measured", transform=axes.transAxes, va="top")
        return 0
    low, high = lengths[0], lengths[-1]
    reached = [line.expected(high) for line in panel.lines if line.expected is not None]
    top = 2 * max(max(values), *(value for value in [0.0, *reached] if value < ROOM * max(values)))
    if panel.ceiling is not None:
        top = min(max(top, 4 * panel.ceiling[0]), 16 * panel.ceiling[0])
    axes.set(xscale="log", yscale="log", xlim=(low / 1.15, high * 1.15), ylim=(min(values) / 1.6, top))
    axes.set_xticks(lengths, ticks, rotation=45 if len(lengths) > 6 else 0, fontsize=10)
    axes.minorticks_off()
    decades = range(math.floor(math.log10(min(values) / 1.6)), math.ceil(math.log10(top)) + 1)
    axes.set_yticks([y for y in _marks(panel, decades) if min(values) / 1.6 <= y <= top])
    axes.yaxis.set_major_formatter(lambda value, _: panel.unit(value))
    axes.tick_params(axis="y", labelsize=10)
    axes.set_xlabel("positions")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if panel.ceiling is not None and panel.ceiling[0] <= top:
        axes.axhline(panel.ceiling[0], color="#A00000", linewidth=1.2, linestyle=(0, (1, 1.5)), zorder=1)
        axes.text(low, panel.ceiling[0] * 1.12, panel.ceiling[1], color="#A00000", fontsize=10)
    ends = [(line, _draw_line(axes, line, high, top)) for line in panel.lines if line.measured]
    _name([(line, end) for line, end in ends if end[0] >= high], axes)
    left = [(line, end) for line, end in ends if end[0] < high]
    _name_above(left, axes, top)
    return len(left)


def _marks(panel: Panel, decades: range) -> list[float]:
    """Ticks: powers of ten, or of two where those are sizes in bytes."""
    if panel.unit is size_text:
        return [2.0**power for power in range(0, 60, 4 if len(decades) > 5 else 2)]
    return [10.0**power for power in decades]


def _draw_line(axes: Any, line: Line, high: int, top: float) -> tuple[float, float]:
    """Draw it, and return where it ends: at the right, or where it leaves the diagram above."""
    colour, marker = STYLES[line.name]
    width = 2.8 if line.ours else 1.6
    x, y = zip(*line.measured, strict=True)
    axes.plot(x, y, color=colour, marker=marker, markersize=6 if line.ours else 5, linewidth=width, zorder=3)
    end = (float(x[-1]), y[-1])
    if line.expected is None:
        return end
    # Dashed from the last point on, in small steps; in proportion, so that it begins there
    factor = y[-1] / line.expected(x[-1])
    steps = max(1, round(8 * math.log2(high / x[-1])))
    further = [x[-1] * (high / x[-1]) ** (step / steps) for step in range(steps + 1)]
    dashed = [(n, factor * line.expected(n)) for n in further]
    inside = [point for point in dashed if point[1] <= top]
    if len(inside) > 1:
        axes.plot(*zip(*inside, strict=True), color=colour, linewidth=width * 0.7, linestyle=(0, (3, 2)), zorder=2)
        end = inside[-1]
    for positions, kind in line.failed:
        style: dict[str, Any] = {"marker": "X", "markersize": 12, "markeredgecolor": "white"}
        if kind == "too slow":
            style = {"marker": marker, "markersize": 8, "markerfacecolor": "white", "markeredgecolor": colour}
        height = min(factor * line.expected(positions), top)
        if kind == "too slow" and height == top:
            continue
        axes.plot([positions], [height], color=colour, linestyle="none", zorder=5, clip_on=False, **style)
    return (float(high), end[1]) if end[0] >= high * 0.999 else end


def _name(ends: Sequence[tuple[Line, tuple[float, float]]], axes: Any) -> None:
    """Labels to the right of lines that reach the last length, moved apart as little as keeps them legible."""
    low_limit, high_limit = (math.log10(limit) for limit in axes.get_ylim())
    gap = (high_limit - low_limit) / 21
    ordered = sorted(ends, key=lambda end: end[1][1])
    for (line, (x, y)), height in zip(
        ordered, spread([math.log10(end[1]) for _, end in ordered], gap, high_limit), strict=True
    ):
        axes.annotate(
            line.text,
            xy=(x, y),
            xytext=(1.07, 10**height),
            textcoords=axes.get_yaxis_transform(),
            color=STYLES[line.name][0],
            fontsize=11,
            fontweight="bold" if line.ours else "normal",
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "relpos": (0, 0.5),
                "color": "0.65",
                "linewidth": 0.7,
                "shrinkA": 1,
                "shrinkB": 4,
            },
        )


def spread(wanted: Sequence[float], gap: float, top: float) -> list[float]:
    """Rising heights at least `gap` apart and not above `top`, near the wanted ones, which rise too."""
    groups: list[list[float]] = []  # the wanted heights, less their place, of labels that touch
    starts: list[int] = []
    for index, height in enumerate(wanted):
        groups.append([height - index * gap])
        starts.append(index)
        while len(groups) > 1 and _mean(groups[-2]) > _mean(groups[-1]):
            last = groups.pop()
            groups[-1] += last
            starts.pop()
    heights = [
        _mean(group) + (start + place) * gap
        for group, start in zip(groups, starts, strict=True)
        for place in range(len(group))
    ]
    return [min(height, top - (len(wanted) - 1 - index) * gap) for index, height in enumerate(heights)]


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _name_above(ends: Sequence[tuple[Line, tuple[float, float]]], axes: Any, top: float) -> None:
    """Labels above the diagram of lines that leave it there, the leftmost highest."""
    ordered = sorted(ends, key=lambda end: -end[1][0])
    low, high = (math.log(limit) for limit in axes.get_xlim())
    for level, (line, (x, y)) in enumerate(ordered):
        leaves = y >= top / 1.6  # else it ends inside, without a prediction
        far = (math.log(x) - low) > 0.4 * (high - low)  # a label to the right of it would run into others
        axes.annotate(
            line.text,
            xy=(x, top if leaves else y),
            xytext=(0, 8 + LABEL * level) if leaves else (8, 8),
            textcoords="offset points",
            ha="right" if far and leaves else "left",
            color=STYLES[line.name][0],
            fontsize=11,
            fontweight="bold" if line.ours else "normal",
            annotation_clip=False,
        )

"""Tables for the terminal and for Markdown, and plots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.recording import Recorder

# Okabe and Ito's colours, which colour-blind readers tell apart, the pale yellow left out.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = "osD^vPX"
# Columns of words, besides the first
LEFT = ("", "against", "pass", "chosen", "not measured", "configuration", "a first try")


@dataclass(frozen=True)
class Table:
    """Rows of text under a title; columns of words are aligned to the left."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def print(self, console: Console) -> None:
        """Show it in the terminal."""
        table = RichTable(title=self.title, title_justify="left")
        for name, left in zip(self.columns, self._left(), strict=True):
            table.add_column(name, justify="left" if left else "right")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)

    def markdown(self) -> str:
        """The same in Markdown."""
        rule = [":--" if left else "--:" for left in self._left()]
        return "\n".join([f"**{self.title}**", "", *map(_line, (self.columns, rule, *self.rows))])

    def _left(self) -> list[bool]:
        return [index == 0 or name in LEFT for index, name in enumerate(self.columns)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def show(tables: Sequence[Table], notes: Sequence[str], recorder: Recorder) -> None:
    """Print tables and notes, and write them as Markdown beside the records, under the command and the machine."""
    console = Console()
    for table in tables:
        table.print(console)
    for note in notes:
        console.print(note, markup=False, highlight=False)
    described = " · ".join(f"{name.replace('_', ' ')} {value}" for name, value in recorder.machine.items())
    parts = [f"`{recorder.command}`", described, *(table.markdown() for table in tables), *notes]
    recorder.write()
    recorder.file.with_suffix(".md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def number(value: float) -> str:
    """Three digits at least: 1.2345 -> '1.23', 12345.6 -> '12,346'."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def seconds(value: float | None) -> str:
    """0.0123 -> '12.3 ms'."""
    if value is None:
        return ""
    for unit, factor in (("s", 1), ("ms", 1e3)):
        if value * factor >= 0.9995:
            return f"{number(value * factor)} {unit}"
    return f"{number(value * 1e6)} µs"


def size(count: float | None) -> str:
    """2**20 -> '1 MiB'."""
    if count is None:
        return ""
    return f"{number(count / 2**20)} MiB" if count < 2**30 * 0.9995 else f"{number(count / 2**30)} GiB"


@dataclass(frozen=True)
class Series:
    """A line of a plot: points (x, y, whether y is predicted), in the order of x; `style` is its colour and marker."""

    label: str
    style: int
    points: tuple[tuple[float, float, bool], ...]


def plot_curves(file: Path, title: str, y_label: str, series: Sequence[Series]) -> None:
    """Lines over length, both axes logarithmic, each named at its end; predicted parts are dashed and hollow."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    series = [line for line in series if line.points]
    if not series:
        return
    figure, axes = plt.subplots(figsize=(8, 5), dpi=150, layout="constrained")
    for line in series:
        style: dict[str, Any] = {"color": COLOURS[line.style % len(COLOURS)], "linewidth": 2}
        marker: dict[str, Any] = {"marker": MARKERS[line.style % len(MARKERS)], "markersize": 6, "linestyle": "none"}
        for before, after in zip(line.points, line.points[1:], strict=False):
            axes.plot(*zip(before[:2], after[:2], strict=True), linestyle="--" if after[2] else "-", **style)
        for predicted, fill in ((False, style["color"]), (True, "white")):
            chosen = [point[:2] for point in line.points if point[2] == predicted]
            if chosen:
                axes.plot(*zip(*chosen, strict=True), markerfacecolor=fill, color=style["color"], **marker)
    axes.set(xscale="log", yscale="log", xlabel="length (positions)", ylabel=y_label)
    axes.set_title(title, loc="left", fontsize=12)
    lengths = sorted({point[0] for line in series for point in line.points})
    axes.set_xticks(lengths, [f"{int(length):,}" for length in lengths], rotation=30 if len(lengths) > 6 else 0)
    heights = [point[1] for line in series for point in line.points]
    if max(heights) < 30 * min(heights):  # too little for powers of ten, and nearly level lines should look so
        axes.set_ylim(min(heights) / 2, max(heights) * 2)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    _name_lines(axes, series, 1.04 * lengths[-1])
    if any(point[2] for line in series for point in line.points):
        axes.text(0.01, 0.98, "dashed: predicted", transform=axes.transAxes, va="top", fontsize=9, color="0.3")
    figure.savefig(file)
    plt.close(figure)


def _name_lines(axes: Any, series: Sequence[Series], x: float) -> None:
    """A label to the right of each line's end, moved apart where they would overlap."""
    low, high = (math.log10(limit) for limit in axes.get_ylim())
    gap = (high - low) / 22
    last = -math.inf
    for line in sorted(series, key=lambda line: line.points[-1][1]):
        end = math.log10(line.points[-1][1])
        last = max(end, last + gap)
        axes.annotate(
            line.label,
            xy=line.points[-1][:2],
            xytext=(x * 1.1, 10**last),
            color=COLOURS[line.style % len(COLOURS)],
            fontsize=10,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "relpos": (0, 0.5),
                "color": "0.6",
                "linewidth": 0.7,
                "shrinkA": 0,
                "shrinkB": 5,
            },
        )


def plot_choices(file: Path, ratios: Sequence[float], limit: float) -> None:
    """How much slower than the best candidate the chosen one is, over the whole grid in rising order."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3.6), dpi=150, layout="constrained")
    ratios = sorted(ratios)
    shares = [100 * (index + 1) / len(ratios) for index in range(len(ratios))]
    within = sum(ratio <= limit for ratio in ratios)
    axes.step(shares, ratios, where="mid", color=COLOURS[0], linewidth=2)
    axes.axhline(limit, color=COLOURS[1], linestyle="--", linewidth=1)
    axes.text(1, limit * 1.01, f"{limit} times the best", color=COLOURS[1], va="bottom", fontsize=10)
    axes.set(xlim=(0, 100), ylim=(0.98, max(1.5, 1.05 * ratios[-1])), xlabel="passes of the grid (%)")
    axes.set_ylabel("time of the chosen algorithm\nover the fastest measured")
    axes.set_title(f"The plan's choice: {within} of {len(ratios)} within {limit} of the best", loc="left", fontsize=12)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file)
    plt.close(figure)

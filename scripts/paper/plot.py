"""Speed against size: the paper's networks there and here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reporting import COLOURS


@dataclass(frozen=True)
class Point:
    """A network: millions of parameters, 10⁹ FLOPS per picture, pictures per second printed and measured."""

    label: str
    parameters: float
    flops: float
    printed: float | None
    measured: float | None


def plot_trade_off(file: Path, points: Sequence[Point]) -> None:
    """Pictures per second over parameters, as printed and as measured; without measurements 1 / FLOPS on the right."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    if not points:
        return
    colours = {point.label: COLOURS[index % len(COLOURS)] for index, point in enumerate(points)}
    measured = any(point.measured for point in points)
    panels = [
        ("As printed", "pictures per second, the paper's accelerators", [(p, p.printed) for p in points]),
        ("Measured here", "pictures per second, training", [(p, p.measured) for p in points])
        if measured
        else ("Computed; not measured here", "pictures per 10¹² FLOPS", [(p, 1e3 / p.flops) for p in points]),
    ]
    figure, both = plt.subplots(1, 2, figsize=(11, 4.8), dpi=150, layout="constrained")
    for axes, (title, label, values) in zip(both, panels, strict=True):
        axes.set(xlabel="parameters (millions)", ylabel=label)
        axes.set_title(title, loc="left", fontsize=12)
        _dots(axes, [(point, value) for point, value in values if value], colours)
    figure.draw_without_rendering()  # settles the layout, and with it what covers what
    figure.set_layout_engine("none")
    for axes, (_, _, values) in zip(both, panels, strict=True):
        _names(axes, [(point, value) for point, value in values if value], colours)
    figure.savefig(file)
    plt.close(figure)


def _dots(axes: Any, values: Sequence[tuple[Point, float]], colours: dict[str, str]) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if not values:
        axes.text(0.5, 0.5, "nothing printed for these networks", transform=axes.transAxes, ha="center", color="0.4")
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:,.4g}" if f"{value:e}"[0] in "25" else "")
    axes.margins(0.12)
    for point, value in values:
        axes.plot(point.parameters, value, "o", color=colours[point.label], markersize=6)


def _names(axes: Any, values: Sequence[tuple[Point, float]], colours: dict[str, str]) -> None:
    taken = [_around(axes, point.parameters, value, 6, 6) for point, value in values]
    for point, value in sorted(values, key=lambda pair: pair[1]):
        _name(axes, point.label, (point.parameters, value), colours[point.label], taken)


Box = tuple[float, float, float, float]  # left, bottom, right, top, in pixels


def _name(axes: Any, label: str, at: tuple[float, float], colour: str, taken: list[Box]) -> None:
    """A label beside its point, at the first of some places where it covers nothing."""
    pixels = axes.figure.dpi / 72
    places = [("left", 7, 0), ("right", -7, 0), ("left", 5, 8), ("left", 5, -8), ("right", -5, 8), ("right", -5, -8)]
    places += [("left", 12, rise) for rise in (15, -15, 22, -22)]
    width, height = 4.6 * len(label) * pixels, 9 * pixels
    options = []
    for side, right, up in places:
        x, y = axes.transData.transform(at)
        x += right * pixels + (width / 2 if side == "left" else -width / 2)
        box = (x - width / 2, y + up * pixels - height / 2, x + width / 2, y + up * pixels + height / 2)
        frame = axes.bbox
        outside = box[0] < frame.x0 or box[2] > frame.x1 or box[1] < frame.y0 or box[3] > frame.y1
        options.append((sum(_overlap(box, other) for other in taken) + outside, (side, right, up), box))
    _, (side, right, up), box = min(options, key=lambda option: option[0])
    taken.append(box)
    axes.annotate(
        label,
        at,
        xytext=(right, up),
        textcoords="offset points",
        ha=side,
        va="center",
        fontsize=8,
        color=colour,
        arrowprops={"arrowstyle": "-", "color": "0.7", "linewidth": 0.6, "shrinkB": 3} if abs(up) > 10 else None,
    )


def _around(axes: Any, x: float, y: float, width: float, height: float) -> Box:
    """The box of a point's marker."""
    x, y = axes.transData.transform((x, y))
    half = (width * axes.figure.dpi / 144, height * axes.figure.dpi / 144)
    return x - half[0], y - half[1], x + half[0], y + half[1]


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]

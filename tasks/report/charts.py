"""Charts as SVG, whose colours are those of the page: they are read in the light and in the dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 14, 40  # margins
POINTS = 400  # of a line, at most
Line = tuple[str, Sequence[Sequence[float]], str]  # its class ("train", "val", "rate"), points, and what it is


def lines(title: str, given: Sequence[Line], across: str = "optimizer step") -> Markup:
    """Lines over steps; a single point is a dot. Empty without any finite point.

    Args:
        title: of the chart.
        given: the lines.
        across: what the horizontal axis is.
    """
    drawn = [(kind, [(x, y) for x, y in points if math.isfinite(y)], label) for kind, points, label in given]
    every = [point for _, points, _ in drawn for point in points]
    if not every:
        return Markup("")
    xs, ys = Axis(0, max(x for x, _ in every)), Axis.around([y for _, y in every])
    parts = [_frame(xs, ys, across)]
    for kind, points, label in drawn:
        if not points:
            continue
        thin = points[:: max(len(points) // POINTS, 1)]
        places = [(xs.across(x), ys.up(y)) for x, y in thin]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path class="line {kind}" d="{path}"><title>{escape(label)}</title></path>')
        if len(points) <= 40:
            parts += [
                f'<circle class="dot {kind}" cx="{xs.across(x):.1f}" cy="{ys.up(y):.1f}" r="2.8"><title>'
                f"{escape(label)}, {across} {x:g}: {y:.4g}</title></circle>"
                for x, y in points
            ]
    keys = "".join(f'<span class="key {kind}">{escape(label)}</span>' for kind, points, label in drawn if points)
    last = "; ".join(f"{label} ends at {points[-1][1]:.4g}" for _, points, label in drawn if points)
    return _figure(title, parts, keys, f"{title} by {across}: {last}")


def reliability(bins: Sequence[Mapping[str, Any]], error: float) -> Markup:
    """How often answers of some confidence are right; on the diagonal, confidence is what it says.

    Args:
        bins: "rows", "confidence" and "accuracy" of each.
        error: the expected calibration error.
    """
    xs, ys = Axis(0, 1), Axis(0, 1)
    rows = sum(entry["rows"] for entry in bins)
    width = (WIDTH - LEFT - RIGHT) / max(len(bins), 1)
    parts = [_frame(xs, ys, "confidence")]
    for place, entry in enumerate(bins):
        if not entry["rows"]:
            continue
        top, said = ys.up(entry["accuracy"]), f"{entry['rows']} rows of confidence {entry['confidence']:.2f}"
        weight = 0.3 + 0.7 * entry["rows"] / max(one["rows"] for one in bins)
        parts.append(
            f'<rect class="bar" fill-opacity="{weight:.2f}" x="{LEFT + place * width + 1:.1f}" y="{top:.1f}" '
            f'width="{width - 2:.1f}" height="{HEIGHT - BOTTOM - top:.1f}"><title>{said}: {entry["accuracy"]:.0%} are '
            f"right</title></rect>"
        )
        across = xs.across(entry["confidence"])
        parts.append(f'<circle class="dot val" cx="{across:.1f}" cy="{ys.up(entry["confidence"]):.1f}" r="3"/>')
    parts.append(f'<path class="diagonal" d="M{LEFT} {HEIGHT - BOTTOM}L{WIDTH - RIGHT} {TOP}"/>')
    keys = '<span class="key bar">accuracy, darker with more rows</span><span class="key val">mean confidence</span>'
    said = f"Reliability of {rows} rows: expected calibration error {error:.3f}"
    return _figure(f"Reliability: calibration error {error:.3f}", parts, keys, said)


def by_length(groups: Sequence[Mapping[str, Any]], unit: str) -> Markup:
    """Accuracy of rows of similar length.

    Args:
        groups: "least", "most" (lengths), "rows" and "accuracy" of each, shortest first.
        unit: what a length is counted in.
    """
    ys = Axis(0, 1)
    width = (WIDTH - LEFT - RIGHT) / len(groups)
    parts = [_frame(None, ys, f"length in {unit}")]
    for place, group in enumerate(groups):
        left, top = LEFT + place * width, ys.up(group["accuracy"])
        span = f"{group['least']:,}" + ("" if group["least"] == group["most"] else f"–{group['most']:,}")
        parts.append(
            f'<rect class="bar" x="{left + 4:.1f}" y="{top:.1f}" width="{width - 8:.1f}" '
            f'height="{max(HEIGHT - BOTTOM - top, 1):.1f}"><title>{span}: {group["accuracy"]:.1%} of {group["rows"]} '
            "rows are right</title></rect>"
            f'<text class="tick" x="{left + width / 2:.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">'
            f"{short(group['least'])}</text>"
            f'<text class="value" x="{left + width / 2:.1f}" y="{top - 4:.1f}" text-anchor="middle">'
            f"{group['accuracy']:.0%}</text>"
        )
    said = "; ".join(f"{one['least']} to {one['most']}: {one['accuracy']:.0%} of {one['rows']} rows" for one in groups)
    return _figure("Accuracy by length", parts, "", f"Accuracy by length in {unit}: {said}")


def heat(matrix: Sequence[Sequence[int]], size: int = 420) -> Markup:
    """A confusion matrix of many classes, without names: each row's shares as shades."""
    cell = size / len(matrix)
    parts = []
    for row, counts in enumerate(matrix):
        total = sum(counts)
        parts += [
            f'<rect class="{"right" if row == column else "wrong"}" fill-opacity="{0.08 + 0.92 * count / total:.2f}" '
            f'x="{column * cell:.2f}" y="{row * cell:.2f}" width="{cell:.2f}" height="{cell:.2f}"/>'
            for column, count in enumerate(counts)
            if count
        ]
    said = f"Confusion matrix of {len(matrix)} classes: rows are classes, columns are answers"
    return Markup(
        f'<svg class="heat" viewBox="0 0 {size} {size}" role="img" aria-label="{said}"><title>{said}</title>'
        f'<rect class="ground" width="{size}" height="{size}"/>{"".join(parts)}</svg>'
    )


class Axis:
    """Values from `least` to `most` as places of a chart."""

    def __init__(self, least: float, most: float) -> None:
        self.least, self.most = least, most if most > least else least + 1

    @classmethod
    def around(cls, values: Sequence[float]) -> Axis:
        """Of all values, and 0 where that is near."""
        least, most = min(values), max(values)
        spare = 0.06 * (most - least or abs(most) or 1)
        return cls(0 if 0 <= least < 0.6 * most else least - spare, most + spare)

    def across(self, value: float) -> float:
        """The place of a value on the horizontal axis."""
        return LEFT + (value - self.least) / (self.most - self.least) * (WIDTH - LEFT - RIGHT)

    def up(self, value: float) -> float:
        """The place of a value on the vertical axis."""
        return HEIGHT - BOTTOM - (value - self.least) / (self.most - self.least) * (HEIGHT - TOP - BOTTOM)

    def ticks(self, most: int = 5) -> list[float]:
        """Round numbers between the ends."""
        rough = (self.most - self.least) / most
        power = 10 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
        first = math.ceil(self.least / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.most / step + 1e-9) + 1)]


def short(number: float) -> str:
    """A number for an axis: 12000 is "12k", 0.0005 "5e-4"."""
    if number == 0:
        return "0"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= limit:
            scale = 1e3 if unit == "k" else limit
            return f"{number / scale:.3g}{unit}"
    if abs(number) < 1e-3:
        mantissa, exponent = f"{number:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{number:.4g}"


def _frame(xs: Axis | None, ys: Axis, across: str) -> str:
    """Axes, their ticks, and a grid."""
    floor, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<path class="axis" d="M{LEFT} {floor}H{right}"/>']
    for value in ys.ticks():
        up = ys.up(value)
        parts.append(f'<path class="grid" d="M{LEFT} {up:.1f}H{right}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{up + 4:.1f}" text-anchor="end">{short(value)}</text>')
    for value in [] if xs is None else xs.ticks():
        at = xs.across(value)  # type: ignore[union-attr]  # no ticks without it
        parts.append(f'<text class="tick" x="{at:.1f}" y="{floor + 14}" text-anchor="middle">{short(value)}</text>')
    middle = (LEFT + right) / 2
    parts.append(f'<text class="name" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(across)}</text>')
    return "".join(parts)


def _figure(title: str, parts: Sequence[str], keys: str, said: str) -> Markup:
    return Markup(
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(said)}">{"".join(parts)}</svg>'
        + (f'<div class="keys">{keys}</div>' if keys else "")
        + "</figure>"
    )

"""What the memory demo says of its cells: live and final tables, notes, CSV, Markdown and an HTML page."""

from __future__ import annotations

import csv
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.recording import Record, Recorder
from benchmarks.reporting import Table, seconds, size
from rich.table import Table as RichTable

from demo.cells import SECTIONS, check, points, positions_of, predictor, slope

QUANTITIES = {"peak_bytes": "memory", "seconds": "time"}
NAMES = {
    "out of memory": "OOM",
    "too slow": "slow",
    "wrong result": "wrong",
    "not installed": "absent",
    "failed": "failed",
}


@dataclass
class Results:
    """Records of the cells of one run.

    Args:
        sections: keys of SECTIONS.
        sizes: (N,) or (H, W), shortest first.
        records: of cells and of checks.
        budget: bytes of a process.
    """

    sections: Sequence[str]
    sizes: Sequence[tuple[int, ...]]
    records: Sequence[Record]
    budget: int
    current: str = field(default="")

    @property
    def dims(self) -> int:
        """1 for sequences, 2 for images."""
        return len(self.sizes[0])

    def cells(self, section: str, method: str) -> list[Record]:
        """Records of a method's cells, shortest first."""
        found = [
            one
            for one in self.records
            if (one["key"]["section"], one["key"]["method"]) == (section, method) and "check" not in one["key"]
        ]
        return sorted(found, key=positions_of)

    def checked(self, section: str, method: str) -> Record | None:
        """The record of a method's check."""
        key = {"section": section, "method": method}
        return next((one for one in self.records if "check" in one["key"] and key.items() <= one["key"].items()), None)

    def methods(self, section: str) -> list[str]:
        """Methods of a section of which there are records."""
        known = SECTIONS[section].methods(self.dims)
        return [name for name in known if self.cells(section, name) or self.checked(section, name)]

    def measured(self, section: str, method: str, quantity: str) -> list[tuple[int, float]]:
        """(positions, value) of what was measured."""
        return points(self.cells(section, method), quantity)


def size_text(lengths: Sequence[int]) -> str:
    """(1024,) -> '1,024', (32, 32) -> '32²'."""
    return f"{lengths[0]:,}" if len(lengths) == 1 else f"{lengths[0]:,}²"


def short_size(lengths: Sequence[int]) -> str:
    """(2048,) -> '2k'."""
    count = lengths[0]
    for unit, factor in (("M", 2**20), ("k", 2**10)):
        if count % factor == 0 and len(lengths) == 1:
            return f"{count // factor}{unit}"
    return size_text(lengths)


# Tables


def live_table(results: Results, width: int) -> RichTable:
    """Peak and time of each cell so far; of the longest lengths where the terminal is narrow."""
    table = RichTable(title=results.current or "done", title_justify="left", box=None, padding=(0, 1, 0, 0))
    sizes = list(results.sizes)[-max(1, (width - 26) // 7) :]
    table.add_column("", no_wrap=True)
    for lengths in sizes:
        table.add_column(short_size(lengths), justify="right", no_wrap=True)
    for section in results.sections:
        table.add_row(f"[bold]{SECTIONS[section].title}[/bold]")
        for name in results.methods(section):
            found = {tuple(cell["key"]["size"]): cell for cell in results.cells(section, name)}
            table.add_row(SECTIONS[section].label(name), *(_live_cell(found.get(lengths)) for lengths in sizes))
    return table


def _live_cell(cell: Record | None) -> str:
    if cell is None:
        return ""
    if cell["status"] != "measured":
        return f"[red]{NAMES.get(cell['status'], cell['status'])}[/red]"
    return f"{_tight(size(cell['peak_bytes']))}\n[dim]{mark(cell)}{_tight(seconds(cell['seconds']))}[/dim]"


def mark(cell: Record) -> str:
    """ "~" in front of a time that was disturbed."""
    return "~" if cell.get("disturbed") else ""


def _tight(text: str) -> str:
    number, unit = text.split(" ")
    value = float(number.replace(",", ""))
    return f"{value:.3g}{unit.replace('iB', '')}" if value < 1000 else f"{value:.0f}{unit.replace('iB', '')}"


def summary(results: Results, section: str) -> Table:
    """How far each method came, what it took there, and what it grows with."""
    rows = []
    for name in results.methods(section):
        cells = results.cells(section, name)
        measured = [cell for cell in cells if cell["status"] == "measured"]
        last = measured[-1] if measured else None
        ends = [
            f"{cell['status']} at {size_text(cell['key']['size'])}" for cell in cells if cell["status"] != "measured"
        ]
        if (checked := results.checked(section, name)) and checked["status"] != "measured":
            ends.append(f"{checked['status']}: {checked['message']}")
        slopes = [slope(results.measured(section, name, quantity)) for quantity in QUANTITIES]
        rows.append(
            (
                SECTIONS[section].label(name),
                size_text(last["key"]["size"]) if last else "–",
                size(last["peak_bytes"]) if last else "",
                mark(last) + seconds(last["seconds"]) if last else "",
                *(f"{value:.2f}" if value is not None else "" for value in slopes),
                "; ".join(ends),
            )
        )
    columns = ("", "ran through", "peak there", "time there", "memory ∝ Nˣ", "time ∝ Nˣ", "then")
    return Table(SECTIONS[section].title, columns, tuple(rows))


def whole(results: Results, section: str) -> Table:
    """Each cell."""
    rows = []
    for name in results.methods(section):
        found = {tuple(cell["key"]["size"]): cell for cell in results.cells(section, name)}
        rows.append((SECTIONS[section].label(name), *(_cell(found.get(lengths)) for lengths in results.sizes)))
    return Table(f"{SECTIONS[section].title}: peak memory, time", ("", *map(size_text, results.sizes)), tuple(rows))


def _cell(cell: Record | None) -> str:
    if cell is None:
        return ""
    if cell["status"] != "measured":
        return str(cell["status"])
    return f"{size(cell['peak_bytes'])}, {mark(cell)}{seconds(cell['seconds'])}"


# Notes


def notes(results: Results) -> list[str]:
    """What the run shows, and how far predictions are off."""
    lines = []
    for section in results.sections:
        title = SECTIONS[section].title
        fused = dict(results.measured(section, "fused", "peak_bytes"))
        expected = predictor(sorted(fused.items()), SECTIONS[section].growth("fused", "peak_bytes"))
        for name in results.methods(section):
            if name not in ("content", "local", "global", "exponential") or expected is None:
                continue
            own = results.measured(section, name, "peak_bytes")
            ratios = [(value / fused.get(count, expected(count)), count) for count, value in own]
            if ratios:
                worst, where = max(ratios)
                guessed = sum(count not in fused for _, count in ratios)
                lines.append(
                    f"{title}, {SECTIONS[section].label(name)}: {worst:.2f} times the peak of fused attention at most "
                    f"(at {where:,}), over {len(ratios)} lengths, of which attention's is predicted at {guessed}"
                )
    return [*lines, *prediction_notes(results), *load_notes(results)]


def load_notes(results: Results) -> list[str]:
    """What other programs took of the machine while cells were measured."""
    shares, again, marked = [], 0, 0
    for one in results.records:
        if one.get("others") is not None:
            shares.append(one["others"])
            again, marked = again + (one.get("taken", 1) > 1), marked + bool(one.get("disturbed"))
    if not shares:
        return []
    line = f"Other programs took {median(shares):.0%} of the cores (median of {len(shares)} cells), at most"
    line += f" {max(shares):.0%}"
    if again:
        line += f"; {again} cells were disturbed and measured again, {marked} of them in vain: ~ marks their times"
    return [line]


def prediction_notes(results: Results) -> list[str]:
    """Errors of predictions of the longest length measured, from all but the two longest."""
    lines = []
    for quantity, words in QUANTITIES.items():
        errors = []
        for section in results.sections:
            for name in results.methods(section):
                found = check(results.measured(section, name, quantity), SECTIONS[section].growth(name, quantity))
                if found is not None:
                    errors.append(
                        (
                            abs(found[1]),
                            found[1],
                            found[0],
                            f"{SECTIONS[section].title}, {SECTIONS[section].label(name)}",
                        )
                    )
        if errors:
            _, worst, count, name = max(errors)
            lines.append(
                f"Predictions of {words} at 4 times the longest length they are made from, against what was measured "
                f"there: off by {median(error[0] for error in errors):.0%} (median of {len(errors)} lines), at most by "
                f"{worst:+.0%} ({name}, {count:,})"
            )
    out = [
        cell
        for section in results.sections
        for name in results.methods(section)
        for cell in results.cells(section, name)
        if cell["status"] == "out of memory"
    ]
    if out:
        beyond = 0
        for cell in out:
            section, name = cell["key"]["section"], cell["key"]["method"]
            expected = predictor(
                results.measured(section, name, "peak_bytes"), SECTIONS[section].growth(name, "peak_bytes")
            )
            beyond += expected is not None and expected(positions_of(cell)) > results.budget
        lines.append(
            f"Out of memory in {len(out)} cells; the prediction is above the budget of {size(results.budget)} in "
            f"{beyond} of them"
        )
    return lines


# Files


def write_csv(file: Path, results: Results) -> None:
    """A row for each section, method and length, with what is predicted in columns of its own."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            [
                "section",
                "method",
                "size",
                "positions",
                "status",
                "peak_bytes",
                "seconds",
                "repeats",
                "others",
                "disturbed",
                "predicted_peak_bytes",
                "predicted_seconds",
                "message",
            ]
        )
        for section in results.sections:
            for name in results.methods(section):
                cells = {tuple(cell["key"]["size"]): cell for cell in results.cells(section, name)}
                expected = [
                    predictor(results.measured(section, name, one), SECTIONS[section].growth(name, one))
                    for one in QUANTITIES
                ]
                for lengths in results.sizes:
                    cell = cells.get(lengths, {"status": "predicted" if expected[0] else "not run", "message": ""})
                    count = lengths[0] if len(lengths) == 1 else lengths[0] * lengths[1]
                    guesses = [f"{one(count):.6g}" if one else "" for one in expected]
                    row = [
                        cell.get(one) for one in ("status", "peak_bytes", "seconds", "repeats", "others", "disturbed")
                    ]
                    writer.writerow(
                        [section, name, "x".join(map(str, lengths)), count, *row, *guesses, cell["message"]]
                    )


def write_markdown(file: Path, recorder: Recorder, tables: Sequence[Table], lines: Sequence[str]) -> None:
    """Command, machine, tables and notes."""
    parts = [f"`{recorder.command}`", described(recorder), *(table.markdown() for table in tables), *lines]
    file.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def described(recorder: Recorder) -> str:
    """The machine in a line."""
    return " · ".join(f"{name.replace('_', ' ')} {value}" for name, value in recorder.machine.items())


STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#222}
svg{width:100%;height:auto}table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}
td,th{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}
td:first-child,td:last-child{text-align:left}code{background:#f3f3f3;padding:.1rem .3rem}"""


def write_html(
    file: Path, title: str, recorder: Recorder, pictures: Sequence[Path], tables: Sequence[Table], lines: Sequence[str]
) -> None:
    """One page with everything in it, pictures too."""
    parts = [f"<h1>{html.escape(title)}</h1>", f"<p><code>{html.escape(recorder.command)}</code></p>"]
    parts.append(f"<p>{html.escape(described(recorder))}</p>")
    for picture in pictures:
        text = picture.read_text(encoding="utf-8")
        parts.append(text[text.index("<svg") :])
    parts += [f"<p>{html.escape(line)}</p>" for line in lines]
    parts += [_html_table(table) for table in tables]
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
    page = f"{head}<style>{STYLE}</style><body>"
    file.write_text(page + "\n".join(parts) + "</body></html>\n", encoding="utf-8")


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.columns)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f"<h2>{html.escape(table.title)}</h2><table><tr>{head}</tr>{rows}</table>"

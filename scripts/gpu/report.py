"""Files of the GPU report: Markdown, pictures, and the records that both are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.recording import Record, Recorder
from benchmarks.reporting import Table, plot_curves

from gpu import aims, layers, memory, training
from gpu.running import Section, Settings
from gpu.sections import SECTIONS

ROOT = Path(__file__).resolve().parents[2]
FILES = 8  # at most


def fingerprint() -> str:
    """A number that changes with the code that is measured or measures."""
    found = hashlib.sha256()
    for folder in ("lambda_seq", "scripts/gpu", "scripts/benchmarks", "scripts/demo"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            found.update(file.read_bytes())
    return found.hexdigest()[:12]


def by_section(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by section, with the keys that sections gave them."""
    found: dict[str, list[Record]] = {name: [] for name in SECTIONS}
    for one in records:
        found[one["key"]["section"]].append({**one, "key": one["key"]["cell"]})
    return found


def missing(section: Section, records: Sequence[Record], settings: Settings) -> list[Record]:
    """Keys of the cells that there are no records of."""
    known = [one["key"] for one in records]
    return [key for key in section.cells(settings) if key not in known]


def write(recorder: Recorder, settings: Settings, notes: Sequence[str], *, drawn: bool = True) -> list[Path]:
    """Write the report, and its pictures unless not `drawn`, beside the records; the files of the folder."""
    folder, records = recorder.file.parent, by_section(recorder.records)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = list(draw(folder, records, settings)) if drawn else []
    lines = [*_head(recorder, settings, notes), *_body(records, settings)]
    lines += [f"![{file.stem}]({file.name})" for file in pictures]
    (folder / "report.md").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return sorted(folder.iterdir())


def draw(folder: Path, records: Mapping[str, Sequence[Record]], settings: Settings) -> Iterator[Path]:
    """The pictures, of what there are records of; none without matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return
    lines = layers.series(records["layers"])
    if any(line.points for line in lines):
        case = layers.base(settings)
        title = f"Forward + backward of what mixes positions ({case.dim} channels, {case.heads} heads, {case.dtype})"
        plot_curves(folder / "layers.png", title, "milliseconds", [line for line in lines if line.points])
        yield folder / "layers.png"
    memory.picture(folder / "memory.png", records["memory"], settings)
    curves = training.series(records["training"])
    if curves:
        plot_losses(folder / "training.png", curves)
    yield from (file for file in (folder / "memory.png", folder / "training.png") if file.exists())


def plot_losses(file: Path, curves: Sequence[object]) -> None:
    """Losses against steps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), dpi=120, layout="constrained")
    for line in curves:
        axes.plot(*zip(*(point[:2] for point in line.points), strict=True), label=line.label)  # type: ignore[attr-defined]
    axes.set(xlabel="step", ylabel="loss", xscale="log", yscale="log")
    axes.set_title("Trainings on generated data, bf16", loc="left", fontsize=12)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file)
    plt.close(figure)


def _head(recorder: Recorder, settings: Settings, notes: Sequence[str]) -> Iterator[str]:
    yield "# GPU report" if settings.device == "cuda" else "# GPU report, tried on a CPU"
    yield f"`{recorder.command}`"
    yield " · ".join(f"{name.replace('_', ' ')} {value}" for name, value in recorder.machine.items())
    if settings.tiny:
        yield "Tiny sizes: this shows that everything works, and its times mean nothing."
    yield "\n".join(f"- {note}" for note in notes)


def _body(records: Mapping[str, Sequence[Record]], settings: Settings) -> Iterator[str]:
    failed = list(aims.failures(records))
    if failed:
        yield "## Failed\n\n" + "\n".join(f"- {line}" for line in failed)
    if settings.device == "cuda":
        yield f"## Aims\n\n{aims.table(records).markdown()}"
    for name, section in SECTIONS.items():
        found = records[name]
        yield f"## {section.title}"
        left = len(missing(section, found, settings))
        if left:
            yield f"{left} of {left + len(found)} cells were not run: there was no time left, or --only left them out."
        if not found:
            continue
        try:
            for part in section.parts(found, settings):
                if not isinstance(part, Table):
                    yield part
                elif part.rows:
                    yield part.markdown()
        except Exception as error:  # records of a cell that nobody foresaw cost no other section
            yield f"This section could not be written: {type(error).__name__}: {error}. Its records are in report.json."

"""Section layers: forward and backward of what mixes positions, ours beside attention, convolutions and the limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace

import torch
from benchmarks import comparing, peers
from benchmarks.methods import Case
from benchmarks.recording import Record
from benchmarks.reporting import Series, Table, number, seconds

from gpu.cores import CORES, chosen, content_chosen, moved_bytes, verify
from gpu.running import Part, Section, Settings
from gpu.timing import fastest, kernels

LENGTHS = tuple(4**power for power in range(5, 12))  # 1,024 to 4,194,304
FIRST = (4**8, 4**7)  # those that something is aimed at are measured first
WHOLE = ("local", "global", "content", "fused")  # whole layers, of benchmarks.peers
SCOPED = {"local-23": ("local", 23), "local-63": ("local", 63), "local-127": ("local", 127), "causal": ("causal", 127)}
DTYPE = {"cuda": "bfloat16", "cpu": "float32"}


def base(settings: Settings) -> Case:
    """What all cases share."""
    sizes = {"dim": 16, "heads": 2, "dim_key": 4} if settings.tiny else {}
    return Case((1,), scope=127, dtype=DTYPE[settings.device], device=settings.device, **sizes)


def cells(settings: Settings) -> list[Record]:
    """Cores and whole layers at the lengths with an aim, then cores at the others."""
    lengths = settings.sized([*FIRST, *(n for n in LENGTHS if n not in FIRST)], [300, 600])
    names = settings.sized([name for name in CORES if name != "window"], ["local-23", "content", "fused", "copy"])
    window = [] if settings.device == "cpu" else ["window"]  # it has no backward there
    wanted = [("core", name, n) for n in lengths[:2] for name in names]
    wanted += [("core", name, n) for name in window for n in lengths[:2]]  # it is compiled: that takes a while
    wanted += [("layer", name, n) for n in lengths[:2] for name in settings.sized(WHOLE, ("local", "fused"))]
    wanted += [("core", name, n) for n in lengths[2:] for name in names]
    return [key(kind, name, replace(base(settings), size=(n,))) for kind, name, n in wanted]


def key(kind: str, method: str, case: Case) -> Record:
    """What a cell is found by."""
    return {"kind": kind, "method": method, **asdict(case), "size": list(case.size)}


def case_of(key: Record) -> Case:
    """The case of a cell."""
    return comparing.case_of({name: value for name, value in key.items() if name != "kind"})


def run(key: Record, settings: Settings) -> Record:
    """Check, then time."""
    case = case_of(key)
    if key["kind"] == "layer":
        method = peers.METHODS[key["method"]]
        method.verify(case)
        step = method.prepare(case)
        return {"both": fastest(step, case.device, settings.patience)}
    core = CORES[key["method"]]
    if case.positions > core.longest:
        return {"status": "predicted", "message": f"longer than {core.longest:,}: by its growth"}
    off = verify(core, case)
    function, tensors = core.make(case)
    found: Record = {"off": off, "moved": moved_bytes(case)}
    if key["method"] in SCOPED or key["method"] == "global":
        kind, scope = SCOPED.get(key["method"], ("global", case.scope))
        found["chosen"] = list(chosen(kind, replace(case, scope=scope)))
    if key["method"] in ("content", "causal"):
        found["content"] = list(content_chosen(key["method"], case))
    forward = torch.no_grad()(lambda: function(*tensors))
    found["forward"] = fastest(forward, case.device, settings.patience)
    steps: list[tuple[str, Callable[[], object]]] = [("forward", forward)]
    if core.learns:
        grad = torch.randn_like(forward())

        def both() -> None:
            torch.autograd.grad(function(*tensors), tensors, grad)

        found["both"] = fastest(both, case.device, settings.patience)
        steps.append(("both", both))
    if "scan" in found.get("content", ()):  # torch's operations ask the GPU how steep keys are
        return found
    for name, step in steps:
        alone = kernels(step, case.device, settings.patience)
        if alone is not None:
            found[f"{name}_kernels"] = alone
    return found


# Reading records


def number_of(record: Record | None, pass_: str, kernels: bool = True) -> float | None:
    """Seconds of a pass, "forward", "backward" or "both", of its kernels alone if that was measured; None without."""
    if record is None:
        return None
    names = [f"{pass_}_kernels", pass_] if kernels else [pass_]
    if pass_ == "backward":
        suffix = "_kernels" if kernels and {"forward_kernels", "both_kernels"} <= record.keys() else ""
        if f"both{suffix}" not in record:
            return None
        return max(record[f"both{suffix}"] - record[f"forward{suffix}"], 1e-9)
    return next((record[name] for name in names if record.get(name) is not None), None)


class Times:
    """Seconds by kind, method and length, of what was measured and right; predicted by the growth of a method."""

    def __init__(self, records: Sequence[Record], kernels: bool = True) -> None:
        self.kernels = kernels
        self.records = {
            (one["key"]["kind"], one["key"]["method"], one["key"]["size"][0]): one
            for one in records
            if one["status"] == "measured"
        }
        self.asked = {(one["key"]["kind"], one["key"]["method"], one["key"]["size"][0]): one for one in records}

    @property
    def lengths(self) -> list[int]:
        """Those that there are records of."""
        return sorted({n for _, _, n in self.asked})

    def get(self, kind: str, method: str, length: int, pass_: str) -> float | None:
        """What was measured."""
        return number_of(self.records.get((kind, method, length)), pass_, self.kernels)

    def expected(self, method: str, length: int, pass_: str) -> float | None:
        """What was measured of a core, or what follows from the longest length below."""
        found = self.get("core", method, length, pass_)
        shorter = [
            (n, value)
            for kind, name, n in self.records
            if (kind, name) == ("core", method) and n < length
            for value in [self.get(kind, name, n, pass_)]
            if value is not None
        ]
        asked = self.asked.get(("core", method, length))
        if found is not None or not shorter or asked is None or asked["status"] != "predicted":
            return found
        n, value = max(shorter)
        return value * (length / n) ** CORES[method].growth


def parts(records: Sequence[Record], settings: Settings) -> Iterator[Part]:
    """Times of the kernels and as called, ratios to fused attention, and what the plan chose."""
    for kernels_, title in (
        (True, "the kernels alone (CUDA graphs) where they could be recorded"),
        (False, "as called"),
    ):
        times = Times(records, kernels_)
        if not kernels_ and not any("forward_kernels" in one for one in records):
            continue
        for pass_ in ("forward", "backward"):
            yield _table(f"{pass_.capitalize()}, {title if settings.device == 'cuda' else 'as called'}", times, pass_)
    if any(one["status"] == "predicted" for one in records):
        yield "\\* predicted from the longest length that was measured, by n², or by n for what is linear."
    yield _ratios(Times(records))
    whole = Times(records, kernels=False)
    if any(kind == "layer" for kind, _, _ in whole.records):
        rows = [
            (peers.METHODS[name].label, *(seconds(whole.get("layer", name, n, "both")) for n in whole.lengths))
            for name in WHOLE
            if any(one["key"]["kind"] == "layer" and one["key"]["method"] == name for one in records)
        ]
        columns = ("whole layers, with projections", *(f"{n:,}" for n in whole.lengths))
        yield Table("Forward + backward of whole layers", columns, tuple(rows))
    picks = {
        f"{CORES[one['key']['method']].label} at {one['key']['size'][0]:,}: {' and '.join(one['chosen'])}"
        for one in records
        if "chosen" in one
    }
    picks |= {
        f"content of {CORES[one['key']['method']].label} at {one['key']['size'][0]:,}: {' and '.join(one['content'])}"
        for one in records
        if "content" in one
    }
    if picks:
        yield "Chosen by the plan, forward and backward: " + "; ".join(sorted(picks)) + "."


def _table(title: str, times: Times, pass_: str) -> Table:
    rows = []
    for name, core in CORES.items():
        if pass_ == "backward" and not core.learns:
            continue
        cells_ = [_cell(times, name, n, pass_) for n in times.lengths]
        if any(cells_):
            rows.append((core.label, *cells_))
    return Table(title, ("", *(f"{n:,}" for n in times.lengths)), tuple(rows))


def _cell(times: Times, name: str, length: int, pass_: str) -> str:
    record = times.asked.get(("core", name, length))
    if record is None:
        return ""
    value = times.expected(name, length, pass_)
    if value is None:
        return "" if record["status"] in ("measured", "predicted") else record["status"]
    return seconds(value) + (" *" if record["status"] == "predicted" else "")


def _ratios(times: Times) -> Table:
    """How many times faster than fused attention each is, forward and backward together."""
    rows = []
    for name, core in CORES.items():
        cells_ = []
        for n in times.lengths:
            ours, peer = (times.expected(one, n, "both") for one in (name, "fused"))
            cells_.append("" if ours is None or peer is None or name == "fused" else f"{number(peer / ours)}×")
        if any(cells_) and core.learns:
            rows.append((core.label, *cells_))
    return Table(
        "Times as fast as fused attention, forward + backward", ("", *(f"{n:,}" for n in times.lengths)), tuple(rows)
    )


def series(records: Sequence[Record]) -> list[Series]:
    """Lines of a picture: forward + backward in milliseconds over length."""
    times, lines = Times(records), []
    for style, (name, core) in enumerate(CORES.items()):
        points = tuple(
            (float(n), 1e3 * value, times.get("core", name, n, pass_) is None)
            for n in times.lengths
            for pass_ in ["both" if core.learns else "forward"]
            for value in [times.expected(name, n, pass_)]
            if value is not None and math.isfinite(value)
        )
        lines.append(Series(core.label, style, points))
    return lines


SECTION = Section("layers", "One layer: time against length", 100, cells, run, parts)

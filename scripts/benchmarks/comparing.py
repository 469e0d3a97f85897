"""Ratios from records: which method is compared with which, what is aimed at, and tables of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from benchmarks.methods import Case
from benchmarks.peers import METHODS
from benchmarks.recording import Record
from benchmarks.reporting import Series, Table, number, seconds, size

PHOTO = Case((56, 56), batch=8, dim=64, scope=23)
SQUARE = Case((64, 64), scope=23)


@dataclass(frozen=True)
class Pair:
    """Two methods to compare.

    Args:
        ours, peer: keys of METHODS.
        aims: ratio wanted by number of positions, 0 for any; only for the standard sizes.
        quantity: "seconds" or "peak_bytes".
        limit: the peer is a limit, and the ratio is how many times as long ours takes, at most the aim.
    """

    ours: str
    peer: str
    aims: dict[int, float]
    quantity: str = "seconds"
    limit: bool = False

    def aim(self, case: Case) -> float | None:
        """The ratio wanted in a case, if there is one; limits are set for sequences."""
        if case not in (Case(case.size), *([] if self.limit else [PHOTO, SQUARE])):
            return None
        return self.aims.get(case.positions, self.aims.get(0))

    def words(self, ratio: float) -> str:
        """The ratio as a table says it."""
        if self.limit:
            return f"{number(ratio)}× its time"
        more, less = ("faster", "slower") if self.quantity == "seconds" else ("less memory", "more memory")
        return f"{number(ratio)}× {more}" if ratio >= 1 else f"{number(1 / ratio)}× {less}"


PAIRS = (
    Pair("local", "fused", {16_384: 40, 65_536: 150}),
    Pair("global", "fused", {16_384: 20, 65_536: 60}),
    Pair("local", "materialised", {}),
    Pair("local", "local-attention", {0: 3}),
    Pair("local", "local-attention-blocks", {0: 3}),
    Pair("local", "lambda-networks", {0: 4}),
    Pair("local", "lambda-networks", {}, "peak_bytes"),
    Pair("global", "lambda-networks-global", {0: 10}),
    Pair("global", "lambda-networks-global", {0: 20}, "peak_bytes"),
    Pair("local", "products", {0: 3}, limit=True),
    Pair("local", "copy", {}, limit=True),
)


def key_of(method: str, case: Case) -> Record:
    """What a record is found by."""
    return {"method": method, **asdict(case), "size": list(case.size)}


def case_of(key: Record) -> Case:
    """The case in a record's key."""
    sizes = {name: value for name, value in key.items() if name != "method"}
    return Case(**{**sizes, "size": tuple(key["size"])})


def by_case(records: Sequence[Record]) -> dict[Case, dict[str, Record]]:
    """Records by case and method, shortest first, methods in the order of METHODS."""
    order = list(METHODS)
    found: dict[Case, dict[str, Record]] = {}
    for record in sorted(records, key=lambda record: order.index(record["key"]["method"])):
        found.setdefault(case_of(record["key"]), {})[record["key"]["method"]] = record
    return dict(sorted(found.items(), key=lambda item: (len(item[0].size), item[0].positions)))


def has(record: Record, quantity: str = "seconds") -> bool:
    """Whether a number was measured or predicted."""
    return record["status"] in ("measured", "predicted") and record[quantity] is not None


def note(record: Record) -> str:
    """What is to be said about a record."""
    words = [] if record["status"] == "measured" else [record["status"]]
    words += [record["message"]] if record["message"] else []
    return ", ".join(words)


def time_tables(records: Sequence[Record]) -> Iterator[Table]:
    """One table for each case, with times and peaks of all methods."""
    for case, methods in by_case(records).items():
        rows = [
            (
                METHODS[name].label,
                seconds(record["seconds"]),
                str(record["repeats"] or ""),
                size(peak),
                load,
                note(record),
            )
            for name, record in methods.items()
            for peak in [None if METHODS[name].limit else record["peak_bytes"]]
            for load in ["" if record["others"] is None else f"{record['others']:.0%}"]
        ]
        title = f"{case}, dim {case.dim}, heads {case.heads}, k {case.dim_key}, scope {case.scope}, {case.dtype}"
        yield Table(
            title, ("method", "forward + backward", "steps", "peak over inputs", "others' load", ""), tuple(rows)
        )


def ratio_table(records: Sequence[Record]) -> Table:
    """All pairs of which both were tried; no ratio where one has no result, or a wrong one."""
    rows = []
    for case, methods in by_case(records).items():
        for pair in PAIRS:
            if pair.ours in methods and pair.peer in methods:
                ours, peer = methods[pair.ours], methods[pair.peer]
                cells = (f"{METHODS[pair.ours].label}, {case}", METHODS[pair.peer].label)
                rows.append((*cells, *_ratio(pair, ours, peer, pair.aim(case))))
    return Table("Ratios", ("case", "against", "ratio", "aim", ""), tuple(rows))


def _ratio(pair: Pair, ours: Record, peer: Record, aim: float | None) -> tuple[str, str, str]:
    wanted = "" if aim is None else f"{'≤' if pair.limit else '≥'} {aim:g}×"
    missing = [record for record in (ours, peer) if not has(record, pair.quantity)]
    if missing:
        return "–", wanted, "; ".join(f"{record['label']}: {note(record)}" for record in missing)
    ratio = peer[pair.quantity] / ours[pair.quantity]
    if pair.limit:
        ratio = 1 / ratio
    words = ["predicted"] if "predicted" in (ours["status"], peer["status"]) else []
    if aim is not None:
        words.append("reached" if (ratio <= aim if pair.limit else ratio >= aim) else "missed")
    return pair.words(ratio), wanted, ", ".join(words)


def memory_table(records: Sequence[Record]) -> Table:
    """Peaks by length and method, each with its ratio to that at half the length."""
    cases = by_case(records)
    names = list(dict.fromkeys(name for methods in cases.values() for name in methods))
    rows = []
    for case, methods in cases.items():
        cells = [str(case)]
        for name in names:
            record = methods.get(name)
            cells.append("" if record is None else _peak(record, _half(records, record)))
        rows.append(tuple(cells))
    labels = [METHODS[name].label for name in names]
    return Table(
        "Peak memory of a step over inputs and weights (× that at half the length)", ("", *labels), tuple(rows)
    )


def _peak(record: Record, half: Record | None) -> str:
    if not has(record, "peak_bytes"):
        return note(record)
    text = size(record["peak_bytes"]) + (" predicted" if record["status"] == "predicted" else "")
    return text if half is None else f"{text} (×{record['peak_bytes'] / half['peak_bytes']:.2f})"


def _half(records: Sequence[Record], record: Record) -> Record | None:
    """The record of the same method at half the length."""
    wanted = {**record["key"], "size": [length / 2 for length in record["key"]["size"]]}
    found = (other for other in records if other["key"] == wanted and has(other, "peak_bytes"))
    return next(found, None)


def memory_checks(records: Sequence[Record], doubling: float = 2.1) -> list[str]:
    """Whether our peaks at most double with the length, and stay below fused attention's."""
    lines = []
    for name in ("local", "global", "content"):
        mine = [record for record in records if record["key"]["method"] == name and has(record, "peak_bytes")]
        pairs = [(record, half) for record in mine if (half := _half(records, record)) is not None]
        if pairs:
            worst = max(record["peak_bytes"] / half["peak_bytes"] for record, half in pairs)
            lines.append(
                f"{METHODS[name].label}: twice the length takes ×{worst:.2f} at most, "
                f"{'within' if worst <= doubling else 'more than'} ×{doubling}"
            )
        fused = {str(r["key"]["size"]): r for r in records if r["key"]["method"] == "fused" and has(r, "peak_bytes")}
        both = [(record, fused[str(record["key"]["size"])]) for record in mine if str(record["key"]["size"]) in fused]
        if both:
            worst = max(record["peak_bytes"] / peer["peak_bytes"] for record, peer in both)
            lines.append(
                f"{METHODS[name].label}: {worst:.2f} times the peak of fused attention at most, over "
                f"{len(both)} lengths ({sum(peer['status'] == 'predicted' for _, peer in both)} predicted)"
            )
        largest = max(mine, key=lambda record: record["key"]["size"], default=None)
        if largest is not None:
            lines.append(
                f"{METHODS[name].label}: a step at {largest['key']['size'][0]:,} fits in "
                f"{size(largest['total_bytes'])} with inputs, weights and Python; it took {seconds(largest['seconds'])}"
                + (f", other processes {busy:.0%} of the cores" if (busy := largest["others"] or 0) > 0.1 else "")
            )
    return lines


def series(records: Sequence[Record], value: str, scale: float) -> list[Series]:
    """Lines over length, one for each method, of a quantity times `scale`; limits are left out."""
    lines: dict[str, list[tuple[float, float, bool]]] = {}
    for case, methods in by_case(records).items():
        for name, record in methods.items():
            if len(case.size) == 1 and has(record, value) and not METHODS[name].limit:
                point = (case.size[0], scale * record[value], record["status"] == "predicted")
                lines.setdefault(name, []).append(point)
    order = list(METHODS)
    return [Series(METHODS[name].label, order.index(name), tuple(points)) for name, points in lines.items()]

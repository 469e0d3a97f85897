"""What is aimed at on a GPU, beside what was measured: met, not met, or not measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks import comparing
from benchmarks.recording import Record
from benchmarks.reporting import Table, number

from gpu import images, layers, long, pictures, rates
from gpu.layers import Times

ByName = Mapping[str, Sequence[Record]]


@dataclass(frozen=True)
class Aim:
    """A figure that is wanted.

    Args:
        what: it is.
        wanted: least value, or greatest if `most`.
        found: it, from records by section; None if it was not measured.
        unit: behind figures.
        most: whether less is better.
    """

    what: str
    wanted: float
    found: Callable[[ByName], float | None]
    unit: str = "×"
    most: bool = False

    def row(self, records: ByName) -> tuple[str, str, str, str]:
        """What, wanted, found, and whether it is met."""
        found = self.found(records)
        wanted = f"{'≤' if self.most else '≥'} {self.wanted:g}{self.unit}"
        if found is None:
            return self.what, wanted, "", "not measured"
        met = found <= self.wanted if self.most else found >= self.wanted
        return self.what, wanted, f"{number(found)}{self.unit}", "met" if met else "not met"


def _share_of_copy(length: int) -> Callable[[ByName], float | None]:
    def found(records: ByName) -> float | None:
        times = Times(records.get("layers", ()))
        ours, copy = times.get("core", "local-127", length, "forward"), times.get("core", "copy", length, "forward")
        return None if ours is None or copy is None else 100 * copy / ours

    return found


def _backward_over_forward(length: int) -> Callable[[ByName], float | None]:
    def found(records: ByName) -> float | None:
        times = Times(records.get("layers", ()))
        both = [times.get("core", "local-127", length, name) for name in ("backward", "forward")]
        return None if both[0] is None or both[1] is None else both[0] / both[1]

    return found


def _times_as_fast(ours: str, peer: str, length: int) -> Callable[[ByName], float | None]:
    def found(records: ByName) -> float | None:
        times = Times(records.get("layers", ()))
        mine, theirs = (times.expected(name, length, "both") for name in (ours, peer))
        return None if mine is None or theirs is None else theirs / mine

    return found


def _image(records: ByName) -> float | None:
    case = replace(comparing.PHOTO, device="cuda", dtype="float32")
    return images.ratio(records.get("images", ()), case)


def _pictures(train: bool) -> Callable[[ByName], float | None]:
    def found(records: ByName) -> float | None:
        rates_ = [pictures.rate(records.get("pictures", ()), network, 224, train) for network in (0, 1)]
        return None if rates_[0] is None or rates_[1] is None else rates_[0] / rates_[1]

    return found


def _growth(records: ByName) -> float | None:
    return long.growth(records.get("long", ()))


def _choices(records: ByName) -> float | None:
    found = rates.choices(records.get("rates", ()))
    return 100 * sum(ratio <= rates.ENOUGH for ratio in found) / len(found) if found else None


AIMS = (
    *(
        Aim(f"local, scope 127, bf16, {n:,}: forward, of the speed of a copy", 60, _share_of_copy(n), " %")
        for n in sorted(layers.FIRST)
    ),
    *(
        Aim(f"local, scope 127, bf16, {n:,}: backward over forward", 3, _backward_over_forward(n), most=True)
        for n in sorted(layers.FIRST)
    ),
    Aim("local, scope 127, 65,536: faster than flash attention", 100, _times_as_fast("local-127", "fused", 65536)),
    Aim("global, 65,536: faster than flash attention", 20, _times_as_fast("global", "fused", 65536)),
    Aim("local, 65,536: faster than flex_attention, window 127", 3, _times_as_fast("local-127", "window", 65536)),
    Aim("2D, scope 23, (8, 64, 56, 56), float32: faster than pip's lambda-networks", 20, _image),
    Aim("LambdaResNet-50, 224², training: pictures a second of ResNet-50's", 0.5, _pictures(True)),
    Aim("LambdaResNet-50, 224², evaluation: pictures a second of ResNet-50's", 0.5, _pictures(False)),
    Aim("four times the positions: memory over four times the memory", 1.05, _growth, most=True),
    Aim(f"choices of the plan within {rates.ENOUGH} times the fastest", 90, _choices, " %"),
)


def table(records: ByName) -> Table:
    """All of them."""
    return Table("Aims", ("", "aim", "measured", "result"), tuple(aim.row(records) for aim in AIMS))


def failures(records: ByName) -> Iterator[str]:
    """A line for each cell that failed or was wrong."""
    for name, found in records.items():
        for one in found:
            if one["status"] in ("failed", "wrong result", "out of time"):
                words = ", ".join(str(value) for value in one["key"].values() if not isinstance(value, dict | list))
                yield f"{name} ({words}): {one['status']}, {one['message']}"

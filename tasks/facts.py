"""Facts: what a data module says of its data, typed, and what of it a checkpoint has to agree with.

    Facts(kind="image", options={"num_classes": 2, "in_channels": 3, "image_size": [8, 8]}, labels=["a", "b"],
          pixels=Pixels(mean=[…], std=[…], background="white"))
    Facts(kind="waveform", options=…, labels=…, audio=Audio(sampling_rate=16000, max_length=16000))
    Facts(kind="features", options=…, labels=…, series=Series(channels=["x", "y"], mean=[…], std=[…]))
    Facts(kind="tokens", options=…, labels=…, tokens=Vocabulary(kind="bytes", vocab_size=257, …))

A checkpoint holds facts as primitives, `facts.to_dict()`: {"input": kind, "options": {…}, "labels": […]}, beside them
the entries of pixels {"mean", "std", "background", "full_scale", "size"}, and "audio": {…}, "series": {…},
"tokens": {…}, "baselines": {…}. What is None, or empty, is left out. `Facts.from_dict` reads them, also of checkpoints
that lack newer entries.

What is special about a modality is a `Part`, a line of `PARTS` in `lambda_seq.inference.records`, and a field of
`Facts`: its own fields, the front end that makes the network's input of a batch, what a saved model needs to know, and
by `agreed` and `read_alike` which fields a checkpoint has to share, and what to give if it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from torch import nn

from lambda_seq.inference.records import FLAT, PARTS, VERSION, Audio, Part, Pixels, Series, Vocabulary

__all__ = ["Audio", "Facts", "Kind", "Part", "Pixels", "Series", "Target", "TargetKind", "Vocabulary"]

Kind = Literal["tokens", "features", "waveform", "image"]
TargetKind = Literal["classes", "labels", "numbers", "tags"]
SIZES = ("in_channels", "image_size", "max_length")  # options that tell how the input of a saved model looks


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is known of a row.

    Attributes:
        kind: "classes", one of them; "labels", any of several; "numbers"; or "tags", a label for each of its words.
        rows: that are trained on, where they are counted; words of those that have tags.
        counts: those of each class, label or tag.
        mean, std: of each number in the training rows; None of classes and labels.
    """

    kind: TargetKind = "classes"
    rows: int | None = None
    counts: list[int] | None = None
    mean: list[float] | None = None
    std: list[float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """All that is known, as primitives."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) != one.default}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a model has to know of its data.

    Attributes:
        kind: what a network has to take: "image" (B, C, H, W), "features" (B, N, C), "waveform" (B, N) or "tokens"
            (B, N).
        options: arguments of networks that follow from the data, for those that take them: num_classes, in_channels,
            image_size, vocab_size, max_length.
        labels: names of the classes, labels or numbers, in order; None where there are none.
        target: what is known of a row, which decides what a `Classification` learns.
        pixels, audio, series, tokens: what is special about pictures, audio, series and text; None of other data.
        baselines: accuracies of simple rules by stage ("val", "test") and name, shown beside the network's.
        instead: for a kind that these data could be as well, what makes them so, "turn images into sequences of pixels
            with --data.as_sequence true"; a network that takes it is told of. Not stored.

    Raises:
        ValueError: no such kind.
    """

    kind: Kind
    options: dict[str, Any] = field(default_factory=dict)
    labels: list[str] | None = None
    target: Target = Target()
    pixels: Pixels | None = None
    audio: Audio | None = None
    series: Series | None = None
    tokens: Vocabulary | None = None
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    instead: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"facts: kind={self.kind!r}; expected one of {', '.join(map(repr, get_args(Kind)))}")

    @classmethod
    def of(cls, facts: Facts | Mapping[str, Any]) -> Facts:
        """Facts as they are, or read from primitives."""
        return facts if isinstance(facts, Facts) else cls.from_dict(facts)

    def to_dict(self) -> dict[str, Any]:
        """As primitives, for a checkpoint; see the module."""
        stored: dict[str, Any] = {} if self.labels is None else {"labels": list(self.labels)}
        stored |= {"input": self.kind, "options": dict(self.options)}
        stored |= {"target": known} if (known := self.target.to_dict()) else {}
        for name, part in self.parts.items():
            stored |= part.to_dict() if name == FLAT else {name: part.to_dict()}
        return stored | ({"baselines": self.baselines} if self.baselines else {})

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Facts:
        """What `to_dict` gave, in this version or an earlier one.

        Raises:
            ValueError: no kind of data, or an entry that there is not.
        """
        rest = dict(stored)
        if "input" not in rest:
            raise ValueError("facts: they lack the entry 'input', what the data are; give those of a data module")
        given = {name: rest.pop(name, None) for name in PARTS if name != FLAT}
        given[FLAT] = {one.name: rest.pop(one.name) for one in fields(PARTS[FLAT]) if one.name in rest}
        parts: dict[str, Any] = {name: PARTS[name].from_dict(part) for name, part in given.items() if part}
        found = cls(
            kind=rest.pop("input"),
            options=dict(rest.pop("options", {})),
            labels=rest.pop("labels", None),
            target=Target(**rest.pop("target", {})),
            baselines=rest.pop("baselines", {}),
            **parts,
        )
        unknown = list(rest)
        if unknown:
            raise ValueError(f"facts: unknown entries {', '.join(unknown)}; `tasks.facts.Facts` says which there are")
        return found

    @property
    def parts(self) -> dict[str, Part]:
        """Those that these data have, by name."""
        parts = ((name, getattr(self, name)) for name in PARTS)
        return {name: part for name, part in parts if part is not None}

    def frontend(self) -> nn.Module | None:
        """What makes the network's input of a batch; None if the batch is that input."""
        made = (part.frontend() for part in self.parts.values())
        return next((frontend for frontend in made if frontend is not None), None)

    def preparation(self) -> dict[str, Any]:
        """What a saved model has to say of how its input is made."""
        kept: dict[str, Any] = {"version": VERSION, "input": self.kind}
        for name, part in self.parts.items():
            kept |= part.preparation() if name == FLAT else {name: part.preparation()}
        return kept | {name: self.options[name] for name in SIZES if name in self.options}

    def check(self, theirs: Facts, *, predicting: bool = False) -> None:
        """That a checkpoint's facts agree with these, of the data that are there now.

        Args:
            theirs: of the checkpoint.
            predicting: whether what is read of each input has to be the same, too.

        Raises:
            ValueError: they do not; says what differs, and what to give.
        """
        for name, part in self.parts.items():
            if name in theirs.parts:
                part.check(theirs.parts[name], predicting=predicting)

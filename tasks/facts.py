"""Facts: what a data module says of its data, typed, and what of it a checkpoint has to agree with.

    Facts(kind="image", options={"num_classes": 2, "in_channels": 3, "image_size": [8, 8]}, labels=["a", "b"],
          pixels=Pixels(mean=[…], std=[…], background="white"))
    Facts(kind="waveform", options=…, labels=…, audio=Audio(sampling_rate=16000, max_length=16000))
    Facts(kind="tokens", options=…, labels=…, tokens=Vocabulary(kind="bytes", vocab_size=257, …))

A checkpoint holds facts as primitives, `facts.to_dict()`: {"input": kind, "options": {…}, "labels": […]}, beside them
the entries of pixels {"mean", "std", "background", "full_scale"}, and "audio": {…}, "tokens": {…}, "baselines": {…}.
What is None, or empty, is left out. `Facts.from_dict` reads them, also of checkpoints that lack newer entries.

What is special about a modality is a `Part`, a line of `PARTS` and a field of `Facts`: its own fields, the front end
that makes the network's input of a batch, what a saved model needs to know, and by `agreed` which fields a checkpoint
has to share, and what to give if it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Literal, Self, get_args

from torch import nn

from lambda_seq.tasks.frontends import AudioFrontend

Kind = Literal["tokens", "features", "waveform", "image"]
SIZES = ("in_channels", "image_size", "max_length")  # options that tell how the input of a saved model looks


def agreed(give: str, *, default: Any = MISSING, if_known: bool = False) -> Any:
    """A field that data share with the checkpoints they are given to.

    Args:
        give: what to give if they do not, {} for the checkpoint's value: "--data.sampling_rate {}".
        default: of the field.
        if_known: whether None says that nothing is known, which agrees with everything.
    """
    return field(default=default, metadata={"give": give, "if_known": if_known})


@dataclass(frozen=True, kw_only=True)
class Part:
    """Facts of one modality, which are primitives."""

    differs: ClassVar[str]  # how an error begins, after "the checkpoint"
    shown: ClassVar[str] = "{name}={value}"

    def to_dict(self) -> dict[str, Any]:
        """As a checkpoint holds them: all fields but those that are None."""
        values = ((one.name, getattr(self, one.name)) for one in fields(self))
        return {name: value for name, value in values if value is not None}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """What `to_dict` gave.

        Raises:
            ValueError: an entry that there is not, or one is missing.
        """
        known = {one.name for one in fields(cls)}
        for name in stored:
            if name not in known:
                raise ValueError(f"facts: {cls.__name__} has no entry {name!r}; expected {', '.join(sorted(known))}")
        try:
            return cls(**stored)
        except TypeError as error:
            raise ValueError(f"facts: {cls.__name__} lacks an entry: {error}") from error

    def frontend(self) -> nn.Module | None:
        """What makes the network's input of a batch, (x, mask) -> (x, mask); None if the batch is that input."""
        return None

    def preparation(self) -> dict[str, Any]:
        """What a saved model has to say of how its input is made."""
        return self.to_dict()

    def check(self, theirs: Self) -> None:
        """That a checkpoint's facts agree with these, of the data that are there now.

        Raises:
            ValueError: they do not; says what differs, and what to give.
        """
        found, remedies = [], []
        for one in fields(self):
            if "give" not in one.metadata:
                continue
            ours, wanted = getattr(self, one.name), getattr(theirs, one.name)
            if ours == wanted or (one.metadata["if_known"] and None in (ours, wanted)):
                continue
            found.append(self.shown.format(name=one.name, value=ours))
            if wanted is not None:
                remedies.append(one.metadata["give"].format(wanted))
        if found:
            raise ValueError(f"ckpt_path: the checkpoint {self.differs}, {', '.join(found)}; give {' '.join(remedies)}")


@dataclass(frozen=True, kw_only=True)
class Pixels(Part):
    """Pictures as bytes, of which tasks take `mean` and divide by `std`.

    Attributes:
        mean: of each channel of training pixels, from 0 to 255.
        std: standard deviation of the same.
        background: what transparent pixels are laid on.
        full_scale: the number that is white where pictures hold more than bytes.
    """

    differs, shown = "saw other pictures than the data are now", "{name}={value!r}"

    mean: list[float]
    std: list[float]
    background: str | None = agreed("--data.background {}", default=None, if_known=True)
    full_scale: float | None = agreed(
        "the data it was trained with as --data.path; white was {}", default=None, if_known=True
    )


@dataclass(frozen=True, kw_only=True)
class Audio(Part):
    """Arguments of `tasks.frontends.AudioFrontend`, which says what they are, and the most samples of a clip."""

    differs = "heard other audio than the data are now"

    sampling_rate: int = agreed("--data.sampling_rate {}")
    max_length: int | None = None
    standardize: str = agreed("--data.standardize {}", default="clip")
    representation: str = agreed("--data.representation {}", default="waveform")
    waveform_mean: float | None = None
    waveform_std: float | None = None
    n_mels: int | None = agreed("--data.log_mel.n_mels {}", default=None)
    n_fft: int | None = agreed("--data.log_mel.n_fft {}", default=None)
    hop_length: int | None = agreed("--data.log_mel.hop_length {}", default=None)
    log_mel_mean: list[float] | None = None
    log_mel_std: list[float] | None = None

    def frontend(self) -> nn.Module:
        """Standardises samples, and makes log-mel frames of them if that is what the data are."""
        return AudioFrontend(**self.to_dict())


@dataclass(frozen=True, kw_only=True)
class Vocabulary(Part):
    """What token ids mean; `tasks.data.reading.tokens.Tokens` is made of it.

    Attributes:
        kind: "bytes", "words" or "tokenizer".
        vocab_size: number of ids.
        pad: id of padding.
        fingerprint: 16 hexadecimal digits of what a tokenizer does; "bytes" for bytes.
        json: a tokenizer, as the text of its tokenizer.json.
    """

    kind: str = "bytes"
    vocab_size: int = 257
    pad: int = 0
    fingerprint: str = "bytes"
    json: str | None = field(default=None, repr=False)

    def preparation(self) -> dict[str, Any]:
        """All but the tokenizer, which has a file of its own."""
        return {"kind": self.kind, "pad": self.pad, "vocab_size": self.vocab_size}

    def check(self, theirs: Self) -> None:
        """That ids mean the same.

        Raises:
            ValueError: they do not.
        """
        if theirs.fingerprint != self.fingerprint:
            named = [f"{one.kind}, {one.vocab_size} ids, {one.fingerprint}" for one in (theirs, self)]
            raise ValueError(
                f"ckpt_path: the checkpoint has another vocabulary than the data.\n  checkpoint: {named[0]}\n"
                f"  data: {named[1]}\nGive the tokenizer it was trained with as --data.tokenizer; one trained on the "
                "data is the same only for the same training texts and vocab_size."
            )


PARTS: dict[str, type[Part]] = {"pixels": Pixels, "audio": Audio, "tokens": Vocabulary}
FLAT = "pixels"  # whose entries a checkpoint has beside the others


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a model has to know of its data.

    Attributes:
        kind: what a network has to take: "image" (B, C, H, W), "features" (B, N, C), "waveform" (B, N) or "tokens"
            (B, N).
        options: arguments of networks that follow from the data, for those that take them: num_classes, in_channels,
            image_size, vocab_size, max_length.
        labels: names of the classes, in the order of their numbers; None where there are none.
        pixels, audio, tokens: what is special about pictures, audio and text; None of other data.
        baselines: accuracies of simple rules by stage ("val", "test") and name, shown beside the network's.
        instead: for a kind that these data could be as well, what makes them so, "turn images into sequences of pixels
            with --data.as_sequence true"; a network that takes it is told of. Not stored.

    Raises:
        ValueError: no such kind.
    """

    kind: Kind
    options: dict[str, Any] = field(default_factory=dict)
    labels: list[str] | None = None
    pixels: Pixels | None = None
    audio: Audio | None = None
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
        kept: dict[str, Any] = {"input": self.kind}
        for name, part in self.parts.items():
            kept |= part.preparation() if name == FLAT else {name: part.preparation()}
        return kept | {name: self.options[name] for name in SIZES if name in self.options}

    def check(self, theirs: Facts) -> None:
        """That a checkpoint's facts agree with these, of the data that are there now.

        Raises:
            ValueError: they do not; says what differs, and what to give.
        """
        for name, part in self.parts.items():
            if name in theirs.parts:
                part.check(theirs.parts[name])

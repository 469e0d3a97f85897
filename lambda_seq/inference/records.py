"""Records: what is said of how the inputs of a network are made, typed, as a checkpoint and a saved model hold it.

A data module writes the record of its data, reads its validation and test splits by it, and a saved model carries it,
so that `load_predictor` does to new inputs what the evaluation of the training did. `tasks.facts.Facts` holds one as a
`Part`, which each modality has of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import nn

from lambda_seq.inference.frontends import AudioFrontend
from lambda_seq.inference.series import SeriesFrontend
from lambda_seq.inference.texts import Reading

if TYPE_CHECKING:
    from lambda_seq.inference.pictures import Decoder

VERSION = 1  # of what a saved model says in `preprocessing`


def agreed(give: str, *, default: Any = MISSING, if_known: bool = False) -> Any:
    """A field that data share with the checkpoints they are given to.

    Args:
        give: what to give if they do not, {} for the checkpoint's value: "--data.sampling_rate {}".
        default: of the field.
        if_known: whether None says that nothing is known, which agrees with everything.
    """
    return field(default=default, metadata={"give": give, "if_known": if_known, "predicting": False})


def read_alike(give: str, *, if_known: bool = True) -> Any:
    """A field that data to predict share with the checkpoint: what of an input is read, None where it is not known.

    A test at another size, or of another part, is an experiment; a prediction so is a mistake.

    Args:
        give: as for `agreed`.
        if_known: whether None says that it is not known; else that there is no such.
    """
    return field(default=None, metadata={"give": give, "if_known": if_known, "predicting": True})


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

    def unknown(self) -> list[str]:
        """What a record of an earlier version does not say, of all that reading an input takes."""
        return [one.name for one in fields(self) if one.metadata.get("predicting") and getattr(self, one.name) is None]

    def check(self, theirs: Self, *, predicting: bool = False) -> None:
        """That a checkpoint's facts agree with these, of the data that are there now.

        Args:
            theirs: of the checkpoint.
            predicting: whether the fields of `read_alike` have to agree as well.

        Raises:
            ValueError: they do not; says what differs, and what to give.
        """
        found, remedies = [], []
        for one in fields(self):
            if "give" not in one.metadata or (one.metadata["predicting"] and not predicting):
                continue
            ours, wanted = getattr(self, one.name), getattr(theirs, one.name)
            if ours == wanted or (one.metadata["if_known"] and None in (ours, wanted)):
                continue
            found.append(self.shown.format(name=one.name, value=ours))
            if wanted is not None:
                value = str(wanted).replace(", ", ",") if isinstance(wanted, list) else wanted  # a word of a shell
                remedies.append(one.metadata["give"].format(value))
        if found:
            remedy = f"give {' '.join(remedies)}" if remedies else "leave that out"
            raise ValueError(f"ckpt_path: the checkpoint {self.differs}, {', '.join(found)}; {remedy}")


@dataclass(frozen=True, kw_only=True)
class Pixels(Part):
    """Pictures as bytes, of which tasks take `mean` and divide by `std`.

    Attributes:
        mean: of each channel of training pixels, from 0 to 255.
        std: standard deviation of the same.
        background: what transparent pixels are laid on.
        full_scale: the number that is white where pictures hold more than bytes.
        size: height and width that pictures are brought to.
    """

    differs, shown = "saw other pictures than the data are now", "{name}={value!r}"

    mean: list[float]
    std: list[float]
    background: str | None = agreed("--data.background {}", default=None, if_known=True)
    full_scale: float | None = agreed(
        "the data it was trained with as --data.path; white was {}", default=None, if_known=True
    )
    size: list[int] | None = read_alike("--data.image_size {}")  # noqa: RUF009 - a field

    def decoder(self) -> Decoder:
        """What makes bytes of a picture.

        Raises:
            ValueError: `size` is not known.
            ModuleNotFoundError: Pillow is missing.
        """
        if self.size is None:
            raise ValueError("Pixels: size=None: the size that pictures are brought to is not known")
        from lambda_seq.inference.pictures import Decoder

        height, width = self.size
        return Decoder((height, width), len(self.mean), self.background or "white", self.full_scale)


@dataclass(frozen=True, kw_only=True)
class Audio(Part):
    """Arguments of `AudioFrontend`, which says what they are, and which samples of a clip are heard.

    Attributes:
        max_length: most samples that are heard at once.
        clip_length: most samples that are heard of a clip, those in its middle.
        evaluate: "whole" for all of them at once, or "windows" of max_length whose answers are averaged.
        sample_bits: 16 if samples are rounded to so many bits, None if not.
    """

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
    clip_length: int | None = read_alike("--data.max_seconds for {} samples")
    evaluate: str | None = read_alike("--data.evaluate {}")
    sample_bits: int | None = None

    def frontend(self) -> nn.Module:
        """Standardises samples, and makes log-mel frames of them if that is what the data are."""
        return AudioFrontend(**self.to_dict())


@dataclass(frozen=True, kw_only=True)
class Vocabulary(Part):
    """What token ids mean, which `Tokens` are made of, and which tokens of a text are read.

    Attributes:
        kind: "bytes", "words", "tokenizer", "dna" or "protein".
        vocab_size: number of ids.
        pad: id of padding.
        fingerprint: 16 hexadecimal digits of what a tokenizer does; "bytes" for bytes.
        json: a tokenizer, as the text of its tokenizer.json.
        max_length: most tokens that are read at once; None of texts that are read from their beginning to their end.
        part: which of a longer text: "start", "middle", "end", or "windows" whose answers are averaged.
        stride: tokens from the beginning of a window to that of the next.
        strands: 2 if the answers to DNA and to its reverse complement are averaged, None if not.
        units: what of a text is answered one by one, "words", "spaces" or "characters"; None of texts
            that are answered as a whole.
    """

    differs = "read other parts of texts than are read now"

    kind: str = "bytes"
    vocab_size: int = 257
    pad: int = 0
    fingerprint: str = "bytes"
    json: str | None = field(default=None, repr=False)
    max_length: int | None = read_alike("--data.max_length {}")
    part: str | None = read_alike("--data.part {}")
    stride: int | None = None
    strands: int | None = read_alike("--data.both_strands true for {} strands", if_known=False)
    units: str | None = read_alike("--data.units {}")

    def reading(self) -> Reading:
        """Which tokens of a text are read in evaluation."""
        most = sys.maxsize if self.max_length is None else self.max_length
        return Reading(most, self.part or "start", self.stride or most)

    def preparation(self) -> dict[str, Any]:
        """All but the tokenizer, which has a file of its own."""
        return {name: value for name, value in self.to_dict().items() if name not in ("json", "fingerprint")}

    def check(self, theirs: Self, *, predicting: bool = False) -> None:
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
        super().check(theirs, predicting=predicting)


@dataclass(frozen=True, kw_only=True)
class Series(Part):
    """Arguments of `SeriesFrontend`, which says what they are, and which steps of a series are read.

    Attributes:
        channels: their names, in order.
        max_length: most steps that are read.
        part: which of a longer series: "start", "middle" or "end".
    """

    differs = "read other series than the data are now"

    channels: list[str] = agreed("--data.channel_columns {}")  # noqa: RUF009 - a field
    mean: list[float]
    std: list[float]
    standardize: str = agreed("--data.standardize {}", default="train")
    missing: str = agreed("--data.missing {}", default="mean")
    indicator: bool = agreed("--data.indicator {}", default=False)
    max_length: int | None = read_alike("--data.max_length {}")
    part: str | None = read_alike("--data.part {}")

    def frontend(self) -> nn.Module:
        """Standardises channels, and fills in what is missing."""
        return SeriesFrontend(**self.to_dict())

    def reading(self) -> Reading:
        """Which steps of a series are read in evaluation."""
        return Reading(sys.maxsize if self.max_length is None else self.max_length, self.part or "start")


PARTS: dict[str, type[Part]] = {"pixels": Pixels, "audio": Audio, "series": Series, "tokens": Vocabulary}
FLAT = "pixels"  # whose entries a checkpoint has beside the others

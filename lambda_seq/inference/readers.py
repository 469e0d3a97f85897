"""Readers: a text, picture, clip or series, in any of the forms that a person has it in, as what a network takes.

A reader is made of a record, which the data module of the training has written, and does with an input what that data
module does with the rows of its test split: both use the same functions, with the same numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from lambda_seq.inference.alphabets import reverse_complement
from lambda_seq.inference.batches import cut, pad_samples, pad_tokens
from lambda_seq.inference.frontends import Standardized
from lambda_seq.inference.records import Audio, Pixels, Series, Vocabulary
from lambda_seq.inference.series import series_of
from lambda_seq.inference.tokens import Tokens

log = logging.getLogger(__name__)
INSTALL = 'pip install "lambda-seq[train]"'
BLOCK = {"tokens": 64, "samples": 1024, "steps": 16}  # batches are padded to a multiple, so that few lengths occur

Batch = tuple[Tensor, Tensor | None]  # the network's input, and its mask


class Reader(Protocol):
    """Reads one kind of input.

    Attributes:
        kind: what it reads, "text", "picture", "clip" or "series".
    """

    kind: str

    @property
    def frontend(self) -> nn.Module | None:
        """What stands between a batch of windows and the network; None for nothing."""

    def windows(self, given: Any) -> list[Tensor]:
        """What the network hears, sees or reads of an input at once: one tensor, or several that cover it.

        Raises:
            TypeError, ValueError: it is no such input, or cannot be read; says why, not which.
        """

    def batch(self, windows: Sequence[Tensor]) -> Batch:
        """Windows side by side."""


class TextReader:
    """Texts, as str or as bytes in any encoding, and the texts of files, which are given as `pathlib.Path`."""

    kind, frontend = "text", None

    def __init__(self, record: Vocabulary, tokens: Tokens) -> None:
        self.tokens, self.most = tokens, record.max_length
        self.reading, self.strands = record.reading(), record.strands

    def windows(self, given: Any) -> list[Tensor]:
        """Token ids, each (N,); of an empty text none; of DNA perhaps those of both strands."""
        ids = torch.from_numpy(self.tokens.encode(text_of(given)))
        if not len(ids):
            log.warning("an empty text has no token: the answer is what the network says about nothing")
        found = [ids[begin : begin + self.reading.most] for begin in self.reading.begins(len(ids))]
        if self.strands == 2:
            found += [torch.from_numpy(reverse_complement(window.numpy())) for window in found]
        return found

    def batch(self, windows: Sequence[Tensor]) -> Batch:
        """Ids (B, N) and their mask."""
        return pad_tokens(windows, multiple=BLOCK["tokens"], most=self.most, value=self.tokens.pad)


def text_of(given: Any) -> str | bytes:
    """The text itself, or that of a file.

    Raises:
        TypeError: it is no text.
        ValueError: there is no such file.
    """
    if isinstance(given, Path):
        if not given.is_file():
            raise ValueError("there is no such file; a text itself is given as str")
        return given.read_bytes()
    if not isinstance(given, str | bytes):
        raise TypeError(f"{_named(given)} is no text: the model reads texts (str, bytes), or files of texts (Path)")
    return given


class PictureReader:
    """Pictures: files by path or as bytes, of `PIL`, arrays (H, W) or (H, W, C), and tensors (C, H, W), of bytes.

    Args:
        record: how they are read.
        as_sequence: whether the network takes their pixels in reading order, (B, H·W, C).
    """

    kind = "picture"

    def __init__(self, record: Pixels, as_sequence: bool) -> None:
        _needed("PIL", "pictures")
        self.decode, self.as_sequence = record.decoder(), as_sequence
        self.frontend = Standardized(record.mean, record.std)

    def windows(self, given: Any) -> list[Tensor]:
        """Bytes, (C, H, W) or (H·W, C)."""
        from lambda_seq.inference.pictures import in_order, opened

        if isinstance(given, str | Path | bytes):
            pixels = opened(str(given) if isinstance(given, Path) else given, self.decode)
        else:
            pixels = self.decode(_image(given))
        return [torch.from_numpy(np.array(in_order(pixels) if self.as_sequence else pixels))]

    def batch(self, windows: Sequence[Tensor]) -> Batch:
        """Bytes side by side."""
        return torch.stack(list(windows)), None


def _image(given: Any) -> Any:
    """A picture of PIL.

    Raises:
        TypeError, ValueError: it is none, nor an array or tensor of bytes of a picture's shape.
    """
    from PIL import Image

    if isinstance(given, Image.Image):
        return given
    if isinstance(given, Tensor) and given.ndim == 3:
        given = given.movedim(0, -1)  # (H, W, C)
    if not isinstance(given, np.ndarray | Tensor):
        raise TypeError(
            f"{_named(given)} is no picture: the model takes paths, bytes of files, pictures of PIL, and arrays"
        )
    pixels = np.asarray(given.cpu() if isinstance(given, Tensor) else given)
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    whole = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[-1] in (3, 4))
    if pixels.dtype != np.uint8 or not whole or 0 in pixels.shape:
        raise ValueError(
            f"an array of {pixels.dtype} with shape {tuple(given.shape)} is no picture: expected bytes (uint8) from 0 "
            "to 255, (H, W) or (H, W, channels), or a tensor (channels, H, W), of 1, 3 or 4 channels"
        )
    return Image.fromarray(pixels)


class ClipReader:
    """Clips: files by path or as bytes, samples with their rate, (samples, rate), or {"array", "sampling_rate"}."""

    kind = "clip"

    def __init__(self, record: Audio) -> None:
        _needed("soundfile", "audio files")
        _needed("soxr", "audio of any sampling rate")
        self.record, self.frontend = record, record.frontend()
        self._rates: set[int] = set()  # that were said

    def windows(self, given: Any) -> list[Tensor]:
        """Samples from −1 to 1, each (N,)."""
        from lambda_seq.inference.clips import cropped, of_16_bits, read_header, read_samples, resample, to_16_bits

        rate = self.record.sampling_rate
        if isinstance(given, str | Path | bytes):
            source = str(given) if isinstance(given, Path) else given
            self._note_rate(read_header(source).rate)
            samples = read_samples(source, rate)
        else:
            samples, own = _samples(given)
            self._note_rate(own)
            samples = resample(samples, own, rate)
        samples = of_16_bits(to_16_bits(samples)) if self.record.sample_bits == 16 else samples
        samples = cropped(samples, self.record.clip_length or len(samples))
        heard = torch.from_numpy(np.ascontiguousarray(samples, np.float32))
        return cut(heard, self._at_once or len(heard)) if self.record.evaluate == "windows" else [heard]

    def batch(self, windows: Sequence[Tensor]) -> Batch:
        """Samples (B, N) and, if some are shorter, their mask."""
        most = self._at_once or max(map(len, windows))
        return pad_samples(windows, multiple=BLOCK["samples"], most=most)

    @property
    def _at_once(self) -> int | None:
        return self.record.max_length

    def _note_rate(self, rate: int) -> None:
        if rate != self.record.sampling_rate and rate not in self._rates:
            self._rates.add(rate)
            log.warning("clips of %d samples per second are resampled to %d", rate, self.record.sampling_rate)


class SeriesReader:
    """Series of numbers: arrays, numbers by the names of channels, and files of one series; see `series_of`."""

    kind = "series"

    def __init__(self, record: Series) -> None:
        self.channels, self.most, self.frontend = record.channels, record.max_length, record.frontend()
        self.reading = record.reading()

    def windows(self, given: Any) -> list[Tensor]:
        """Numbers (N, C), NaN where one is missing."""
        values = torch.from_numpy(series_of(given, self.channels))
        if not len(values):
            log.warning("a series without a step: the answer is what the network says about nothing")
        if len(values) > self.reading.most:
            log.warning("of %d steps %d are read, as in the training (%s)", *(len(values), *self._read))
        begin = self.reading.begin(len(values), 0, 0)
        return [values[begin : begin + self.reading.most]]

    def batch(self, windows: Sequence[Tensor]) -> Batch:
        """Numbers (B, N, C) and, if some are shorter, their mask."""
        return pad_samples(windows, multiple=BLOCK["steps"], most=self.most)

    @property
    def _read(self) -> tuple[int, str]:
        return self.reading.most, self.reading.part


def _samples(given: Any) -> tuple[np.ndarray, int]:
    """Samples (N,) from −1 to 1, the mean of their channels, and their rate.

    Raises:
        TypeError, ValueError: they are none, or have no rate.
    """
    if isinstance(given, Mapping) and {"array", "sampling_rate"} <= set(given):
        given = given["array"], given["sampling_rate"]
    if isinstance(given, np.ndarray | Tensor):
        raise TypeError("samples without their rate: give (samples, rate), with the number of samples per second")
    if not (isinstance(given, tuple) and len(given) == 2):
        raise TypeError(
            f"{_named(given)} is no clip: the model takes paths, bytes of files, and samples with their rate, "
            "(samples, rate)"
        )
    samples, rate = np.asarray(given[0]), given[1]
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer) or rate < 1:
        raise ValueError(f"rate={rate!r}: expected the number of samples per second, such as 16000")
    if samples.dtype.kind == "i":
        samples = samples / -float(np.iinfo(samples.dtype).min)
    if samples.ndim == 2:  # channels are fewer than samples
        samples = samples.mean(int(np.argmin(samples.shape)))
    if samples.dtype.kind != "f" or samples.ndim != 1 or not len(samples):
        raise ValueError(
            f"samples of shape {np.shape(given[0])}, {samples.dtype}: expected numbers from -1 to 1, or signed whole "
            "ones, (N,) or (N, channels), at least one"
        )
    if not np.isfinite(samples).all():
        raise ValueError("holds samples that are infinite or no numbers")
    return samples.astype(np.float32), int(rate)


def _named(given: Any) -> str:
    """What an input is, for messages."""
    shown = repr(given)
    return f"{type(given).__name__} {shown if len(shown) <= 60 else shown[:57] + '...'}"


def _needed(package: str, what: str) -> None:
    """That a package is there.

    Raises:
        ModuleNotFoundError: it is not; says what it is for, and how to get it.
    """
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise ModuleNotFoundError(f"the package {package}, which reads {what}, is missing: {INSTALL}", name=package)

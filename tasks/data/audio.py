"""Audio clips with one label each, as raw samples or log-mel frames."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset

from tasks.data.audio_files import load_audio
from tasks.data.augmentation import WaveformAugmentation, cropped
from tasks.data.labels import Rows, find_column
from tasks.data.module import ClassificationData
from tasks.data.waveforms import Clips, DecodedClips, Header, pad_clips, read_headers
from tasks.frontends import AudioFrontend, LogMelOptions, check_choices

AUDIO_NAMES = ("audio", "file_name", "path", "file", "filename", "wav", "recording", "clip")
SAMPLE = 500  # training clips that statistics are measured on

log = logging.getLogger(__name__)


class AudioData(ClassificationData):
    """Audio clips with one label each: class folders of files, tables that name or hold them, a hub data set.

    Channels are mixed into one by their mean. A clip of another sampling rate is resampled, so rates may differ within
    the data. A file that is no audio, is cut off or holds no samples is an error that names it; most such are found by
    their headers before training begins, and all of them listed at once. Silence and a single sample are clips like any
    other. The network hears samples standardised as `standardize` says; see `tasks.frontends.AudioFrontend`.

    Args:
        path: a folder with one folder of wav, flac, ogg or mp3 files per class (or train/, validation/ and test/ of
            such), a table (parquet, jsonl, csv) with a column of paths or of audio and one of labels, a folder of such
            (named train*, validation* and test* for the splits), a hub name, or "generated:tones".
        batch_size: clips per step and device.
        num_workers: processes that decode and augment clips; 0 does it in the training process.
        sampling_rate: samples per second that clips are resampled to; default: the rate of most training clips.
        max_seconds: longer clips are cut to this: while training at a random place, otherwise to their middle. Default:
            as long as the longest training clip.
        pad_to_multiple: batches are padded to a multiple of this many samples, so that few lengths occur.
        bucket: put clips of similar length into one batch while training, which saves padding.
        representation: "waveform", for networks with stem "waveform", or "log_mel", for stem "features".
        log_mel: sizes of log-mel frames.
        standardize: "clip" for equal loudness of each clip, "train" for mean and deviation of all training samples, or
            "none" for samples from -1 to 1.
        augmentation: random changes of training clips.
        cache: keep decoded clips in memory, as 16-bit samples, instead of decoding them in each epoch.
        verify: read the headers of all clips of all splits at the beginning. Without it only those of the training
            split are read, and with bucket=false only a part of those.
        audio_column: column of audio or of paths; found by its name or type if not given.
        label_column: column of labels; found by its name or type if not given.
        subset: configuration of a hub data set that has several.
        validation_fraction: share of the training rows held out if there is no validation split; 0 for no validation.
        test_fraction: share of the training rows held out if there is no test split; 0 for no test.
        split_seed: of the choice of the rows held out.
        predict_path: clips to predict instead of the test split; they need no labels: a folder, a file or a table.
    """

    def __init__(
        self,
        path: str = "",
        batch_size: int = 32,
        num_workers: int = 0,
        sampling_rate: int | None = None,
        max_seconds: float | None = None,
        pad_to_multiple: int = 1024,
        bucket: bool = True,
        representation: str = "waveform",
        log_mel: LogMelOptions = LogMelOptions(),  # noqa: B008 - frozen
        standardize: str = "clip",
        augmentation: WaveformAugmentation = WaveformAugmentation(),  # noqa: B008 - frozen
        cache: bool = False,
        verify: bool = True,
        audio_column: str | None = None,
        label_column: str | None = None,
        subset: str | None = None,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.0,
        split_seed: int = 0,
        predict_path: str | None = None,
    ) -> None:
        super().__init__(
            path,
            batch_size=batch_size,
            num_workers=num_workers,
            label_column=label_column,
            subset=subset,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            split_seed=split_seed,
            predict_path=predict_path,
        )
        for name, number in (("sampling_rate", sampling_rate), ("pad_to_multiple", pad_to_multiple)):
            if number is not None and number < 1:
                raise ValueError(f"{name}={number}: expected at least 1 sample")
        if max_seconds is not None and max_seconds <= 0:
            raise ValueError(f"max_seconds={max_seconds}: expected a time above 0")
        check_choices(representation, standardize)
        self.given_rate, self.max_seconds = sampling_rate, max_seconds
        self.pad_to_multiple, self.bucket = pad_to_multiple, bucket
        self.representation, self.log_mel, self.standardize = representation, log_mel, standardize
        self.augmentation, self.cache, self.verify, self.audio_column = augmentation, cache, verify, audio_column
        self._roots: list[tuple[datasets.Dataset, Path | None]] = []

    def load_tables(self, path: str, subset: str | None = None) -> dict[str, datasets.Dataset]:
        """The splits found at a path; see `load_audio`."""
        tables, root = load_audio(path, subset)
        self._roots += [(table, root) for table in tables.values()]
        if path == self.path and any(table.column_names == ["audio"] for table in tables.values()):
            raise ValueError(
                f"path={path!r}: clips without classes; put those of each class into a folder of its own, or give a "
                "table (csv, jsonl, parquet) with a column of paths and one of labels"
            )
        return tables

    def clips(self, rows: Rows, where: str) -> Clips:
        """The audio of these rows; `where` they come from is part of errors."""
        column = find_column(rows.table, "audio_column", self.audio_column, AUDIO_NAMES, _is_audio)
        if not _is_audio(rows.table.features[column]):
            raise ValueError(
                f"audio_column={column!r} holds {rows.table.features[column]}: expected audio, bytes of files or paths"
            )
        root = next((root for table, root in self._roots if table is rows.table), None)
        return Clips(rows, column, where, root)

    @cached_property
    def headers(self) -> dict[str, list[Header]]:
        """What files say of themselves: of all splits if `verify` is on, otherwise of training clips (see `verify`)."""
        splits = self.splits if self.verify else {"train": self.split("train")}
        if not self.verify and not self.bucket:
            splits = {"train": splits["train"].take(_spread(len(splits["train"])))}
        clips = [self.clips(rows, self._where(name)) for name, rows in splits.items()]
        return dict(zip(splits, read_headers(clips), strict=True))

    @cached_property
    def sampling_rate(self) -> int:
        """Samples per second that all clips are brought to."""
        rates, counts = np.unique([header.rate for header in self.headers["train"]], return_counts=True)
        rate = self.given_rate or int(rates[counts.argmax()])
        if len(rates) > 1 and self.given_rate is None:
            log.warning(
                "Training clips have different sampling rates, %s: all are resampled to %s, that of most. Choose with "
                "--data.sampling_rate",
                ", ".join(f"{rate} ({count} clips)" for rate, count in zip(rates, counts, strict=True)),
                rate,
            )
        return rate

    @cached_property
    def max_length(self) -> int:
        """Most samples of a clip."""
        if self.max_seconds is not None:
            return max(round(self.max_seconds * self.sampling_rate), 1)
        return max(header.length(self.sampling_rate) for header in self.headers["train"])

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Labels, features and greatest length, and all that `AudioFrontend` needs, measured on training clips."""
        options: dict[str, Any] = {"num_classes": len(self.labels), "in_channels": 1, "max_length": self.max_length}
        audio: dict[str, Any] = {
            "sampling_rate": self.sampling_rate,
            "max_length": self.max_length,
            "standardize": self.standardize,
            "representation": self.representation,
        }
        rows = self.split("train")
        rows = rows.take(_spread(len(rows)))
        items = AudioItems(self.clips(rows, self._where("train")), self.sampling_rate, self.max_length)
        if self.standardize == "train":
            mean, std = _moments(items[row]["x"][:, None] for row in range(len(items)))
            audio |= {"waveform_mean": float(mean), "waveform_std": float(std)}
        if self.representation == "log_mel":
            audio |= self.log_mel.sizes(self.sampling_rate)
            options |= {"in_channels": audio["n_mels"], "max_length": -(-self.max_length // audio["hop_length"])}
            frontend = AudioFrontend(**audio)
            mean, std = _moments(frontend(items[row]["x"][None])[0][0] for row in range(len(items)))  # of (M, mels)
            audio |= {"log_mel_mean": mean.tolist(), "log_mel_std": std.clamp_min(1e-3).tolist()}
        kind = "features" if self.representation == "log_mel" else "waveform"
        return {"labels": self.labels, "input": kind, "options": options, "audio": audio}

    def rows_as_items(self, rows: Rows, split: str, *, training: bool = False) -> Dataset:
        """Samples, (N,)."""
        known = split in self.splits and rows.table is self.splits[split].table
        clips = self.clips(rows, self._where(split) if known else f"predict_path={self.predict_path!r}")
        if self.verify and not known:
            read_headers([clips])
        decoded = DecodedClips(clips, self.sampling_rate) if self.cache else clips
        augmentation = self.augmentation if training else None
        return AudioItems(
            clips, self.sampling_rate, self.max_length, decoded=decoded, augmentation=augmentation, seed=self.seed
        )

    @property
    def collate(self) -> Callable:
        """Pad each batch to its longest clip."""
        return partial(pad_clips, multiple=self.pad_to_multiple, most=self.max_length)

    def lengths(self, rows: Rows) -> np.ndarray | None:
        """Samples of each training clip, before augmentation."""
        if not self.bucket:
            return None
        lengths = [header.length(self.sampling_rate) for header in self.headers["train"]]
        return np.minimum(lengths, self.max_length)

    def _where(self, split: str) -> str:
        return f"{split} split of path={self.path!r}"


class AudioItems(Dataset):
    """Items of samples; an unreadable clip is an error that names its file or row.

    Args:
        clips: where they come from.
        rate: samples per second.
        max_length: most samples; longer clips are cropped.
        decoded: where samples are read from, if not from the clips themselves.
        augmentation: changes clips at random, and lets crops be at random places; without it they are in the middle.
        seed: of what is drawn at random, together with epoch and row.
    """

    def __init__(
        self,
        clips: Clips,
        rate: int,
        max_length: int,
        *,
        decoded: Clips | DecodedClips | None = None,
        augmentation: WaveformAugmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.clips, self.rate, self.max_length = clips, rate, max_length
        self.decoded, self.augmentation, self.seed = decoded or clips, augmentation, seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """The clip with key row or (epoch, row)."""
        epoch, row = key if isinstance(key, tuple) else (0, key)
        samples = self.decoded.samples(row, self.rate)
        if self.augmentation is None:
            samples = cropped(samples, self.max_length)
        else:
            random = np.random.default_rng([self.seed, epoch, row])
            samples = self.augmentation(cropped(samples, 2 * self.max_length, random), self.rate, random)
            samples = cropped(samples, self.max_length, random)
        item = {"x": torch.from_numpy(np.ascontiguousarray(samples, np.float32)), "id": self.clips.name(row)}
        labels = self.clips.rows.labels
        return item if labels is None else item | {"label": int(labels[row])}


def _moments(values: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (C,) of all rows of several (N, C), the deviation at least 10⁻⁶."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for rows in values:
        rows = rows.double()
        count += len(rows)
        total, squares = total + rows.sum(0), squares + rows.square().sum(0)
    mean = total / count
    return mean, (squares / count - mean.square()).clamp_min(1e-12).sqrt()


def _is_audio(kind: Any) -> bool:
    if isinstance(kind, dict):
        return bool({"bytes", "path"} & set(kind))
    strings = ("string", "large_string", "binary", "large_binary")
    return isinstance(kind, datasets.Audio) or (isinstance(kind, datasets.Value) and kind.dtype in strings)


def _spread(count: int) -> np.ndarray:
    """At most `SAMPLE` of `count` places, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).astype(int))

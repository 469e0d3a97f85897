"""Audio clips with one label each, as raw samples or log-mel frames."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from lambda_seq.inference.clips import Header, cropped
from lambda_seq.inference.frontends import AudioFrontend, LogMelOptions, check_choices
from lambda_seq.tasks.data.audio.augmentation import WaveformAugmentation
from lambda_seq.tasks.data.audio.files import load_audio
from lambda_seq.tasks.data.audio.waveforms import Clips, DecodedClips, pad_clips, read_headers
from lambda_seq.tasks.data.audio.windows import Together, pad_windows
from lambda_seq.tasks.data.batches import Batch
from lambda_seq.tasks.data.labels import Rows
from lambda_seq.tasks.data.reading.cells import find_cells
from lambda_seq.tasks.data.reading.dialects import TableOptions
from lambda_seq.tasks.data.reading.media import MediaData
from lambda_seq.tasks.data.reading.notes import note
from lambda_seq.tasks.data.targets import TargetOptions
from lambda_seq.tasks.facts import Audio, Facts

AUDIO_NAMES = ("audio", "file_name", "path", "file", "filename", "wav", "recording", "clip", "file_path", "audio_path")
EVALUATIONS = ("whole", "windows")
SAMPLE = 500  # training clips that statistics are measured on


class AudioData(MediaData):
    """Audio clips with one label each: class folders of files, tables that name or hold them, a hub data set.

    Channels are mixed into one by their mean. A clip of another sampling rate is resampled, so rates may differ within
    the data. A file that is no audio, is cut off or holds no samples is an error that names it; most such are found by
    their headers before training begins, and all of them listed at once. Files that leave their length open, as those
    written to a pipe, and files that are several, one after another, are read to their end. Silence and a single sample
    are clips like any other. The network hears samples standardised as `standardize` says; see
    `lambda_seq.inference.frontends.AudioFrontend`.

    Args:
        path: a folder with one folder of wav, flac, ogg or mp3 files per class (or train/, validation/ and test/ of
            such), a table (parquet, jsonl, csv) with a column of audio, of the bytes of files or of paths (relative
            to the table's folder, or absolute) and one of labels, a folder of such (named train*, validation* and test*
            for the splits), a hub name, or "generated:tones".
        batch_size: clips per step and device.
        num_workers: processes that decode and augment clips; 0 does it in the training process.
        sampling_rate: samples per second that clips are resampled to; default: the rate of most training clips.
        max_seconds: longer clips are cut to this: while training at a random place, otherwise to their middle. Default:
            as long as the longest training clip.
        crop_seconds: training hears a stretch of this length of each longer clip, at a random place, another in each
            epoch; default: all that max_seconds leaves.
        evaluate: what is heard of clips otherwise: "whole", all that max_seconds leaves at once; or "windows", the same
            in windows of crop_seconds, one after another, whose probabilities are averaged, so that the network never
            hears more at once than in training.
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
        audio_column: column of audio, bytes or paths; found by its name or type if not given.
        label_column: column of labels; found by its name or type if not given.
        subset: configuration of a hub data set that has several.
        validation_fraction: share of the training rows held out if there is no validation split; 0 for no validation.
        test_fraction: share of the training rows held out if there is no test split; 0 for no test.
        split_seed: of the choice of the rows held out.
        predict_path: clips to predict instead of the test split; they need no labels: a folder, a file or a table.
        table: how csv, tsv, jsonl and json files are written, where that is not to be guessed.
        drop_incomplete: leave out rows without a label or with nothing in the column of audio, and say how many; they
            are refused otherwise.
        target: what is known of a row: one class, any of several labels, or numbers, where that is not to be guessed.
    """

    view = "lambda_seq.tasks.inspection.views.ClipView"
    reads = (*MediaData.reads, "headers")

    def __init__(
        self,
        path: str = "",
        batch_size: int = 32,
        num_workers: int = 0,
        sampling_rate: int | None = None,
        max_seconds: float | None = None,
        crop_seconds: float | None = None,
        evaluate: str = "whole",
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
        table: TableOptions = TableOptions(),  # noqa: B008 - frozen
        drop_incomplete: bool = False,
        target: TargetOptions = TargetOptions(),  # noqa: B008 - frozen
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
            table=table,
            drop_incomplete=drop_incomplete,
            target=target,
        )
        for name, number in (("sampling_rate", sampling_rate), ("pad_to_multiple", pad_to_multiple)):
            if number is not None and number < 1:
                raise ValueError(f"{name}={number}: expected at least 1 sample")
        for name, seconds in (("max_seconds", max_seconds), ("crop_seconds", crop_seconds)):
            if seconds is not None and not 0 < seconds < float("inf"):
                raise ValueError(f"{name}={seconds}: expected a time above 0")
        if evaluate not in EVALUATIONS:
            raise ValueError(f"evaluate={evaluate!r}: expected one of {', '.join(map(repr, EVALUATIONS))}")
        if evaluate == "windows" and crop_seconds is None:
            raise ValueError("evaluate='windows': windows are as long as what training hears; give crop_seconds")
        check_choices(representation, standardize)
        self.given_rate, self.max_seconds = sampling_rate, max_seconds
        self.crop_seconds, self.evaluate = crop_seconds, evaluate
        self.pad_to_multiple, self.bucket = pad_to_multiple, bucket
        self.representation, self.log_mel, self.standardize = representation, log_mel, standardize
        self.augmentation, self.cache, self.verify, self.audio_column = augmentation, cache, verify, audio_column

    def load_tables(self, path: str, subset: str | None = None, whole: bool = False) -> dict[str, datasets.Dataset]:
        """The splits found at a path, or with `whole` all clips as one; see `load_audio`."""
        return load_audio(path, subset, whole, self.table)

    def content(self, table: datasets.Dataset) -> str:
        """The column of audio."""
        return find_cells(table, "audio_column", self.audio_column, AUDIO_NAMES, datasets.Audio, "audio")

    def cells(self, rows: Rows, split: str) -> Clips:
        """As `clips`."""
        return self.clips(rows, split)

    def clips(self, rows: Rows, split: str) -> Clips:
        """The audio of these rows."""
        origin = self.origin(rows, split)
        return Clips(rows, self.content(rows.table), origin.words, origin.root)

    @cached_property
    def headers(self) -> dict[str, list[Header]]:
        """What files say of themselves: of all splits if `verify` is on, otherwise of training clips (see `verify`)."""
        splits = self.splits if self.verify else {"train": self.split("train")}
        if not self.verify and not self.bucket:
            splits = {"train": splits["train"].take(_spread(len(splits["train"])))}
        clips = [self.clips(rows, name) for name, rows in splits.items()]
        return dict(zip(splits, read_headers(clips), strict=True))

    @cached_property
    def sampling_rate(self) -> int:
        """Samples per second that all clips are brought to."""
        rates, counts = np.unique([header.rate for header in self.headers["train"]], return_counts=True)
        rate = self.given_rate or int(rates[counts.argmax()])
        if len(rates) > 1 and self.given_rate is None:
            found = ", ".join(f"{rate} ({count} clips)" for rate, count in zip(rates, counts, strict=True))
            note(
                f"path={self.path!r}: training clips have different sampling rates, {found}: all are resampled to "
                f"{rate}, that of most. Choose with --data.sampling_rate"
            )
        return rate

    @cached_property
    def max_length(self) -> int:
        """Most samples of a clip."""
        if self.max_seconds is not None:
            return max(round(self.max_seconds * self.sampling_rate), 1)
        return max(header.length(self.sampling_rate) for header in self.headers["train"])

    @property
    def crop(self) -> int:
        """Most samples of a clip in training."""
        if self.crop_seconds is None:
            return self.max_length
        return min(max(round(self.crop_seconds * self.sampling_rate), 1), self.max_length)

    @property
    def _most(self) -> int:
        """Most samples that the network hears at once."""
        return self.crop if self.evaluate == "windows" else self.max_length

    def measure(self) -> Facts:
        """Labels, features and greatest length, and all that `AudioFrontend` needs, measured on training clips."""
        most = self._most
        options: dict[str, Any] = {"num_classes": len(self.labels), "in_channels": 1, "max_length": most}
        audio: dict[str, Any] = {
            "sampling_rate": self.sampling_rate,
            "max_length": most,
            "standardize": self.standardize,
            "representation": self.representation,
            "clip_length": self.max_length,
            "evaluate": self.evaluate,
            "sample_bits": 16 if self.cache else None,
        }
        rows = self.split("train")
        rows = rows.take(_spread(len(rows)))
        items = AudioItems(self.clips(rows, "train"), self.sampling_rate, self.max_length)
        if self.standardize == "train":
            mean, std = _moments(items[row]["x"][:, None] for row in range(len(items)))
            audio |= {"waveform_mean": float(mean), "waveform_std": float(std)}
        if self.representation == "log_mel":
            audio |= self.log_mel.sizes(self.sampling_rate)
            options |= {"in_channels": audio["n_mels"], "max_length": -(-most // audio["hop_length"])}
            frontend = AudioFrontend(**audio)
            mean, std = _moments(frontend(items[row]["x"][None])[0][0] for row in range(len(items)))  # of (M, mels)
            audio |= {"log_mel_mean": mean.tolist(), "log_mel_std": std.clamp_min(1e-3).tolist()}
            return Facts(kind="features", options=options, labels=self.labels, audio=Audio(**audio))
        instead = {"features": "turn audio into log-mel frames with --data.representation log_mel"}
        return Facts(kind="waveform", options=options, labels=self.labels, audio=Audio(**audio), instead=instead)

    def rows_as_items(self, rows: Rows, split: str, *, training: bool = False) -> Dataset:
        """Samples, (N,)."""
        clips = self.clips(rows, split)
        if self.verify and not self.origin(rows, split).known:
            read_headers([clips])
        decoded = DecodedClips(clips, self.sampling_rate) if self.cache else clips
        augmentation = self.augmentation if training else None
        if training:
            self._note_bounds()
        most = self.crop if training else self._record.clip_length or self.max_length
        return AudioItems(clips, self.sampling_rate, most, decoded=decoded, augmentation=augmentation, seed=self.seed)

    def _in_order(self, rows: Rows, split: str) -> DataLoader:
        if self.evaluate != "windows":
            return super()._in_order(rows, split)
        clips = Together(self.rows_as_items(rows, split), self.batch_size)
        most = self._record.max_length or self._most
        collate = partial(pad_windows, most=most, multiple=self.pad_to_multiple, at_once=self.batch_size)
        options = self._loader_options() | {"batch_size": 1, "collate_fn": collate}
        return DataLoader(clips, shuffle=False, **options)

    @property
    def _record(self) -> Audio:
        """What is heard of clips in evaluation, as a saved model knows it."""
        return self.facts.audio  # type: ignore[return-value]  # which clips always have

    def _note_bounds(self) -> None:
        """Say which changes are too long for the clips and so made shorter."""
        rate = self.sampling_rate
        seconds = np.array([min(header.length(rate), self.crop) / rate for header in self.headers["train"]])
        for name, count in self.augmentation.bounded(seconds).items() if len(seconds) else ():
            note(
                f"path={self.path!r}: augmentation.{name}={getattr(self.augmentation, name)} s is more than a quarter "
                f"of {count} of {len(seconds)} training clips, of {seconds.min():.3g} to {seconds.max():.3g} s: for "
                f"those it is at most a quarter of their length. Choose with --data.augmentation.{name}"
            )

    @property
    def collate(self) -> Callable[[list[Any]], Batch]:
        """Pad each batch to its longest clip."""
        return partial(pad_clips, multiple=self.pad_to_multiple, most=self._most)

    def lengths(self, rows: Rows) -> np.ndarray | None:
        """Samples of each training clip, before augmentation."""
        if not self.bucket:
            return None
        lengths = [header.length(self.sampling_rate) for header in self.headers["train"]]
        return np.minimum(lengths, self.crop)


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
            samples = cropped(samples, 2 * self.max_length, random)
            samples = self.augmentation(samples, self.rate, random, self.max_length)
            samples = cropped(samples, self.max_length, random)
        item = {"x": torch.from_numpy(np.ascontiguousarray(samples, np.float32)), "id": self.clips.name(row)}
        return item | self.clips.rows.target(row)


def _moments(values: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (C,) of all rows of several (N, C), the deviation at least 10⁻⁶."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for rows in values:
        rows = rows.double()
        count += len(rows)
        total, squares = total + rows.sum(0), squares + rows.square().sum(0)
    mean = total / count
    return mean, (squares / count - mean.square()).clamp_min(1e-12).sqrt()


def _spread(count: int) -> np.ndarray:
    """At most `SAMPLE` of `count` places, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).astype(int))

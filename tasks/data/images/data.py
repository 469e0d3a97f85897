"""Images with one label each, as pictures or as sequences of pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset

from lambda_seq.inference.pictures import Decoder, Look, check_colour, full_scale, greatest, in_order, look
from lambda_seq.tasks.data.images.augmentation import PictureAugmentation
from lambda_seq.tasks.data.images.decoding import Pictures
from lambda_seq.tasks.data.images.numbers import COLUMN, Layout, as_pictures, find_layout
from lambda_seq.tasks.data.labels import Rows
from lambda_seq.tasks.data.reading.cells import find_cells, holds_paths, read_all
from lambda_seq.tasks.data.reading.dialects import TableOptions
from lambda_seq.tasks.data.reading.media import MediaData
from lambda_seq.tasks.data.reading.notes import note
from lambda_seq.tasks.data.targets import TargetOptions
from lambda_seq.tasks.facts import Facts, Pixels

PATH_NAMES = ("file_name", "filename", "file", "path", "file_path", "filepath", "image_path", "img_path")
IMAGE_NAMES = ("image", "img", "picture", "photo", "pixels", *PATH_NAMES)  # of columns
CROPPED_FROM = 8 / 7  # size of pictures that are cropped to size 1: 256 pixels for 224
SAMPLE = 500  # training images that size, channels, mean and std are measured on

LARGE, LONG_SEQUENCE = (
    (256, 224),
    (96, 64),
)  # shorter edge from which on pictures are resized, and to which, unless asked
AUGMENTATION = 1  # tells the seed of these draws from others


class ImageData(MediaData):
    """Images with one label each: a hub data set, image folders, or tables that name images or hold them.

    Images are turned upright as EXIF says, transparent ones put on `background`, and of several frames or pages the
    first is taken. Numbers of more than 8 bits become bytes as shares of what is white, which is measured on training
    images: 1 for fractions, else the end of 8, 10, 12, 14 or 16 bits. Palettes and CMYK become colours. An image that
    is missing or cannot be read is an error that names it.

    Args:
        path: a name on the Hugging Face hub, a folder with one folder of images per class (or train/, validation/ and
            test/ of such), a table (parquet, jsonl, csv) with a column of images, of the bytes of their files or of
            paths (relative to the table's folder, or absolute) or of pixels as numbers (in a column each, as lists, or
            as text) and one of labels, a folder of such (named train*, validation* and test* for the splits), or
            "sklearn:digits".
        batch_size: images per step and device.
        num_workers: processes that decode images; 0 decodes in the training process.
        image_size: height and width after resizing, an int or a pair; images keep their aspect, what sticks out is cut
            off. Default: their own size if all have the same, else the median; where the shorter edge of that has more
            than 256 pixels, as photos have, it becomes 224 (of sequences, more than 96: 64).
        crop_padding: pixels of black border for random crops of the original size while training, at most half of the
            shorter edge; 0 for none.
        flip: mirror half of the images left to right while training; not for digits or letters.
        crop_scale: least and greatest part of a picture's area that training cuts out at random and resizes to the
            picture's size, such as [0.08, 1]; not for pictures whose borders matter.
        read_size: height and width that training pictures are read at if crop_scale cuts parts out of them; default:
            8/7 of their size.
        augment: other random changes while training, "randaugment" or "trivialaugment" (without settings), by kornia on
            the device that trains; an eighth of a batch gets the same kinds of changes.
        augment_layers: changes that RandAugment makes one after another.
        augment_magnitude: strength of RandAugment's changes, above 0 and below 30: the greater, the more they change.
        erasing: probability that a rectangle of a training picture is painted over with grey.
        grey: read colours as shades of grey, one channel.
        background: colour that transparent images are put on: a name or "#rrggbb".
        as_sequence: yield pixels in reading order, (H·W, channels), for sequence networks with stem "features".
        image_column: column of images, bytes, paths or numbers; found by its name or type if not given.
        pixel_shape: height, width and, for colours, 3, where tables hold pixels as numbers; default: they are a square.
        label_column: column of labels; found by its name or type if not given.
        subset: configuration of a hub data set that has several.
        validation_fraction: share of the training rows held out if there is no validation split; 0 for no validation.
        test_fraction: share of the training rows held out if there is no test split; 0 for no test.
        split_seed: of the choice of the rows held out.
        predict_path: images to predict instead of the test split; they need no labels: a folder, a file or a table.
        table: how csv, tsv, jsonl and json files are written, where that is not to be guessed.
        drop_incomplete: leave out rows without a label or with nothing in the column of images, and say how many; they
            are refused otherwise.
        target: what is known of a row: one class, any of several labels, or numbers, where that is not to be guessed.
    """

    view = "lambda_seq.tasks.inspection.views.PictureView"
    reads = (*MediaData.reads, "looks", "_layout")

    def __init__(
        self,
        path: str = "",
        batch_size: int = 64,
        num_workers: int = 0,
        image_size: int | tuple[int, int] | None = None,
        crop_padding: int = 0,
        flip: bool = False,
        crop_scale: tuple[float, float] | None = None,
        read_size: int | tuple[int, int] | None = None,
        augment: str = "none",
        augment_layers: int = 2,
        augment_magnitude: int = 10,
        erasing: float = 0.0,
        grey: bool = False,
        background: str = "white",
        as_sequence: bool = False,
        image_column: str | None = None,
        label_column: str | None = None,
        subset: str | None = None,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.0,
        split_seed: int = 0,
        predict_path: str | None = None,
        table: TableOptions = TableOptions(),  # noqa: B008 - frozen
        drop_incomplete: bool = False,
        pixel_shape: tuple[int, int] | tuple[int, int, int] | None = None,
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
        if crop_padding < 0:
            raise ValueError(f"crop_padding={crop_padding}: expected a number of pixels, at least 0")
        if read_size is not None and crop_scale is None:
            raise ValueError(f"read_size={read_size} without crop_scale: pictures are read at image_size; leave it out")
        check_colour("background", background)
        self.background = background
        self.image_size, self.read_size = _size("image_size", image_size), _size("read_size", read_size)
        self.image_column, self.as_sequence = image_column, as_sequence
        self.pixel_shape = pixel_shape
        self._layout: Layout | None = None  # of pictures that are numbers
        self.augmentation = PictureAugmentation(crop_scale, augment, augment_layers, augment_magnitude, erasing)
        self.crop_padding, self.flip, self.grey = crop_padding, flip, grey

    def cells(self, rows: Rows, split: str) -> Pictures:
        """As `pictures`."""
        return self.pictures(rows, split)

    def load_tables(self, path: str, subset: str | None = None, whole: bool = False) -> dict[str, datasets.Dataset]:
        """The splits found at a path, or with `whole` all rows as one; pictures that are numbers become files."""
        found = super().load_tables(path, subset, whole)
        if self._layout is None and "train" in found:
            shape, names = self.pixel_shape, IMAGE_NAMES
            self._layout = find_layout(found["train"], self.image_column, self.label_column, shape, names)
        layout = self._layout
        return found if layout is None else {name: as_pictures(table, layout) for name, table in found.items()}

    def content(self, table: datasets.Dataset) -> str:
        """The column of images."""
        given = self.image_column if self._layout is None else COLUMN
        return find_cells(table, "image_column", given, IMAGE_NAMES, datasets.Image, "images")

    def pictures(self, rows: Rows, split: str) -> Pictures:
        """The images of these rows.

        Raises:
            ValueError: files that the rows name are missing; lists them.
        """
        origin = self.origin(rows, split)
        return Pictures(rows, self.content(rows.table), origin.words, origin.root)

    @cached_property
    def looks(self) -> list[Look]:
        """What some training images are like, evenly spaced; that the files of all splits are there."""
        self._check_files([self.pictures(rows, split) for split, rows in self.splits.items()])
        pictures = self._sampled()
        return [pictures.load(row, look) for row in range(len(pictures))]

    def _sampled(self) -> Pictures:
        """The training images that are looked at."""
        rows = self.split("train")
        return self.pictures(rows.take(_spread(len(rows))), "train")

    @cached_property
    def decoder(self) -> Decoder:
        """Reads images as all of them shall be: size and channels measured on training images."""
        looks = self.looks
        sizes = np.array([found.size for found in looks])
        size = self.image_size
        if size is None:
            size = self._chosen_size(sizes)
        of = f"path={self.path!r}: of the {len(looks)} training images looked at"
        if transparent := sum(found.transparent for found in looks):
            note(f"{of}, {transparent} are transparent: put on {self.background}. Choose with --data.background")
        if moving := sum(found.frames > 1 for found in looks):
            note(f"{of}, {moving} have several frames or pages: the first one is taken")
        channels = 1 if self.grey or all(found.grey for found in looks) else 3
        return Decoder(size, channels, self.background, self._full_scale(self._sampled(), looks))

    def _chosen_size(self, sizes: np.ndarray) -> tuple[int, int]:
        """The size of pictures, the median if they differ, smaller if that is large: a batch has to fit into memory."""
        height, width = np.median(sizes, axis=0).astype(int).tolist()
        most, edge = (LONG_SEQUENCE if self.as_sequence else LARGE), min(height, width)
        least, greatest = ("×".join(map(str, size)) for size in (sizes.min(0), sizes.max(0)))
        differ, large = bool((sizes != sizes[0]).any()), edge > most[0]
        if large:
            height, width = (max(round(side * most[1] / edge), 1) for side in (height, width))
        if differ or large:
            found = f"have different sizes, {least} to {greatest}" if differ else f"have {least} pixels"
            why = " (they are large for a batch)" if large else ""
            note(
                f"path={self.path!r}: images {found}: all are resized to {height}×{width}{why}. "
                "Choose with --data.image_size"
            )
        return height, width

    def _full_scale(self, pictures: Pictures, looks: list[Look]) -> float | None:
        """The number that is white in images of more than 8 bits; None if there are none."""
        deep = [row for row, found in enumerate(looks) if found.deep]
        if not deep:
            return None
        most = max(pictures.load(row, greatest) for row in deep)
        white = full_scale(most, fractions=any(looks[row].mode == "F" for row in deep))
        note(
            f"path={self.path!r}: of the {len(looks)} training images looked at, {len(deep)} hold no bytes but numbers "
            f"up to {most:.6g}: {white:.6g} is taken as white, 0 as black"
        )
        return white

    def measure(self) -> Facts:
        """Labels, size and channels, the background, and mean and standard deviation of the training pixels."""
        decoder, pictures = self.decoder, self._sampled()
        counts = np.zeros((decoder.channels, 256), np.int64)  # of each value, so that no sum is rounded
        for row in range(len(pictures)):
            for channel, pixels in enumerate(pictures.load(row, decoder)):
                counts[channel] += np.bincount(pixels.ravel(), minlength=256)
        mean, std = _moments(counts)
        height, width = decoder.size
        options: dict[str, Any] = {"num_classes": len(self.labels), "in_channels": decoder.channels}
        options |= {"max_length": height * width} if self.as_sequence else {"image_size": [height, width]}
        pixels = Pixels(
            mean=mean.tolist(),
            std=np.maximum(std, 1.0).tolist(),
            background=decoder.background,
            full_scale=decoder.full_scale,
            size=[height, width],
        )
        if self.as_sequence:
            return Facts(kind="features", options=options, labels=self.labels, pixels=pixels)
        instead = {"features": "turn images into sequences of pixels with --data.as_sequence true"}
        return Facts(kind="image", options=options, labels=self.labels, pixels=pixels, instead=instead)

    def rows_as_items(self, rows: Rows, split: str, *, training: bool = False) -> Dataset:
        """Images as bytes, (C, H, W) or (H·W, C)."""
        pictures, augment = self.pictures(rows, split), None
        decoder = self.facts.pixels.decoder()  # type: ignore[union-attr]  # which pictures always have
        if training:
            decoder = replace(decoder, size=self._read_size)
            augment = Augmentation(self._padding, self.flip, self.seed)
        if not self.origin(rows, split).known:
            self._check_files([pictures])
        return ImageItems(pictures, decoder, augment, self.as_sequence)

    def _check_files(self, sets: list[Pictures]) -> None:
        """That all files which tables name are there; what folders hold is."""
        named = [pictures for pictures in sets if holds_paths(pictures.rows.table, pictures.column)]
        read_all([(pictures, pictures.check) for pictures in named])

    @cached_property
    def _padding(self) -> int:
        """Pixels of border for random crops: as asked for, as long as half of each edge remains picture."""
        most = min(self._read_size) // 2
        if self.crop_padding > most:
            height, width = self._read_size
            note(
                f"path={self.path!r}: crop_padding={self.crop_padding} is more than half of images of {height}×{width} "
                f"pixels, of which crops could hold nothing but border: it is {most}"
            )
        return min(self.crop_padding, most)

    @property
    def _read_size(self) -> tuple[int, int]:
        """Height and width of training pictures as they are read."""
        height, width = self.decoder.size
        if self.augmentation.crop_scale is None:
            return height, width
        return self.read_size or (round(height * CROPPED_FROM), round(width * CROPPED_FROM))

    @cached_property
    def _changes(self) -> PictureAugmentation:
        """The augmentation, with what the mean pixel is."""
        mean = self.facts.pixels.mean  # type: ignore[union-attr]  # which pictures always have
        return replace(self.augmentation, grey=sum(mean) / len(mean) / 255)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Change the pictures of a training batch at random, where they are trained."""
        if not self.augmentation or self.trainer is None or not self.trainer.training:
            return batch
        seed = [self.seed, self.trainer.current_epoch, self._trained(), self.share["rank"], AUGMENTATION]
        pixels = batch["x"]
        if self.as_sequence:  # (B, h·w, C)
            pixels = pixels.mT.unflatten(2, self._read_size)
        pixels = self._changes(pixels, self.decoder.size, seed)  # (B, C, H, W)
        return batch | {"x": pixels.flatten(2).mT.contiguous() if self.as_sequence else pixels}


class ImageItems(Dataset):
    """Items of images; an unreadable one is an error that names its file or row.

    Args:
        pictures: where they come from.
        decode: makes pixels (C, H, W) of an open image.
        augment: changes pixels at random; takes (pixels, epoch, row).
        as_sequence: pixels in reading order.
    """

    def __init__(
        self,
        pictures: Pictures,
        decode: Decoder,
        augment: Augmentation | None = None,
        as_sequence: bool = False,
    ) -> None:
        self.pictures, self.decode, self.augment, self.as_sequence = pictures, decode, augment, as_sequence

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """The image with key row or (epoch, row)."""
        epoch, row = key if isinstance(key, tuple) else (0, key)
        pixels = self.pictures.load(row, self.decode)  # (C, H, W)
        if self.augment is not None:
            pixels = self.augment(pixels, epoch, row)
        if self.as_sequence:
            pixels = in_order(pixels)
        item = {"x": torch.from_numpy(np.array(pixels)), "id": self.pictures.name(row)}
        return item | self.pictures.rows.target(row)


@dataclass(frozen=True)
class Augmentation:
    """Random crops and mirror images, the same for the same seed, epoch and row, in whichever process."""

    padding: int
    flip: bool
    seed: int

    def __call__(self, pixels: np.ndarray, epoch: int, row: int) -> np.ndarray:
        """Augmented pixels (C, H, W)."""
        if not self.padding and not self.flip:
            return pixels
        random = np.random.default_rng([self.seed, epoch, row])
        if self.padding:
            _, height, width = pixels.shape
            top, left = random.integers(0, 2 * self.padding + 1, size=2)
            wide = np.pad(pixels, ((0, 0), (self.padding, self.padding), (self.padding, self.padding)))
            pixels = wide[:, top : top + height, left : left + width]
        if self.flip and random.random() < 0.5:
            pixels = pixels[:, :, ::-1]
        return pixels


def _size(name: str, given: int | tuple[int, int] | None) -> tuple[int, int] | None:
    size = (given, given) if isinstance(given, int) else given
    if size is None:
        return None
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"{name}={given}: expected a number of pixels, at least 1, or two such, height and width")
    return size


def _moments(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (C,) of pixels of which there are so many of each value, (C, 256)."""
    values, total = np.arange(256), counts.sum(1)
    mean = counts @ values / total
    return mean, np.sqrt((counts * (values - mean[:, None]) ** 2).sum(1) / total)


def _spread(count: int) -> np.ndarray:
    """At most `SAMPLE` of `count` places, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).astype(int))

"""Images with one label each, as pictures or as sequences of pixels."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch.utils.data import Dataset

from tasks.data.labels import Rows, find_column
from tasks.data.module import ClassificationData
from tasks.data.picture_augmentation import PictureAugmentation

IMAGE_NAMES = ("image", "img", "picture", "pixels")
GREY_MODES = ("1", "L", "LA", "I", "I;16", "F")
CROPPED_FROM = 8 / 7  # size of pictures that are cropped to size 1: 256 pixels for 224
SAMPLE = 500  # training images that size, channels, mean and std are measured on

AUGMENTATION = 1  # tells the seed of these draws from others

log = logging.getLogger(__name__)


class ImageData(ClassificationData):
    """Images with one label each: a hub data set, image folders, or files that hold images.

    Args:
        path: a name on the Hugging Face hub, a folder with one folder of images per class (or train/, validation/ and
            test/ of such), a folder of or a single parquet file, or "sklearn:digits".
        batch_size: images per step and device.
        num_workers: processes that decode images; 0 decodes in the training process.
        image_size: height and width after resizing, an int or a pair; images keep their aspect, what sticks out is cut
            off. Default: their own size if all have the same, else the median.
        crop_padding: pixels of black border for random crops of the original size while training; 0 for none.
        flip: mirror half of the images left to right while training; not for digits or letters.
        crop_scale: least and greatest part of a picture's area that training cuts out at random and resizes to the
            picture's size, such as [0.08, 1]; not for pictures whose borders matter.
        read_size: height and width that training pictures are read at if crop_scale cuts parts out of them; default:
            8/7 of their size.
        augment: other random changes while training, "randaugment" or "trivialaugment" (without settings), by kornia on
            the device that trains; an eighth of a batch gets the same kinds of changes.
        augment_layers: changes that RandAugment makes one after another.
        augment_magnitude: strength of RandAugment's changes, above 0 and below 30.
        erasing: probability that a rectangle of a training picture is painted over with grey.
        grey: read colours as shades of grey, one channel.
        as_sequence: yield pixels in reading order, (H·W, channels), for sequence networks with stem "features".
        image_column: column of images; found by its name or type if not given.
        label_column: column of labels; found by its name or type if not given.
        subset: configuration of a hub data set that has several.
        validation_fraction: share of the training rows held out if there is no validation split; 0 for no validation.
        test_fraction: share of the training rows held out if there is no test split; 0 for no test.
        split_seed: of the choice of the rows held out.
        predict_path: images to predict instead of the test split; they need no labels.
    """

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
        as_sequence: bool = False,
        image_column: str | None = None,
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
        if crop_padding < 0:
            raise ValueError(f"crop_padding={crop_padding}: expected a number of pixels, at least 0")
        if read_size is not None and crop_scale is None:
            raise ValueError(f"read_size={read_size} without crop_scale: pictures are read at image_size; leave it out")
        self.image_size, self.read_size = _size("image_size", image_size), _size("read_size", read_size)
        self.image_column, self.as_sequence = image_column, as_sequence
        self.augmentation = PictureAugmentation(crop_scale, augment, augment_layers, augment_magnitude, erasing)
        self.crop_padding, self.flip, self.grey = crop_padding, flip, grey

    @cached_property
    def decoder(self) -> Decoder:
        """Reads images as all of them shall be: size and channels measured on training images."""
        rows = self.split("train")
        items = ImageItems(rows, self._column(rows), f"train split of path={self.path!r}", _header)
        headers = [items.load(row) for row in _spread(len(rows))]
        sizes = np.array([size for _, size in headers])
        size = self.image_size
        if size is None:
            height, width = np.median(sizes, axis=0).astype(int)
            size = (int(height), int(width))
            if (sizes != sizes[0]).any():
                log.warning(
                    "Images have different sizes, %s to %s: all are resized to %s. Choose with --data.image_size",
                    *("×".join(map(str, edge)) for edge in (sizes.min(0), sizes.max(0), size)),
                )
        return Decoder(size, 1 if self.grey or all(mode in GREY_MODES for mode, _ in headers) else 3)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Labels, size and channels, and mean and standard deviation of the training pixels."""
        rows = self.split("train")
        items = ImageItems(rows, self._column(rows), f"train split of path={self.path!r}", self.decoder)
        pixels = np.stack([items.load(row) for row in _spread(len(rows))]).astype(np.float64)  # (n, C, H, W)
        height, width = self.decoder.size
        options: dict[str, Any] = {"num_classes": len(self.labels), "in_channels": self.decoder.channels}
        options |= {"max_length": height * width} if self.as_sequence else {"image_size": [height, width]}
        return {
            "labels": self.labels,
            "input": "features" if self.as_sequence else "image",
            "options": options,
            "mean": pixels.mean((0, 2, 3)).tolist(),
            "std": np.maximum(pixels.std((0, 2, 3)), 1.0).tolist(),
        }

    def rows_as_items(self, rows: Rows, split: str, *, training: bool = False) -> Dataset:
        """Images as bytes, (C, H, W) or (H·W, C)."""
        augment = Augmentation(self.crop_padding, self.flip, self.seed) if training else None
        column, decoder = self._column(rows), replace(self.decoder, size=self._read_size) if training else self.decoder
        return ImageItems(rows, column, f"{split} split of path={self.path!r}", decoder, augment, self.as_sequence)

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
        return replace(self.augmentation, grey=sum(self.facts["mean"]) / len(self.facts["mean"]) / 255)

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

    def _column(self, rows: Rows) -> str:
        return find_column(
            rows.table, "image_column", self.image_column, IMAGE_NAMES, lambda kind: isinstance(kind, datasets.Image)
        )


class ImageItems(Dataset):
    """Items of images; an unreadable one is an error that names its file or row.

    Args:
        rows: which rows of which table.
        column: of the images.
        where: the rows' origin, for errors.
        decode: makes what is needed of an open image.
        augment: changes pixels at random; takes (pixels, epoch, row).
        as_sequence: pixels in reading order.
    """

    def __init__(
        self,
        rows: Rows,
        column: str,
        where: str,
        decode: Callable[[Image.Image], Any],
        augment: Augmentation | None = None,
        as_sequence: bool = False,
    ) -> None:
        if not isinstance(rows.table.features[column], datasets.Image):
            raise ValueError(f"image_column={column!r} holds {rows.table.features[column]}: expected images")
        self.table = rows.table.select_columns(column).cast_column(column, datasets.Image(decode=False))
        self.rows, self.column, self.where = rows, column, where
        self.decode, self.augment, self.as_sequence = decode, augment, as_sequence

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """The image with key row or (epoch, row)."""
        epoch, row = key if isinstance(key, tuple) else (0, key)
        pixels = self.load(row)  # (C, H, W)
        if self.augment is not None:
            pixels = self.augment(pixels, epoch, row)
        if self.as_sequence:
            pixels = pixels.reshape(len(pixels), -1).T  # (H·W, C)
        item = {"x": torch.from_numpy(np.array(pixels)), "id": self.name(row)}
        return item if self.rows.labels is None else item | {"label": int(self.rows.labels[row])}

    def name(self, row: int) -> str:
        """The image's file, or its row number if it has none of its own."""
        index = int(self.rows.indices[row])
        cell = self.table[index][self.column]
        return str(index) if cell is None or cell["bytes"] is not None else cell["path"]

    def load(self, row: int) -> Any:
        """What `decode` makes of the image.

        Raises:
            ValueError: the image is missing or unreadable; names it.
        """
        index = int(self.rows.indices[row])
        cell = self.table[index][self.column]
        named = f"{self.where}, row {index}" + (f", {cell['path']}" if cell and cell["path"] else "")
        if cell is None:
            raise ValueError(f"{named}: no image; remove the row")
        try:
            with Image.open(cell["path"] if cell["bytes"] is None else io.BytesIO(cell["bytes"])) as image:
                return self.decode(image)
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{named}: not a readable image ({error}); replace or remove it") from error


@dataclass(frozen=True)
class Decoder:
    """An image as bytes of one size and number of channels."""

    size: tuple[int, int]  # height, width
    channels: int

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Pixels (C, H, W) from 0 to 255; upright, resized if need be, transparency dropped."""
        image = ImageOps.exif_transpose(image)
        if image.mode in ("I;16", "I"):  # 16 bits of grey, which `convert` would cut off at 255
            image = Image.fromarray((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))
        image = image.convert("L" if self.channels == 1 else "RGB")
        height, width = self.size
        if image.size != (width, height):
            image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        return pixels[None] if self.channels == 1 else pixels.transpose(2, 0, 1)


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
    if size is not None and min(size) < 1:
        raise ValueError(f"{name}={given}: expected at least one pixel")
    return size


def _header(image: Image.Image) -> tuple[str, tuple[int, int]]:
    """Mode, height and width, read without decoding."""
    return image.mode, (image.height, image.width)


def _spread(count: int) -> np.ndarray:
    """At most `SAMPLE` of `count` places, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).astype(int))

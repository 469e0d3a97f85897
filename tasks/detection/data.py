"""Photos with boxes and masks, as batches: COCO's JSON, metadata.jsonl, rows of a table, or generated scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from lambda_seq.tasks.data.base import Data
from lambda_seq.tasks.data.loading import EpochSampler, ResumableLoader
from lambda_seq.tasks.data.reading.sources import is_saved
from lambda_seq.tasks.detection import scenes
from lambda_seq.tasks.detection.checking import checked
from lambda_seq.tasks.detection.coco import find_annotations, read_coco, read_json
from lambda_seq.tasks.detection.folders import find_metadata, photos, read_metadata
from lambda_seq.tasks.detection.records import Album, Picture, decoded
from lambda_seq.tasks.detection.requirements import require
from lambda_seq.tasks.detection.rows import holds_rows, read_rows
from lambda_seq.tasks.facts import Facts, Pixels

if TYPE_CHECKING:
    from lambda_seq.tasks.detection.changes import Changes

MEASURED = 500  # pictures, at most, that mean and std of the pixels are of
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]  # of ImageNet, for weights that saw these


class DetectionData(Data):
    """Photos with the boxes, and perhaps the outlines, of the objects in them.

    Splits are found by name: files of COCO's instances (such as annotations/instances_train2017.json) with the folders
    of their photos, or SPLIT/metadata.jsonl with "file_name" and "objects" ("bbox" as x, y, width, height, "category",
    and perhaps "segmentation", "iscrowd", "area"), where SPLIT is train, val(idation) or test. Or rows of a table have
    the photo as "image" and the same "objects": a data set of the hub, parquet files, or what `save_to_disk` of
    `datasets` wrote. Without validation a part of the training photos is held out. Mistakes in the files are errors
    before training begins.

    Args:
        path: a folder, one file of instances or of rows, or a name on the Hugging Face hub; "digits:scenes" for
            generated scenes of handwritten digits.
        batch_size: photos per step and device.
        num_workers: processes that prepare photos; 0 prepares them in the training process.
        masks: whether objects are outlined, too; default: where the objects of all splits have outlines.
        annotations: files of instances below the folder, {split} in the place of train, val or test, such as
            labels/{split}.json; default: found.
        images: folders of their photos below the folder, perhaps with {split}; default: found.
        size: pixels that the shorter side of photos gets, in training and after.
        max_size: pixels that their longer side gets at most.
        flip: mirror half of the training photos.
        scale_jitter: least and greatest scale of training photos, such as [0.1, 2.0]: they get their size, are scaled
            by a random number between these, and cropped at random to size × size pixels.
        standardize: "data", by mean and deviation of training pixels, or "imagenet", by those of ImageNet, for weights
            that were trained so.
        subset: configuration of a hub data set that has several.
        scenes: generated scenes of training, validation and test.
        validation_fraction: share of the training photos held out if there is no validation split; 0 for none.
        split_seed: of which photos are held out.
        predict_path: a folder of photos, or one photo, to predict instead of the test split.

    Raises:
        ModuleNotFoundError: torchvision or pycocotools is missing.
        ValueError: a number out of range.
    """

    view = "lambda_seq.tasks.detection.view.AlbumView"
    target_kind = "labels"  # of a photo: which classes it has objects of

    def __init__(
        self,
        path: str = scenes.NAME,
        batch_size: int = 4,
        num_workers: int = 0,
        masks: bool | None = None,
        annotations: str | None = None,
        images: str | None = None,
        size: int = 800,
        max_size: int = 1333,
        flip: bool = True,
        scale_jitter: Sequence[float] | None = None,
        standardize: str = "data",
        subset: str | None = None,
        scenes: Sequence[int] = (1000, 200, 200),
        validation_fraction: float = 0.1,
        split_seed: int = 0,
        predict_path: str | None = None,
    ) -> None:
        super().__init__(
            path,
            batch_size=batch_size,
            num_workers=num_workers,
            subset=subset,
            validation_fraction=validation_fraction,
            test_fraction=0.0,
            predict_path=predict_path,
        )
        require()
        if not 1 <= size <= max_size:
            raise ValueError(
                f"size={size}, max_size={max_size}: expected at least a pixel, and max_size not below size"
            )
        if scale_jitter is not None and (len(scale_jitter) != 2 or not 0 < scale_jitter[0] <= scale_jitter[1]):
            raise ValueError(f"scale_jitter={scale_jitter}: expected a least and a greatest scale, such as [0.1, 2.0]")
        if standardize not in ("data", "imagenet"):
            raise ValueError(f"standardize={standardize!r}: expected 'data' or 'imagenet'")
        if len(scenes) != 3 or min(scenes) < 1:
            raise ValueError(
                f"scenes={scenes}: expected three numbers, of training, validation and test, of at least 1"
            )
        self.masks, self.annotations, self.images = masks, annotations, images
        self.size, self.max_size, self.flip, self.scale_jitter = size, max_size, flip, scale_jitter
        self.standardize, self.scenes, self.split_seed = standardize, tuple(scenes), split_seed
        self._predicted: tuple[str, Album] | None = None

    @property
    def labels(self) -> list[str]:
        """Names of the classes."""
        return self.split("train").classes

    def read(self) -> dict[str, Album]:
        """The splits, checked.

        Raises:
            FileNotFoundError: there are no such data, or photos are missing.
            ConnectionError: `path` can only be a name on the hub, which cannot be reached.
            ValueError: a mistake in a file, which is named; see `tasks.detection.checking`.
        """
        if self.path == scenes.NAME:
            names = ("train", "validation", "test")
            return {name: scenes.album(name, count) for name, count in zip(names, self.scenes, strict=True)}
        albums = self._found()
        training = albums["train"]
        plain = [name for name, album in albums.items() if not album.masked]
        if self.masks and plain:
            raise ValueError(
                f"masks=True: not all objects of the {plain[0]} split of path={self.path!r} have outlines "
                "('segmentation'); give masks of all, or --data.masks false"
            )
        albums = {
            name: checked(self._of_classes(album, training, name), f"{name} split") for name, album in albums.items()
        }
        if "validation" not in albums and self.validation_fraction:
            self._hold_out(albums)
        return albums

    def _found(self) -> dict[str, Album]:
        root = Path(self.path).expanduser()
        if not root.exists() or is_saved(root) or (root.is_file() and holds_rows(root)):
            return read_rows(self.path, self.subset)
        try:
            files = find_annotations(root, self.annotations, self.masks)
            if "train" in files:
                return {name: read_coco(file, root, self.images, name) for name, file in files.items()}
        finally:
            read_json.cache_clear()  # gigabytes, of COCO
        files = find_metadata(root) if root.is_dir() else {}
        if "train" in files:
            return read_metadata(files)
        if holds_rows(root):
            return read_rows(self.path, self.subset)
        raise FileNotFoundError(
            f"path={self.path!r}: no annotations of training photos; expected COCO's instances, such as "
            "annotations/instances_train.json (others: --data.annotations), train/metadata.jsonl, or parquet files"
        )

    def _of_classes(self, album: Album, training: Album, name: str) -> Album:
        """The album with the classes of training.

        Raises:
            ValueError: it has another one.
        """
        if (album.classes, album.categories) == (training.classes, training.categories):
            return album
        numbers = {category: place for place, category in enumerate(training.categories)}
        for place, category in enumerate(album.categories):
            if category not in numbers or training.classes[numbers[category]] != album.classes[place]:
                raise ValueError(
                    f"{name} split of path={self.path!r}: category {category} is {album.classes[place]!r}, which is "
                    "unknown to training; give all splits the same categories"
                )
        renumber = np.array([numbers[category] for category in album.categories], np.int64)
        pictures = [replace(picture, labels=renumber[picture.labels]) for picture in album.pictures]
        return Album(pictures, training.classes, training.categories, album.masked)

    def _hold_out(self, albums: dict[str, Album]) -> None:
        every = albums["train"]
        count = max(round(len(every) * self.validation_fraction), 1)
        if len(every) < 2:
            raise ValueError(f"path={self.path!r}: too few training photos to hold some out for validation")
        order = np.random.default_rng(self.split_seed).permutation(len(every))
        for name, rows in (("train", np.sort(order[count:])), ("validation", np.sort(order[:count]))):
            albums[name] = replace(every, pictures=[every.pictures[row] for row in rows])
        self.note_held_out("validation", f"{count} of {len(every)} training photos")

    def measure(self) -> Facts:
        """Classes, sizes, whether there are masks, and mean and deviation of the pixels."""
        training: Album = self.splits["train"]
        every = all(album.masked for album in self.splits.values())
        masks = every if self.masks is None else self.masks
        mean, std = self._pixels(training) if self.standardize == "data" else (MEAN, STD)
        options = {"num_classes": len(training.classes), "in_channels": 3, "size": self.size, "max_size": self.max_size}
        return Facts(
            kind="image",
            options={**options, "masks": masks, "categories": training.categories},
            labels=training.classes,
            pixels=Pixels(mean=mean, std=std),
        )

    def _pixels(self, album: Album) -> tuple[list[float], list[float]]:
        step = -(-len(album) // MEASURED)
        count, total, squares = 0, np.zeros(3), np.zeros(3)  # of each channel
        for picture in album.pictures[::step]:
            pixels = read_pixels(picture).reshape(-1, 3).astype(np.float64)
            count, total, squares = count + len(pixels), total + pixels.sum(0), squares + np.square(pixels).sum(0)
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean**2, 1.0))
        return mean.tolist(), std.tolist()

    def split(self, name: str) -> Album:
        """The photos of a split.

        Raises:
            ValueError: there is no such split.
        """
        if name not in self.splits:
            raise ValueError(f"path={self.path!r} has no {name} split, only {', '.join(self.splits)}; add one")
        album: Album = self.splits[name]
        return album

    def items(self, album: Album, changes: Changes | None = None) -> Items:
        """Photos as a data set."""
        return Items(album, self.facts.options["masks"], changes)

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches; see `EpochSampler`."""
        from lambda_seq.tasks.detection.changes import Changes

        changes = Changes(self.size, self.max_size, flip=self.flip, scale_jitter=self.scale_jitter, seed=self.seed)
        items = self.items(self.split("train"), changes)
        sampler = EpochSampler(items, batch_size=self.batch_size, seed=self.seed, **self.share)
        return ResumableLoader(
            items, sampler=sampler, trained=self._trained, drop_last=sampler.drop_last, **self._loader_options()
        )

    def val_dataloader(self) -> DataLoader | list:
        """The validation split in order; nothing if it is switched off by validation_fraction=0."""
        if "validation" not in self.splits and not self.validation_fraction:
            return []
        return self._in_order(self.split("validation"))

    def test_dataloader(self) -> DataLoader:
        """The test split in order."""
        return self._in_order(self.split("test"))

    def predict_dataloader(self) -> DataLoader:
        """The photos of `predict_path`; without it the test split."""
        return self._in_order(self.to_predict())

    def to_predict(self) -> Album:
        """The photos that are predicted."""
        if self.predict_path is None:
            return self.split("test")
        if self._predicted is None or self._predicted[0] != self.predict_path:
            known = self.split("train")
            self._predicted = self.predict_path, photos(Path(self.predict_path), known.classes, known.categories)
        return self._predicted[1]

    def _in_order(self, album: Album) -> DataLoader:
        return DataLoader(self.items(album), shuffle=False, **self._loader_options())

    @property
    def collate(self) -> Callable[[list[Any]], Any]:
        """Photos of any size as lists."""
        return collate


class Items(Dataset):
    """Photos with their objects; keys are row or, in training, (epoch, row).

    Args:
        album: of a split.
        masks: whether objects have masks.
        changes: of training; None leaves photos as they are, with all of their objects.
    """

    def __init__(self, album: Album, masks: bool, changes: Changes | None = None) -> None:
        self.album, self.masks, self.changes = album, masks and album.masked, changes

    def __len__(self) -> int:
        return len(self.album)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """A photo as "id", "x" (3, H, W) of bytes, and "target".

        A target has boxes (n, 4) as x, y, x, y, labels from 1 (n,), and masks (n, H, W). Training has no crowds; others
        have "iscrowd" and "area" (n,) too.
        """
        epoch, row = key if isinstance(key, tuple) else (0, key)
        picture: Picture = self.album.pictures[row]
        if self.changes is not None:
            picture = picture.take(~picture.crowd)
        pixels = torch.from_numpy(read_pixels(picture)).movedim(-1, 0).contiguous()  # (3, H, W)
        boxes = torch.from_numpy(picture.boxes).float()
        target = {
            "boxes": torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
            "labels": torch.from_numpy(picture.labels) + 1,  # 0 is the ground
        }
        if self.masks:
            target["masks"] = _masks(picture)
        if self.changes is not None:
            pixels, target = self.changes(pixels, target, epoch, row)
        else:
            target |= {
                "iscrowd": torch.from_numpy(picture.crowd).long(),
                "area": torch.from_numpy(picture.areas).float(),
            }
        return {"id": picture.id, "x": pixels, "target": target}


def read_pixels(picture: Picture) -> np.ndarray:
    """Bytes (H, W, 3) of a picture, as it is in its file.

    Raises:
        ValueError: the file is damaged.
    """
    if not isinstance(picture.source, str):
        return picture.source()[0]
    try:
        with Image.open(picture.source) as file:
            return np.array(file.convert("RGB"))
    except OSError as error:
        raise ValueError(f"{picture.source} cannot be read: {error}; replace the file") from error


def _masks(picture: Picture) -> torch.Tensor:
    masks = [decoded(shape, picture.height, picture.width) for shape in picture.shapes or []]
    empty = np.zeros((0, picture.height, picture.width), np.uint8)
    return torch.from_numpy(np.stack(masks) if masks else empty)


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch: "id", "x" and "target" of the photos, as lists."""
    return {name: [item[name] for item in items] for name in items[0]}

"""How photos with objects are looked at by `lambda-seq data`: which classes they hold, how large, and where."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
from PIL import Image, ImageDraw

from lambda_seq.tasks.callbacks.pictures import GAP
from lambda_seq.tasks.data.labels import Rows
from lambda_seq.tasks.data.reading.notes import note
from lambda_seq.tasks.detection.data import read_pixels
from lambda_seq.tasks.detection.records import Picture
from lambda_seq.tasks.inspection.views import View, digest

SIDE = 192  # pixels of the longer side of a photo on a sheet


class AlbumView(View):
    """Photos by their pixels; a row's labels are the classes of its objects, of which it may have any."""

    unit = "pixels"

    def rows(self, split: str) -> Rows:
        """The photos of a split, and which classes each holds; says how many objects there are, and how large."""
        album = self.data.splits[split]
        held = np.zeros((len(album), len(album.classes)))
        for row, picture in enumerate(album.pictures):
            held[row, picture.labels] = 1
        boxes = np.concatenate([picture.boxes for picture in album.pictures])
        if len(boxes):
            sides = np.sqrt(boxes[:, 2] * boxes[:, 3])
            crowds = sum(int(picture.crowd.sum()) for picture in album.pictures)
            outlined = "with outlines" if album.masked else "not all with outlines"
            note(
                f"{split}: {len(boxes):,} objects, {outlined}, {crowds:,} of them crowds; sides of {sides.min():.0f} "
                f"to {sides.max():.0f} pixels, median {np.median(sides):.0f} (--data.size, --model.anchor_scale)"
            )
        numbered = datasets.Dataset.from_dict({"photo": list(range(len(album)))})
        return Rows(numbered, np.arange(len(album)), held)

    def length(self, rows: Rows, split: str) -> tuple[np.ndarray, list[str]]:
        """Pixels of the photos."""
        return np.array([one.height * one.width for one in self._pictures(rows, split)], float), []

    def keys(self, rows: Rows, split: str) -> Iterator[bytes]:
        """Digests of the files, or of what is drawn."""
        for picture in self._pictures(rows, split):
            if isinstance(picture.source, str):
                yield digest(picture.source)
            else:
                yield hashlib.sha256(read_pixels(picture).tobytes()).digest()

    def line(self, rows: Rows, split: str, place: int) -> str:
        """The size of a photo, and how many objects of which classes it has."""
        picture = self.data.splits[split].pictures[rows.indices[place]]
        counts = Counter(self.data.labels[label] for label in picture.labels.tolist())
        named = ", ".join(f"{count} × {name}" for name, count in counts.most_common())
        return f"{picture.height}×{picture.width}, {len(picture.labels)} objects" + (f": {named}" if named else "")

    def name(self, rows: Rows, split: str, place: int) -> str:
        """A file's name with its folder, if it has one."""
        source = self.data.splits[split].pictures[rows.indices[place]].source
        return "/".join(Path(source).parts[-2:]) if isinstance(source, str) else super().name(rows, split, place)

    def tile(self, rows: Rows, split: str, place: int) -> np.ndarray:
        """The photo, small, with its boxes."""
        picture = self.data.splits[split].pictures[rows.indices[place]]
        scale = SIDE / max(picture.height, picture.width)
        shown = Image.fromarray(read_pixels(picture))
        shown = shown.resize((max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)))
        pen = ImageDraw.Draw(shown)
        for x, y, width, height in (picture.boxes * scale).tolist():
            pen.rectangle((x, y, x + width, y + height), outline=GAP, width=2)
        return np.asarray(shown)

    def _pictures(self, rows: Rows, split: str) -> list[Picture]:
        every = self.data.splits[split].pictures
        return [every[row] for row in rows.indices.tolist()]

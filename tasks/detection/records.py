"""Annotated pictures, as they are read of any format and before any pixel is."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

Shape = list[list[float]] | dict[str, Any]  # polygons, each x, y, x, y, …, or run lengths {"size", "counts"}


@dataclass
class Picture:
    """A picture and the objects in it.

    Attributes:
        id: a name, by which predictions are found again; of COCO the number.
        source: the file, or what draws (pixels, masks) of a generated one.
        height, width: in pixels.
        boxes: (x, y, width, height) of each object.
        labels: number of each object's class, from 0.
        crowd: objects that are a region full of them: not trained, and neither right nor wrong to find.
        areas: in pixels, which say whether an object is small, medium or large.
        shapes: outline of each object; None without masks.
    """

    id: int | str
    source: str | Callable[[], tuple[UInt8[np.ndarray, "H W 3"], Bool[np.ndarray, "n H W"]]]
    height: int
    width: int
    boxes: Float[np.ndarray, "n 4"] = field(default_factory=lambda: np.zeros((0, 4)))
    labels: Int[np.ndarray, " n"] = field(default_factory=lambda: np.zeros(0, np.int64))
    crowd: Bool[np.ndarray, " n"] = field(default_factory=lambda: np.zeros(0, bool))
    areas: Float[np.ndarray, " n"] = field(default_factory=lambda: np.zeros(0))
    shapes: list[Shape] | None = None

    def take(self, kept: Bool[np.ndarray, " n"]) -> Picture:
        """The same with some of its objects."""
        shapes = None if self.shapes is None else [one for one, keep in zip(self.shapes, kept, strict=True) if keep]
        parts = {name: getattr(self, name)[kept] for name in ("boxes", "labels", "crowd", "areas")}
        return Picture(self.id, self.source, self.height, self.width, **parts, shapes=shapes)


@dataclass
class Album:
    """The pictures of a split.

    Attributes:
        pictures: in order.
        classes: names, in the order of their numbers.
        categories: number of each class in the files, which may have gaps.
        masked: whether all objects have outlines.
    """

    pictures: Sequence[Picture]
    classes: list[str]
    categories: list[int]
    masked: bool

    def __len__(self) -> int:
        return len(self.pictures)


def decoded(shape: Shape, height: int, width: int) -> UInt8[np.ndarray, "H W"]:
    """The mask of an outline, of zeros and ones."""
    from pycocotools import mask

    if isinstance(shape, dict):
        runs = mask.frPyObjects(shape, height, width) if isinstance(shape["counts"], list) else shape
    else:
        runs = mask.merge(mask.frPyObjects(shape, height, width))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)  # pycocotools' own array
        return mask.decode(runs)


def encoded(mask: Bool[np.ndarray, "H W"]) -> dict[str, Any]:
    """Run lengths of a mask, which JSON can hold."""
    from pycocotools import mask as runs

    found = runs.encode(np.asfortranarray(mask, np.uint8))
    return {"size": found["size"], "counts": found["counts"].decode()}

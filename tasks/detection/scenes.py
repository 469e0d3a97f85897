"""Scenes of handwritten digits, generated: several on a ground like a photo's, with boxes and masks by construction.

Each scene depends on its split and number alone. Splits have digits of their own writing: those of scikit-learn are
divided before scenes are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from lambda_seq.tasks.detection.records import Album, Picture, encoded

NAME = "digits:scenes"
SEED = 20
SPLITS = {"train": (0, 0, 1300), "validation": (1, 1300, 1550), "test": (2, 1550, 1797)}  # number, digits from, to
SIDES = (80, 128)  # least and greatest height and width of a scene
MOST = 6  # digits in a scene
DIGIT = (14, 44)  # least and greatest side of a digit
SEEN = 0.6  # part of a digit that others leave to be seen, at least
INK = 0.35  # of a digit's darkest pixel, from which on a pixel belongs to it


@cache
def handwritten() -> tuple[Float[np.ndarray, "n 8 8"], Int[np.ndarray, " n"]]:
    """Scikit-learn's digits from 0 to 1, and which they are."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.images / 16, found.target


def album(split: str, count: int) -> Album:
    """The scenes of a split."""
    scenes = [Scene(split, row) for row in range(count)]
    return Album([_picture(scene) for scene in scenes], list("0123456789"), list(range(10)), masked=True)


@dataclass(frozen=True)
class Scene:
    """A scene; called, it is drawn.

    Attributes:
        split: whose digits it shows.
        row: its number.
    """

    split: str
    row: int

    def __call__(self) -> tuple[UInt8[np.ndarray, "H W 3"], Bool[np.ndarray, "n H W"]]:
        """Pixels, and the mask of each digit."""
        pixels, masks, _ = self.draw()
        return pixels, masks

    def draw(self) -> tuple[UInt8[np.ndarray, "H W 3"], Bool[np.ndarray, "n H W"], Int[np.ndarray, " n"]]:
        """Pixels, masks, and which digits they are; one scene in twenty has none."""
        number, first, end = SPLITS[self.split]
        random = np.random.default_rng([SEED, number, self.row])
        images, targets = handwritten()
        height, width = (int(side) for side in random.integers(SIDES[0], SIDES[1] + 1, 2))
        pixels = ground(random, height, width)
        masks: list[np.ndarray] = []
        labels: list[int] = []
        wanted = 0 if random.random() < 0.05 else int(random.integers(1, MOST + 1))
        for _ in range(wanted):
            which, side = int(random.integers(first, end)), int(random.integers(DIGIT[0], DIGIT[1] + 1))
            ink = _enlarged(images[which], side)
            top, left = int(random.integers(0, height - side + 1)), int(random.integers(0, width - side + 1))
            mask = np.zeros((height, width), bool)
            mask[top : top + side, left : left + side] = ink > INK
            shade = random.integers(0, 256, 3)
            behind = pixels[mask].mean(0)
            if np.abs(shade - behind).sum() < 150:  # hardly to be seen
                shade = np.where(behind > 127, behind - 90, behind + 90)
            rest = [old & ~mask for old in masks]
            if any(seen.sum() < SEEN * whole.sum() for seen, whole in zip(rest, masks, strict=True)):
                continue  # it would hide another one
            pixels[mask] = np.clip(shade + random.normal(0, 8, (int(mask.sum()), 3)), 0, 255)
            masks, labels = [*rest, mask], [*labels, int(targets[which])]
        shaped = np.stack(masks) if masks else np.zeros((0, height, width), bool)
        return pixels.astype(np.uint8), shaped, np.array(labels, np.int64)


def ground(random: np.random.Generator, height: int, width: int) -> Float[np.ndarray, "H W 3"]:
    """Soft shades with edges and grain, as a photo has them."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.zeros((height, width, 3)) + random.uniform(40, 215, 3)
    for _ in range(4):
        waves = np.sin(
            random.uniform(-0.09, 0.09) * rows + random.uniform(-0.09, 0.09) * columns + random.uniform(0, 6)
        )
        pixels += waves[..., None] * random.uniform(-25, 25, 3)
    for _ in range(int(random.integers(1, 4))):  # a surface that ends somewhere
        side = random.uniform(-1, 1) * (rows - random.uniform(0, height)) + random.uniform(-1, 1) * (
            columns - random.uniform(0, width)
        )
        pixels[side > 0] += random.uniform(-45, 45, 3)
    return np.clip(pixels + random.normal(0, 6, pixels.shape), 0, 255)


def _enlarged(image: Float[np.ndarray, "8 8"], side: int) -> Float[np.ndarray, "s s"]:
    """A digit of side × side pixels, shades between its own."""
    places = np.clip((np.arange(side) + 0.5) * 8 / side - 0.5, 0, 7)
    low = np.minimum(places.astype(int), 6)
    part = places - low
    rows = image[low] * (1 - part)[:, None] + image[low + 1] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, low + 1] * part


def _picture(scene: Scene) -> Picture:
    pixels, masks, labels = scene.draw()
    boxes = np.array([_box(mask) for mask in masks], float).reshape(-1, 4)
    return Picture(
        scene.row,
        scene,
        pixels.shape[0],
        pixels.shape[1],
        boxes,
        labels,
        np.zeros(len(masks), bool),
        masks.sum((1, 2)).astype(float),
        [encoded(mask) for mask in masks],
    )


def _box(mask: Bool[np.ndarray, "H W"]) -> tuple[int, int, int, int]:
    """(x, y, width, height) around a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]

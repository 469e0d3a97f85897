"""The recipe `pictures`: a small residual network, or one of sequences of pixels, by number and size of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lambda_seq.tasks.data import ImageData
from lambda_seq.tasks.recipes.registry import Choice, Measured, Recipe, register
from lambda_seq.tasks.recipes.rules import (
    MONITOR,
    OPTIMIZER,
    batches,
    by,
    classes_in_words,
    counted,
    epochs,
    few,
    monitors,
    of_network,
    optimizer,
    smoothing,
)

LARGEST = 96  # pixels of the shorter edge; larger pictures are resized to that
CROPPED = 64  # pixels of the shorter edge from which on parts are cut out, in place of shifts
MULTIPLE = 8  # of pixels that resized edges have
NETWORKS = (  # options of lambda_resnet50, by pixels of the shorter edge: its bottlenecks, but few and narrow ones
    (20, {"stem": "small", "blocks": [1, 1, 1], "placement": "LLL", "width": 32, "heads": 4, "scope": 7}),
    (64, {"stem": "resnet_d", "blocks": [2, 2], "placement": "L", "width": 32, "heads": 4, "scope": 7}),
    (None, {"stem": "resnet_d", "blocks": [2, 2, 2], "placement": "L", "width": 32, "heads": 4, "scope": 7}),
)
SEQUENCES: tuple[tuple[int | None, dict[str, Any]], ...] = (  # options of lambda_encoder, by the number of pixels
    (100, {"strides": [], "dim": 64, "depth": 2, "scope": 31, "position": True}),
    (1_600, {"strides": [], "dim": 64, "depth": 4, "scope": None, "position": "multiscale"}),
    (6_400, {"strides": [4], "dim": 64, "depth": 4, "scope": None, "position": "multiscale"}),
    (None, {"strides": [4, 4], "dim": 64, "depth": 4, "scope": None, "position": "multiscale"}),
)
BATCHES = ((500, 16), (3_000, 32), (None, 64))  # pictures of a batch, by rows
AT_ONCE = 589_824  # pixels of a batch: 64 pictures of 96 × 96
STEPS = ((300, 600), (1_000, 1_000), (3_000, 1_500), (10_000, 2_500), (None, 4_000))  # of the training, by rows
PADDING = ((5_000, 1 / 8), (None, 1 / 10))  # of the shorter edge, for random shifts, by rows
CROPS = ((5_000, [0.5, 1]), (None, [0.7, 1]))  # of the area that is cut out of larger pictures, by rows
SMOOTHING = ((None, 0.1),)  # of labels, by rows
RATE, DECAY = 0.003, 0.05  # of AdamW

OPTIONS = (
    *("data.image_size", "data.batch_size", "data.crop_padding", "data.crop_scale"),
    *("model.options.stem", "model.options.blocks", "model.options.placement", "model.options.width"),
    *("model.options.heads", "model.options.scope", "model.options.strides", "model.options.dim"),
    *("model.options.depth", "model.options.position", "model.label_smoothing"),
    *("model.channels_last", *OPTIMIZER, "trainer.max_epochs", MONITOR),
)


@dataclass(frozen=True, kw_only=True)
class Images(Measured):
    """Pictures to train on.

    Attributes:
        height, width: of the pictures; the median if they differ.
        differ: whether they do.
        sequences: whether they become sequences of pixels.
    """

    height: int = 32
    width: int = 32
    differ: bool = False
    sequences: bool = False

    @property
    def network(self) -> str:
        """Whose options are chosen."""
        return "lambda_encoder" if self.sequences else "lambda_resnet50"

    @property
    def sentence(self) -> str:
        """Rows, size and classes."""
        size = f"{'median ' if self.differ else ''}{self.height} × {self.width} pixels"
        return f"{self.rows:,} training pictures, {size}, {classes_in_words(self)}"


def measure(data: ImageData) -> Images:
    """The size of training pictures, as they are read if that was chosen."""
    sizes = np.array([found.size for found in data.looks])
    height, width = data.image_size or np.median(sizes, axis=0).astype(int).tolist()
    differ = data.image_size is None and bool((sizes != sizes[0]).any())
    return Images(**counted(data), height=height, width=width, differ=differ, sequences=data.as_sequence)


def choose(images: Images) -> list[Choice]:
    """The size at which pictures are read, and the network and the training for that."""
    edge = min(images.height, images.width)
    choices, height, width = [], images.height, images.width
    if edge > LARGEST and "data.image_size" not in images.given:
        height, width = (max(round(side * LARGEST / edge / MULTIPLE), 1) * MULTIPLE for side in (height, width))
        why = f"pictures of {images.height} × {images.width} pixels are large for so small a network"
        choices.append(Choice("data.image_size", [height, width], why))
    edge, size = min(height, width), f"{height} × {width} pixels"
    batch = batches(images, BATCHES, height * width, AT_ONCE, "pixels")
    choices.append(batch)
    if not images.sequences:
        choices += [*_changes(images, edge), Choice("model.channels_last", True, "it is faster")]
    if images.given.get("model.network", images.network) == images.network:
        pixels = [("stem", "features"), *by(SEQUENCES, height * width).items()]
        choices += of_network(pixels if images.sequences else by(NETWORKS, edge).items(), size)
    choices += smoothing(SMOOTHING, images)
    choices += optimizer(RATE, DECAY, "for pictures")
    return [*choices, epochs(images, STEPS, batch), *monitors(images)]


def _changes(images: Images, edge: int) -> list[Choice]:
    """Random crops: shifts of small pictures, parts of larger ones; whether pictures may be mirrored no one can see."""
    if {"data.crop_padding", "data.crop_scale"} & set(images.given):
        return []
    why = f"{edge} pixels, and {few(images)}"
    if edge > CROPPED:
        return [Choice("data.crop_scale", by(CROPS, images.rows), why)]
    return [Choice("data.crop_padding", max(round(by(PADDING, images.rows) * edge), 1), why)]


PICTURES = register(
    Recipe(
        name="pictures",
        data=ImageData,
        measure=measure,
        choose=choose,
        options=OPTIONS,
        networks=("lambda_resnet50", "lambda_encoder"),
    )
)

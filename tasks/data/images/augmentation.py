"""Random changes of whole batches of pictures, on the device that trains, by kornia."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from lambda_seq.tasks.data.images.changes import CHANGES, GREY_CHANGES

POLICIES = ("none", "randaugment", "trivialaugment")
STRENGTHS = 30  # RandAugment's magnitudes lie between 0 and this
GROUPS = 8  # parts of a batch that draw changes of their own


@dataclass(frozen=True)
class PictureAugmentation:
    """Random changes of the training pictures, in this order; 0, none and null leave them as they are.

    Whole batches are changed where they are trained, on the GPU if there is one. All is drawn from the seed, the epoch
    and the number of the batch, so that a resumed run sees what the uninterrupted one would have.

    Args:
        crop_scale: least and greatest part of a picture's area that is cut out at random, in a shape of 3:4 to 4:3,
            and resized to the picture's size: [0.08, 1] for ImageNet.
        policy: "none", "randaugment" (E. Cubuk et al., 2020) or "trivialaugment" (S. Müller, F. Hutter, 2021: one
            change of random strength); see `picture_changes.CHANGES` for what they choose from.
        layers: changes that RandAugment makes one after another.
        magnitude: of RandAugment's changes, above 0 and below 30, their full strength: the greater it is, the more each
            of them changes a picture, but for three that are the same at all strengths.
        erasing: probability that a rectangle of a picture, 2 to 33 % of it, is painted over with `grey`.
        grey: mean of the pixels, from 0 to 1.

    Raises:
        ValueError: a number out of range, or an unknown policy.
    """

    crop_scale: Sequence[float] | None = None
    policy: str = "none"
    layers: int = 2
    magnitude: int = 10
    erasing: float = 0.0
    grey: float = field(default=0.5, compare=False)

    def __post_init__(self) -> None:
        """Check the ranges; names are those of the data module's options."""
        if self.policy not in POLICIES:
            raise ValueError(f"augment={self.policy!r}: expected one of {', '.join(map(repr, POLICIES))}")
        if not 1 <= self.layers <= 10:
            raise ValueError(f"augment_layers={self.layers}: expected 1 to 10 changes one after another")
        if not 0 < self.magnitude < STRENGTHS:
            raise ValueError(f"augment_magnitude={self.magnitude}: expected a number above 0 and below {STRENGTHS}")
        if not 0 <= self.erasing <= 1:
            raise ValueError(f"erasing={self.erasing}: expected a probability from 0 to 1")
        scale = self.crop_scale
        if scale is not None and not (len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1):
            raise ValueError(
                f"crop_scale={list(scale)}: expected [least, greatest] part of the area, above 0 and up to 1"
            )

    def __bool__(self) -> bool:
        return self.crop_scale is not None or self.policy != "none" or self.erasing > 0

    def __call__(
        self, pixels: UInt8[Tensor, "B C h w"], size: tuple[int, int], seed: Sequence[int]
    ) -> UInt8[Tensor, "B C H W"]:
        """Changed pictures of this size, the same for the same seed; torch's own generators stay as they are."""
        devices = [pixels.device] if pixels.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.no_grad():
            torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1))
            x = pixels.float() / 255
            if self.crop_scale is not None:
                x = self._crop(size)(x)
            if self.policy != "none":
                x = torch.cat([self._changed(part) for part in x.chunk(GROUPS)])
            if self.erasing:
                x = self._erase(x)
            return (x * 255).round_().clamp_(0, 255).to(torch.uint8)

    def _crop(self, size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
        from kornia.augmentation import RandomResizedCrop

        scale = tuple(self.crop_scale or (1.0, 1.0))
        return RandomResizedCrop(size, scale=(scale[0], scale[1]), ratio=(3 / 4, 4 / 3))

    def _changed(self, x: Tensor) -> Tensor:
        """Pictures (B, C, H, W) that all got the same kinds of changes, in directions and places of their own."""
        kinds = CHANGES if x.shape[1] > 1 else GREY_CHANGES
        for kind in torch.randint(len(kinds), (self.layers if self.policy == "randaugment" else 1,)).tolist():
            strength = torch.full((len(x),), self.magnitude / STRENGTHS)
            if self.policy == "trivialaugment":
                strength = torch.rand(len(x))
            x = kinds[kind](x, strength.to(x.device))
        return x

    @cached_property
    def _erase(self) -> Callable[[Tensor], Tensor]:
        from kornia.augmentation import RandomErasing

        return RandomErasing(p=self.erasing, value=self.grey)

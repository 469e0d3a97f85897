"""What a training picture goes through, and its boxes and masks with it: torchvision's transforms."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

Target = dict[str, Any]  # "boxes" (n, 4) as x, y, x, y, "labels" (n,), and "masks" (n, H, W)


class FittingCrop(v2.Transform):
    """A random part of at most size × size pixels; smaller pictures stay whole."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def make_params(self, flat_inputs: list[Any]) -> dict[str, int]:
        """Where the part is."""
        height, width = v2.functional.get_size(next(one for one in flat_inputs if isinstance(one, tv_tensors.Image)))
        rows, columns = min(self.size, height), min(self.size, width)
        top, left = (int(torch.randint(0, free + 1, ())) for free in (height - rows, width - columns))
        return {"top": top, "left": left, "height": rows, "width": columns}

    def transform(self, inpt: Any, params: dict[str, int]) -> Any:
        """The part of a picture, of boxes or of masks."""
        return v2.functional.crop(inpt, **params) if isinstance(inpt, tv_tensors.TVTensor) else inpt


class Changes:
    """Flips, scale jitter and crops of training pictures, or only their size, drawn by seed, epoch and row alone.

    Args:
        size: of the shorter side.
        max_size: of the longer side, at most.
        flip: whether half of the pictures are mirrored.
        scale_jitter: least and greatest scale, of a picture that has its size already, so that objects are as large as
            in evaluation for a scale of 1; a random part of size × size is kept. None for no scale and no part.
        seed: of what is drawn.
    """

    def __init__(
        self, size: int, max_size: int, *, flip: bool, scale_jitter: Sequence[float] | None, seed: int
    ) -> None:
        self.size, self.max_size, self.seed = size, max_size, seed
        self.flip, self.scale_jitter = flip, scale_jitter
        self.transform = v2.Compose(
            [
                *([v2.RandomHorizontalFlip()] if flip else []),
                *([] if scale_jitter is None else [FittingCrop(size)]),
                v2.ClampBoundingBoxes(),
                v2.SanitizeBoundingBoxes(min_size=1.0),
            ]
        )

    def __call__(self, pixels: torch.Tensor, target: Target, epoch: int, row: int) -> tuple[torch.Tensor, Target]:
        """The changed picture (3, H, W) of bytes, and its objects as far as they are still seen."""
        height, width = pixels.shape[-2:]
        wrapped: Target = {
            "boxes": tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=(height, width)),
            "labels": target["labels"],
        }
        if "masks" in target:
            wrapped["masks"] = tv_tensors.Mask(target["masks"])
        image = tv_tensors.Image(pixels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(f"{self.seed} {epoch} {row}".encode()))
            scale = 1.0 if self.scale_jitter is None else float(torch.empty(()).uniform_(*self.scale_jitter))
            size = [max(round(side * scale), 1) for side in fitted(height, width, self.size, self.max_size)]
            image, wrapped = v2.Resize(size, antialias=True)(image, wrapped)
            image, wrapped = self.transform(image, wrapped)
        return image.as_subclass(torch.Tensor), {name: part.as_subclass(torch.Tensor) for name, part in wrapped.items()}


def fitted(height: int, width: int, size: int, max_size: int) -> list[int]:
    """Height and width of a picture whose shorter side becomes `size`, but whose longer at most `max_size`."""
    scale = min(size / min(height, width), max_size / max(height, width))
    return [max(round(height * scale), 1), max(round(width * scale), 1)]

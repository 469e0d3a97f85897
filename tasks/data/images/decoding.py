"""Pictures as files: what they are like, and their pixels as bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageColor, ImageOps, UnidentifiedImageError

from lambda_seq.tasks.data.reading.cells import Cells

GREY_MODES = ("1", "L", "LA", "La", "F")  # and those of whole numbers, which begin with I
LEVELS = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)  # what white may be: fractions, 8, 10, 12, 14 and 16 bits
SIDEWAYS = (5, 6, 7, 8)  # orientations of EXIF that exchange height and width
TURNS = {  # what makes them upright; `ImageOps.exif_transpose` also writes all of EXIF anew, and fails if it is damaged
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Result = TypeVar("Result")


class Look(NamedTuple):
    """What a picture is like, read without decoding it."""

    mode: str
    size: tuple[int, int]  # height and width, upright
    transparent: bool  # it has an alpha channel or a transparent colour
    frames: int

    @property
    def grey(self) -> bool:
        """Whether it has one channel."""
        return self.deep or self.mode in GREY_MODES

    @property
    def deep(self) -> bool:
        """Whether its numbers are no bytes."""
        return self.mode == "F" or self.mode.startswith("I")


def look(image: Image.Image) -> Look:
    """What an open picture is like."""
    sideways = image.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS
    size = (image.width, image.height) if sideways else (image.height, image.width)
    return Look(image.mode, size, image.has_transparency_data, getattr(image, "n_frames", 1))


class Pictures(Cells):
    """The pictures of rows of a table; see `Cells`."""

    kind, several = "image", "pictures"

    def load(self, row: int, decode: Callable[[Image.Image], Result]) -> Result:
        """What `decode` makes of the open picture.

        Raises:
            ValueError: the picture is missing or unreadable; names it.
        """
        return self.read(row, lambda source: opened(source, decode))

    def check(self, row: int) -> None:
        """That the file is there.

        Raises:
            ValueError: it is not; names it.
        """
        self.read(row, _check)


def _check(source: str | bytes) -> None:
    if isinstance(source, str) and not Path(source).is_file():
        raise ValueError("there is no such file")


def opened(source: str | bytes, decode: Callable[[Image.Image], Result]) -> Result:
    """What `decode` makes of the open picture in a file, given by its path or its bytes.

    Raises:
        ValueError: it is missing or unreadable.
    """
    _check(source)
    try:
        with Image.open(source if isinstance(source, str) else io.BytesIO(source)) as image:
            return decode(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a readable image ({error})") from error


@dataclass(frozen=True)
class Decoder:
    """An image as bytes of one size and number of channels.

    Args:
        size: height and width.
        channels: 1 for grey, 3 for colours.
        background: colour that transparent pictures are put on.
        full_scale: number that is white in pictures whose numbers are no bytes; default: 65535 for whole numbers, and
            for fractions the least of `LEVELS` that none of the picture is above.
    """

    size: tuple[int, int]
    channels: int
    background: str = "white"
    full_scale: float | None = None

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Pixels (C, H, W) from 0 to 255 of the first frame; upright, on the background, resized if need be."""
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
        image = image if turn is None else image.transpose(turn)
        image = self._opaque(self._in_bytes(image))
        image = image.convert("L" if self.channels == 1 else "RGB")
        height, width = self.size
        if image.size != (width, height):
            image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        return pixels[None] if self.channels == 1 else pixels.transpose(2, 0, 1)

    def _in_bytes(self, image: Image.Image) -> Image.Image:
        """Numbers of more than 8 bits, which `convert` would cut off at 255, as shares of the full scale."""
        if not (image.mode == "F" or image.mode.startswith("I")):
            return image
        numbers, most = np.asarray(image).astype(np.float64), greatest(image)
        white = self.full_scale or (65535.0 if image.mode != "F" else full_scale(most))
        scaled = Image.fromarray((numbers * (255 / white)).round().clip(0, 255).astype(np.uint8))
        clear: Any = image.info.get("transparency")
        if isinstance(clear, int):
            scaled.putalpha(Image.fromarray(np.where(numbers == clear, 0, 255).astype(np.uint8)))
        return scaled

    def _opaque(self, image: Image.Image) -> Image.Image:
        if not image.has_transparency_data:
            return image
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, self.background), image)


def greatest(image: Image.Image) -> float:
    """The greatest number of a picture.

    Raises:
        ValueError: not all are finite.
    """
    numbers = np.asarray(image)
    if not np.isfinite(numbers).all():
        raise ValueError("it holds pixels that are infinite or no numbers")
    return float(numbers.max())


def full_scale(most: float, *, fractions: bool = True) -> float:
    """What white is where `most` is the greatest number: the least of `LEVELS` that is no less, else that itself."""
    return next((level for level in LEVELS if level >= most and (fractions or level > 1)), most)


def check_colour(name: str, colour: str) -> None:
    """That it is an opaque colour.

    Raises:
        ValueError: it is none; names the option and says how colours are written.
    """
    try:
        opaque = len(ImageColor.getrgb(colour)) == 3
    except (ValueError, AttributeError):
        opaque = False
    if not opaque:
        raise ValueError(f"{name}={colour!r}: expected an opaque colour, such as 'white', 'black' or '#808080'")

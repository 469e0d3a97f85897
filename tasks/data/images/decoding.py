"""Pictures in the cells of a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from PIL import Image

from lambda_seq.inference.pictures import check_there, opened
from lambda_seq.tasks.data.reading.cells import Cells

Result = TypeVar("Result")


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
        self.read(row, check_there)

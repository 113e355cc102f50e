"""A decoded picture. It stays in Pillow's own memory: a copy of a large one costs as much as its resize."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import cv2
import nanoarrow
import numpy as np
from PIL import Image, _imaging

from camserve.records import Bytes

_imaging.set_use_block_allocator(1)  # every picture in one piece, else only those of up to 16 MB can be looked into


@dataclass(frozen=True, slots=True)
class _Lent:
    """Tells NumPy where memory is, and is kept with the array, as its lender is with it."""

    __array_interface__: dict[str, Any]
    lender: object


@dataclass(frozen=True, slots=True)
class Picture:
    """Upright RGB of 8 bits a channel; `source` is for this package only."""

    source: Image.Image

    @classmethod
    def of(cls, pixels: Bytes) -> Self:
        """A picture of uint8 pixels, H x W x 3."""
        return cls(Image.fromarray(pixels))

    @property
    def pixels(self) -> Bytes:
        """A copy as uint8, H x W x 3."""
        return np.asarray(cv2.cvtColor(self.memory, cv2.COLOR_RGBA2RGB), np.uint8)

    @property
    def memory(self) -> Bytes:
        """Pillow's own memory, not to be written to: H x W x 4, a byte without meaning behind each colour."""
        lender = nanoarrow.c_array(self.source)
        _, address = lender.child(0).buffers
        shape = self.height, self.width, 4
        return np.asarray(_Lent({"version": 3, "shape": shape, "typestr": "|u1", "data": (address, True)}, lender))

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.source.width

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.source.height

    def cropped(self, box: tuple[int, int, int, int]) -> Picture:
        """The part inside `box`."""
        return Picture(self.source.crop(box))

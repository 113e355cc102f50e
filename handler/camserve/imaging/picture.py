"""A decoded picture. It stays in Pillow's own memory: a copy of a large one costs as much as its resize."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import cv2
import nanoarrow
import numpy as np
from PIL import Image

from camserve.records import Bytes


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
        return np.asarray(cv2.cvtColor(_memory(self.source), cv2.COLOR_RGBA2RGB), np.uint8)

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


def _memory(source: Image.Image) -> Bytes:
    """Pillow's own memory, H x W x 4: red, green, blue, and a byte that says nothing."""
    try:
        buffer = nanoarrow.c_array(source).view().child(0).buffer(1)
    except ValueError:  # so large that Pillow keeps it in several blocks
        buffer = source.tobytes("raw", "RGBX")
    return np.frombuffer(buffer, np.uint8).reshape(source.height, source.width, 4)

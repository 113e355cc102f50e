"""A decoded picture. It stays in Pillow's own memory: a copy of a large one costs as much as its resize."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

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
        """As uint8, H x W x 3; not to be written to."""
        return np.asarray(self.source)

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

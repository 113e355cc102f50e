"""The one resize: Pillow's antialiased filters for the model's input, area averaging for the overlay."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from camserve.records import Bytes, Picture

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resized(picture: Picture, width: int, height: int, interpolation: str) -> Bytes:
    """Pixels at `width` x `height`, exactly as torchvision and timm resize a Pillow picture."""
    if (width, height) == (picture.width, picture.height):
        return picture.pixels
    source = Image.fromarray(picture.pixels)
    return np.asarray(source.resize((width, height), FILTERS[interpolation]))


def fitted(picture: Picture, max_side: int) -> Bytes:
    """A copy of the picture with its longest side at most `max_side`; never enlarged."""
    scale = max_side / max(picture.width, picture.height)
    if scale >= 1:
        return picture.pixels.copy()
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return np.asarray(cv2.resize(picture.pixels, size, interpolation=cv2.INTER_AREA), np.uint8)

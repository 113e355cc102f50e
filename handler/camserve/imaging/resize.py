"""The two resizes: Pillow's antialiased filters for the model's input, and a quick one for the overlay."""

from __future__ import annotations

import math

import cv2
import numpy as np
from PIL import Image

from camserve.imaging.picture import Picture
from camserve.records import Bytes

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resized(picture: Picture, size: tuple[int, int], part: tuple[int, int, int, int], interpolation: str) -> Bytes:
    """The `part` (x0, y0, x1, y1) of the picture at `size`, as torchvision and timm resize and crop a Pillow picture.

    The whole is resized: Pillow takes columns or rows first, whichever is less work, and rounds in between, so that
    a part resized alone can come out up to 27 levels away.
    """
    return Picture(picture.source.resize(size, FILTERS[interpolation]).crop(part)).pixels


def fitted(picture: Picture, max_side: int) -> Bytes:
    """The picture with its longest side at most `max_side`, never enlarged, H x W x 3."""
    return np.asarray(cv2.cvtColor(canvas(picture, max_side), cv2.COLOR_RGBA2RGB), np.uint8)


def canvas(picture: Picture, max_side: int) -> Bytes:
    """The same without a copy of a picture that is small enough, not to be written to: H x W x 4, as in its memory."""
    scale = max_side / max(picture.width, picture.height)
    if scale >= 1:
        return picture.memory
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    small = picture.memory
    while 2 * size[0] <= small.shape[1] and 2 * size[1] <= small.shape[0]:
        small = _halved(small)
    # What is left is a factor of 2 at most. A blur as wide as that asks for keeps fine patterns from becoming coarse.
    ratio = small.shape[1] / size[0]
    smooth = cv2.GaussianBlur(small, (3, 3), math.sqrt(max(ratio**2 - 1, 0.01)) / 2)
    return np.asarray(cv2.resize(smooth, size), np.uint8)


def _halved(pixels: Bytes) -> Bytes:
    """Means of 2 x 2 pixels; of an odd number of rows or columns the last is left out."""
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    even = pixels[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA), np.uint8)

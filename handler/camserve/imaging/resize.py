"""The two resizes: Pillow's antialiased filters for the model's input, and a quick one for the overlay."""

from __future__ import annotations

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
    scale = max_side / max(picture.width, picture.height)
    if scale >= 1:
        return picture.pixels
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    # Averaged over whole pixels first, which takes a fifth of the time.
    return Picture(picture.source.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)).pixels

"""Colour maps as tables: name to 256 x 3 RGB."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from camserve.records import Bytes

COLORMAPS = {
    name.removeprefix("COLORMAP_").lower(): int(getattr(cv2, name))
    for name in sorted(dir(cv2))
    if name.startswith("COLORMAP_")
}
"""OpenCV's colour maps by their lower-case names."""


@cache
def table(name: str) -> Bytes:
    """The 256 x 3 RGB table of a colour map."""
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    return np.asarray(cv2.applyColorMap(ramp, COLORMAPS[name])[:, 0, ::-1].copy(), np.uint8)


@cache
def packed(name: str | None) -> npt.NDArray[np.int32]:
    """A colour map, or the diverging one for None, as 256 numbers whose bytes are blue, green, red and a zero."""
    colours = diverging() if name is None else table(name)
    return np.pad(colours[:, ::-1], ((0, 0), (0, 1))).view(np.int32)


@cache
def diverging() -> Bytes:
    """Blue over white to red, for signed maps: 128 is white and means zero."""
    position = np.arange(256)
    fade = 1 - np.abs(position - 128) / 128
    red = np.where(position >= 128, 1.0, fade)
    blue = np.where(position <= 128, 1.0, fade)
    return np.asarray(np.stack([red, fade, blue], axis=1) * 255).round().astype(np.uint8)

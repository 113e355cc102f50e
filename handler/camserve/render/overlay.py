"""Map, picture and box to the two pictures of the contract: the overlay (in colours) and the heatmap (grey)."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np

from camserve.records import Box, Bytes, Floats
from camserve.render import colormaps

_SMALLEST = 1e-12
_MOST_CELLS = 64 * 64
"""In maps of more cells, which are of pixels, single values stick out far above the rest."""

_OF_PIXELS = 0.99
"""The quantile of such a map's values at which its colours reach their end."""


def scaled(evidence: Floats, signed: bool) -> Floats:
    """Evidence in [0, 1], or in [-1, 1] if signed; all zero where there is none."""
    kept = evidence if signed else np.maximum(evidence, 0)
    peak = _peak(np.abs(kept) if signed else kept)
    return np.asarray(np.clip(kept / peak, -1, 1) if peak > _SMALLEST else np.zeros_like(kept), np.float32)


def _peak(sizes: Floats) -> float:
    """The value that gets the strongest colour."""
    highest = float(sizes.max())
    if sizes.size <= _MOST_CELLS or highest <= _SMALLEST:
        return highest
    return float(np.quantile(sizes[sizes > _SMALLEST], _OF_PIXELS))


class Placement:
    """Where the cells of a map lie on a picture of `width` x `height`; `box` is in that picture's pixels.

    A cell's value belongs to its centre; between centres it is interpolated, outside the box there is nothing.
    """

    def __init__(self, width: int, height: int, box: Box) -> None:
        x0, y0, x1, y1 = box
        self.box = box
        self.rows = slice(max(0, math.floor(y0)), min(height, math.ceil(y1)))
        self.columns = slice(max(0, math.floor(x0)), min(width, math.ceil(x1)))

    def spread(self, evidence: Floats) -> Floats:
        """The map (h x w) on every pixel of the box: bilinear between cell centres, by two small matrix products."""
        x0, y0, x1, y1 = self.box
        h, w = evidence.shape
        down = _weights(self.rows.start, self.rows.stop, y0, y1, h)
        across = _weights(self.columns.start, self.columns.stop, x0, x1, w)
        return np.asarray(down @ evidence @ across.T, np.float32)


@lru_cache(maxsize=16)  # pictures of one source have one size; a map of 512 x 512 pixels needs up to 4 MB
def _weights(start: int, stop: int, low: float, high: float, cells: int) -> Floats:
    """How much of each cell's value each pixel gets, pixels x cells; the cells lie between `low` and `high`."""
    position = (np.arange(start, stop) + 0.5 - low) / (high - low) * cells - 0.5
    clamped = np.clip(position, 0, cells - 1)[:, None]
    weights = np.asarray(np.maximum(0, 1 - np.abs(clamped - np.arange(cells))), np.float32)
    weights.flags.writeable = False
    return weights


def overlay(pixels: Bytes, box: Box, evidence: Floats, signed: bool, colormap: str, opacity: float) -> Bytes:
    """Blend the coloured map over a copy of `pixels` (RGB) inside `box`; elsewhere they stay as they are.

    `pixels` are H x W x 3, or H x W x 4 with a byte without meaning behind each colour.

    A signed map uses its own diverging colours. A map without evidence leaves the plain picture.

    Returns:
        H x W x 3 with blue first: the copy takes the order that the encoder wants.
    """
    drawn = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), np.uint8)
    heat = scaled(evidence, signed)
    if not heat.any():
        return drawn
    place = Placement(pixels.shape[1], pixels.shape[0], box)
    colours = _coloured(levels(place.spread(heat), signed), None if signed else colormap)
    region = drawn[place.rows, place.columns]
    cv2.addWeighted(region, 1 - opacity, colours, opacity, 0, dst=region)
    return drawn


def _coloured(levels: Bytes, colormap: str | None) -> Bytes:
    """Levels (h x w) in colours, blue first; whole pixels from a table take a third less time than their channels."""
    pixels = np.asarray(cv2.LUT(levels, colormaps.packed(colormap)))
    return np.asarray(cv2.cvtColor(pixels.view(np.uint8).reshape(*levels.shape, 4), cv2.COLOR_BGRA2BGR), np.uint8)


def heatmap(width: int, height: int, box: Box, evidence: Floats, signed: bool) -> Bytes:
    """The map as a grey picture of `width` x `height`; outside `box` it holds the value for zero."""
    grey = np.full((height, width), 128 if signed else 0, np.uint8)
    place = Placement(width, height, box)
    grey[place.rows, place.columns] = levels(place.spread(scaled(evidence, signed)), signed)
    return grey


def levels(heat: Floats, signed: bool) -> Bytes:
    """Heat in [0, 1] (or [-1, 1] if signed) as 8-bit levels; signed, 128 is zero."""
    return np.asarray(cv2.convertScaleAbs(heat, None, *((127, 128) if signed else (255, 0))), np.uint8)

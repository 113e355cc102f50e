"""Where the evidence lies: connected regions of a map as boxes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from camserve.records import Box, Floats

_MOST = 5
_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Region:
    """A box in cells of the map, and its share of all positive evidence (0 to 1)."""

    box: Box
    share: float


def regions(evidence: Floats) -> list[Region]:
    """The 8-connected regions of cells with at least half the peak, largest share first, at most 5.

    `evidence` is h x w; only what is above zero counts.
    """
    positive = np.maximum(evidence, 0).astype(np.float64)
    total = positive.sum()
    if total <= 0:
        return []
    strong = (positive >= _THRESHOLD * positive.max()).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(strong, connectivity=8)
    found = [_region(positive, total, *(int(n) for n in row[:4])) for row in stats[1:]]
    return sorted(found, key=lambda region: -region.share)[:_MOST]


def _region(positive: np.ndarray, total: float, x: int, y: int, width: int, height: int) -> Region:
    share = positive[y : y + height, x : x + width].sum() / total
    return Region((x, y, x + width, y + height), min(float(share), 1.0))

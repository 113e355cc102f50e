"""Where maps have their evidence, in 7 x 7 cells whatever their size, and how alike two such places are."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from camserve.records import Floats
from camserve.response import Outcome

CELLS = 7
Shares = NDArray[np.float64]
"""7 x 7, not negative, summing to 1."""

_SMALLEST = 1e-12


def usual(outcome: Outcome, default_layer: str) -> tuple[int, Shares] | None:
    """The likeliest class of a picture, and where the model looked for it.

    Only maps that can be compared with each other count: Grad-CAM of what was predicted, at the default layer, and what
    speaks for it. None where there is no such map, or nothing in it.
    """
    task, likeliest = outcome.task, outcome.verdict.likeliest
    if (task.method, task.layer, task.polarity) != ("gradcam", default_layer, "positive"):
        return None
    found = (one for one in outcome.verdict.maps if one.class_id == likeliest and one.contrast is None)
    map = next((one.map for one in found), None)
    shares = None if map is None else evidence(map)
    return None if shares is None else (likeliest, shares)


def evidence(shown: Floats) -> Shares | None:
    """The share of a map's positive part in each of 7 x 7 equal cells; None where nothing is above zero."""
    positive = np.maximum(shown, 0).astype(np.float64)
    total = positive.sum()
    if total <= _SMALLEST:
        return None
    shares: Shares = _overlap(shown.shape[0]) @ (positive / total) @ _overlap(shown.shape[1]).T
    return shares


def centre(shown: Floats) -> tuple[float, float] | None:
    """Centre of mass of a map's positive part, x and y from 0 to 1; None where nothing is above zero."""
    positive = np.maximum(shown, 0).astype(np.float64)
    total = positive.sum()
    if total <= _SMALLEST:
        return None
    h, w = shown.shape
    x = (positive.sum(0) @ (np.arange(w) + 0.5)) / (w * total)
    y = (positive.sum(1) @ (np.arange(h) + 0.5)) / (h * total)
    return float(x), float(y)


def similarity(one: Shares, other: Shares) -> float:
    """The cosine of two distributions, 0 to 1; 0 where one has nothing."""
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one * other).sum() / size) if size > _SMALLEST else 0.0


@cache
def _overlap(cells: int) -> Shares:
    """How much of each of `cells` equal parts lies in each of 7, 7 x cells."""
    ours, theirs = np.linspace(0, 1, CELLS + 1), np.linspace(0, 1, cells + 1)
    low = np.maximum(ours[:-1, None], theirs[None, :-1])
    high = np.minimum(ours[1:, None], theirs[None, 1:])
    return np.asarray(np.clip(high - low, 0, None) * cells)

"""How sure a mean is: the percentile bootstrap over pictures.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camserve.records import Floats

RESAMPLES = 1_000
_OUTER = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % interval, and over how many pictures; all nan over none."""

    mean: float
    low: float
    high: float
    pictures: int


def estimate(values: Floats, seed: int) -> Estimate:
    """The mean of a value a picture (N); pictures that were not measured are nan and do not count.

    The same pictures with the same seed are drawn the same way, so a difference of two measures is paired.
    """
    known = values[~np.isnan(values)].astype(np.float64)
    if not known.size:
        return Estimate(np.nan, np.nan, np.nan, 0)
    drawn = np.random.default_rng(seed).integers(0, known.size, (RESAMPLES, known.size))
    low, high = np.percentile(known[drawn].mean(1), _OUTER)
    return Estimate(float(known.mean()), float(low), float(high), int(known.size))

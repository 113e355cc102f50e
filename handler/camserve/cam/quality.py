"""Numbers and flags that say whether a map deserves trust. P is the positive part of a map."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from camserve.records import Floats, Quality

_RING_FROM = 5


class Thresholds(Protocol):
    """Where a number becomes a flag; the settings say what each means."""

    @property
    def flat_entropy(self) -> float:
        """Above it the map is `flat`."""

    @property
    def border_share(self) -> float:
        """Above it the map is `border_hugging`."""

    @property
    def single_cell_share(self) -> float:
        """Above it the map is `single_cell`."""

    @property
    def low_margin(self) -> float:
        """Below it the prediction has a `low_margin`."""


def assess(evidence: Floats, discriminative: bool, margin: float, thresholds: Thresholds) -> Quality:
    """The quality of one map.

    Args:
        evidence: h x w; what is above zero is shown.
        discriminative: whether the method looks at the class at all.
        margin: between the two highest probabilities.
        thresholds: where a number becomes a flag.
    """
    positive = np.maximum(evidence, 0, dtype=np.float64)
    total, whole = float(positive.sum()), float(np.abs(evidence).sum(dtype=np.float64))
    if total <= 0:
        share = 0.0 if whole > 0 else None
        return Quality(share, None, None, _flags(None, None, None, discriminative, margin, thresholds))
    part = positive / total
    entropy, border, peak = _entropy(part), _border(part), float(part.max())
    flags = _flags(entropy, border, peak, discriminative, margin, thresholds)
    return Quality(min(1.0, total / whole), entropy, border, flags)


def _entropy(part: np.ndarray) -> float:
    some = part[part > 0]
    return float(-(some * np.log(some)).sum() / np.log(part.size)) if part.size > 1 else 0.0


def _border(part: np.ndarray) -> float | None:
    if min(part.shape) < _RING_FROM:
        return None
    return max(0.0, 1.0 - float(part[1:-1, 1:-1].sum()))


def _flags(
    entropy: float | None,
    border: float | None,
    peak: float | None,
    discriminative: bool,
    margin: float,
    thresholds: Thresholds,
) -> tuple[str, ...]:
    found = {
        "empty": peak is None,
        "flat": entropy is not None and entropy > thresholds.flat_entropy,
        "border_hugging": border is not None and border > thresholds.border_share,
        "single_cell": peak is not None and peak > thresholds.single_cell_share,
        "not_class_discriminative": not discriminative,
        "low_margin": margin < thresholds.low_margin,
    }
    return tuple(name for name, raised in found.items() if raised)

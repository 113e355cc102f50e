"""Numbers by hand, and for every flag a map that raises it and one that does not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from camserve.cam.quality import assess
from camserve.settings import FlagThresholds


def quality(evidence, discriminative=True, margin=0.5):
    return assess(np.asarray(evidence, np.float32), discriminative, margin, FlagThresholds())


def spot(size: int = 7) -> np.ndarray:
    """A normal map: a hill in the middle."""
    y, x = np.indices((size, size)) - (size - 1) / 2
    return np.exp(-(x**2 + y**2) / 3)


def ring() -> np.ndarray:
    evidence = np.ones((7, 7))
    evidence[1:-1, 1:-1] = 0
    return evidence


def single() -> np.ndarray:
    evidence = np.full((7, 7), 0.01)
    evidence[3, 4] = 5
    return evidence


def test_a_normal_map_has_no_flag():
    assert quality(spot()).flags == ()


PLANTED = {
    "empty": lambda: quality(-spot()),
    "flat": lambda: quality(np.ones((7, 7))),
    "border_hugging": lambda: quality(ring()),
    "single_cell": lambda: quality(single()),
    "not_class_discriminative": lambda: quality(spot(), discriminative=False),
    "low_margin": lambda: quality(spot(), margin=0.05),
}


@pytest.mark.parametrize("flag", PLANTED)
def test_a_planted_fault_raises_its_flag_and_no_other(flag):
    assert PLANTED[flag]().flags == (flag,)


def test_the_numbers_by_hand():
    found = quality([[3, 1], [-2, 0]])
    assert found.positive_share == pytest.approx(4 / 6)
    assert found.entropy == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(4))
    assert found.border_share is None


def test_the_border_by_hand():
    evidence = np.zeros((5, 5))
    evidence[0, 0], evidence[2, 2], evidence[1, 3] = 1, 2, 1
    assert quality(evidence).border_share == pytest.approx(0.25)
    assert quality(evidence[:4]).border_share is None


@pytest.mark.parametrize(
    ("evidence", "share"), [(np.zeros((7, 7)), None), (-np.ones((7, 7)), 0.0)], ids=["zeros", "all against"]
)
def test_nothing_to_show(evidence, share):
    found = quality(evidence)
    assert (found.positive_share, found.entropy, found.border_share) == (share, None, None)
    assert found.flags == ("empty",)


def test_numbers_stay_in_bounds():
    for evidence in (spot(), ring(), single(), np.ones((7, 7)), 1e30 * spot(), 1e-30 * spot()):
        found = quality(evidence)
        assert all(0 <= number <= 1 for number in (found.positive_share, found.entropy, found.border_share))

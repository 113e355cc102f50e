"""Intervals hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from camserve.evaluate.bootstrap import estimate


def test_nineteen_of_twenty_intervals_hold_the_true_mean():
    random = np.random.default_rng(0)
    held = 0
    for seed in range(400):
        found = estimate(random.exponential(2.0, 60).astype(np.float32), seed)
        held += found.low <= 2.0 <= found.high
    assert 0.90 <= held / 400 <= 0.98  # 0.93 is what the percentile bootstrap gives for so skewed a distribution


def test_the_interval_is_as_wide_as_theory_says():
    values = np.random.default_rng(1).normal(5, 3, 400)
    found = estimate(values, 0)
    assert found.mean == pytest.approx(values.mean())
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)


def test_a_paired_difference_is_surer_than_two_means():
    random = np.random.default_rng(2)
    shared = random.normal(0, 10, 50)
    one, other = shared + random.normal(1, 0.5, 50), shared
    first, second, paired = estimate(one, 0), estimate(other, 0), estimate(one - other, 0)
    assert first.low < second.high
    assert paired.low > 0


def test_pictures_that_were_not_measured_do_not_count():
    found = estimate(np.array([1, np.nan, 3], np.float32), 0)
    assert (found.mean, found.pictures) == (2, 2)


def test_no_picture_gives_no_number():
    found = estimate(np.full(3, np.nan, np.float32), 0)
    assert math.isnan(found.mean)
    assert found.pictures == 0


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(3).normal(size=30)
    assert estimate(values, 5) == estimate(values, 5)
    assert estimate(values, 5) != estimate(values, 6)

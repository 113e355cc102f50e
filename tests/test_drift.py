"""Evidence in 7 x 7 cells: nothing is lost, nothing moves."""

from __future__ import annotations

import numpy as np
import pytest

from camserve.drift import CELLS, centre, evidence, similarity


def random(h: int, w: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(h, w)).astype(np.float32)


@pytest.mark.parametrize(("h", "w"), [(7, 7), (14, 14), (1, 1), (3, 10), (224, 224), (5, 8)])
def test_shares_sum_to_one_and_keep_their_place(h, w):
    map = random(h, w)
    map[0, 0] = 1
    shares = evidence(map)
    assert shares.shape == (CELLS, CELLS)
    assert shares.min() >= 0
    assert shares.sum() == pytest.approx(1)
    x, y = centre(map)
    middles = (np.arange(CELLS) + 0.5) / CELLS
    assert shares.sum(0) @ middles == pytest.approx(x, abs=0.5 / CELLS)
    assert shares.sum(1) @ middles == pytest.approx(y, abs=0.5 / CELLS)


def test_seven_cells_are_taken_as_they_are():
    map = np.abs(random(7, 7))
    np.testing.assert_allclose(evidence(map), map / map.sum(), rtol=1e-6)


def test_fourteen_cells_are_added_in_fours():
    map = np.abs(random(14, 14)).astype(np.float64)
    by_hand = map.reshape(7, 2, 7, 2).sum((1, 3)) / map.sum()
    np.testing.assert_allclose(evidence(map), by_hand, rtol=1e-6)


def test_what_speaks_against_the_class_does_not_count():
    map = np.full((7, 7), -5, np.float32)
    map[2, 4] = 3
    assert evidence(map)[2, 4] == pytest.approx(1)
    assert centre(map) == pytest.approx((4.5 / 7, 2.5 / 7))


def test_no_evidence_is_none():
    assert evidence(np.zeros((7, 7), np.float32)) is None
    assert centre(-np.ones((7, 7), np.float32)) is None


def test_similarity_is_the_cosine():
    left, right = np.zeros((CELLS, CELLS)), np.zeros((CELLS, CELLS))
    left[0, 0] = right[6, 6] = 1
    assert similarity(left, left) == pytest.approx(1)
    assert similarity(left, right) == 0
    assert similarity(left, (left + right) / 2) == pytest.approx(np.sqrt(0.5))
    assert similarity(left, np.zeros((CELLS, CELLS))) == 0

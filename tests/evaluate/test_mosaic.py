"""The mosaic game: who stands where, and what counts as the right quadrant."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from camserve.evaluate.mosaic import FEWEST, Mosaic, composed, energy, enlargement, mosaics, pointing
from camserve.evaluate.recommendation import verdict
from networks import Pooled, Tail


def named(study, method):
    return next(one for one in study.measured if method in {each.method for each in one.group.subjects})


@pytest.mark.parametrize("count", [10, 25, 300])
def test_four_pictures_of_four_classes_each_asked_for_about_equally_often(count):
    classes = [at % 9 for at in range(count)]
    drawn = mosaics(classes, 0)
    assert len(drawn) == max(FEWEST, count // 2)
    for one in drawn:
        assert len({classes[member] for member in one.members}) == 4
        assert one.targets == (0, 1, 2, 3)
    asked = Counter(member for one in drawn for member in one.members)
    assert len(asked) == count
    assert max(asked.values()) - min(asked.values()) <= 2


def test_every_quadrant_is_as_frequent_for_a_picture():
    drawn = mosaics(list(range(4)), 0)
    places = Counter(one.members.index(0) for one in drawn)
    assert all(5 <= places[quadrant] <= 25 for quadrant in range(4))


def test_of_two_classes_only_the_picture_that_is_alone_is_asked_for():
    classes = [0] * 9 + [1] * 3
    drawn = mosaics(classes, 0)
    for one in drawn:
        count = Counter(classes[member] for member in one.members)
        assert one.targets
        assert all(count[classes[one.members[quadrant]]] == 1 for quadrant in one.targets)
    assert len({one.members[quadrant] for one in drawn for quadrant in one.targets}) == 12


def test_one_class_gives_no_mosaic():
    assert mosaics([4] * 20, 0) == []


def test_another_seed_gives_other_mosaics():
    classes = list(range(12))
    assert mosaics(classes, 0) == mosaics(classes, 0)
    assert mosaics(classes, 0) != mosaics(classes, 1)


def test_members_stand_top_left_top_right_bottom_left_bottom_right():
    views = [np.full((6, 6, 3), value, np.uint8) for value in (10, 20, 30, 40)]
    whole = composed(Mosaic((3, 2, 1, 0), (0, 1, 2, 3)), views, 12)
    assert whole.shape == (12, 12, 3)
    assert [whole[y, x, 0] for y in (0, 11) for x in (0, 11)] == [40, 30, 20, 10]
    small = composed(Mosaic((3, 2, 1, 0), (0, 1, 2, 3)), views, 6)
    assert small.shape == (6, 6, 3)
    assert [small[y, x, 0] for y in (0, 5) for x in (0, 5)] == [40, 30, 20, 10]


@pytest.mark.parametrize("shape", [(4, 4), (7, 7), (5, 8)])
def test_energy_is_that_of_a_map_enlarged_until_no_cell_lies_in_two_quadrants(shape):
    signed = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    fine = np.repeat(np.repeat(np.maximum(signed, 0), 2, 0), 2, 1)
    h, w = shape
    parts = [fine[:h, :w], fine[:h, w:], fine[h:, :w], fine[h:, w:]]
    for quadrant, part in enumerate(parts):
        assert energy(signed, quadrant) == pytest.approx(part.sum() / fine.sum(), rel=1e-5)


def test_pointing_looks_at_the_highest_cell():
    signed = np.zeros((4, 4), np.float32)
    signed[3, 1] = 2
    assert [pointing(signed, quadrant) for quadrant in range(4)] == [0, 0, 1, 0]
    signed[0, 0] = 2
    assert [pointing(signed, quadrant) for quadrant in range(4)] == [0.5, 0, 0.5, 0]


def test_a_map_that_shows_nothing_finds_nothing():
    assert energy(np.full((4, 4), -1, np.float32), 0) == 0
    assert pointing(np.zeros((4, 4), np.float32), 0) == 0


def test_a_network_that_cannot_take_twice_the_side_gets_the_usual_one():
    one = torch.zeros(1, 3, 32, 32)
    assert enlargement(Pooled().eval(), one) == 2
    assert enlargement(Tail().eval(), one) == 1


def test_a_map_of_the_class_has_its_evidence_on_the_right_picture(study):
    """Nine cells of a colour are on its picture and one on each of the three others."""
    assert study.estimate(named(study, "gradcam"), "energy").mean == pytest.approx(0.75, abs=0.03)
    assert study.estimate(named(study, "gradcam"), "pointing").mean > 0.7


def test_a_class_blind_method_and_the_controls_are_at_chance(study):
    for name in ("eigencam", "random", "centre"):
        assert study.estimate(named(study, name), "energy").mean == pytest.approx(0.25, abs=0.02)
    blind = named(study, "eigencam")
    difference = study.difference(blind, study.control(blind, "random"), "energy")
    assert verdict(difference, "energy") == "inconclusive"

"""Deletion, insertion, average drop and ROAD by hand, and on a network whose evidence is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from camserve.cam.deletion import blurred
from camserve.evaluate.bootstrap import estimate
from camserve.evaluate.faithfulness import Faithfulness, area, baseline, faithful, ranked
from camserve.evaluate.maps import control
from camserve.evaluate.predictor import Predictor
from camserve.evaluate.recommendation import verdict
from camserve.evaluate.subjects import Subject
from pictures import square

GRID = (8, 8)
BLACK = torch.zeros(3, 1, 1)


@pytest.fixture(scope="module")
def predict(bright):
    return Predictor(bright.engine.network, torch.zeros(1, 3, 64, 64))


def lit(at: int) -> tuple[torch.Tensor, np.ndarray]:
    """Black with four white cells: the input and the perfect map."""
    y, x = divmod(at * 5 % 49, 7)
    pixels = square(64, 64, (8 * x + 8, 8 * y + 8), 16)
    truth = np.zeros(GRID, np.float32)
    truth[y : y + 2, x : x + 2] = 1
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, truth


def chance(predict, one, class_id=0):
    return float(predict.network(one[None]).softmax(1)[0, class_id].detach())


def test_the_curves_are_those_of_a_slow_loop(predict):
    one, _ = lit(3)
    evidence = np.random.default_rng(0).normal(size=GRID).astype(np.float32)  # no two cells are equal
    found = faithful(predict, baseline(predict, one, BLACK, 0), evidence, 0)
    soft, order = blurred(one), sorted(range(64), key=lambda cell: -evidence.ravel()[cell])
    for step in range(11):
        count = round(6.4 * step)
        without, only = one.clone(), soft.clone()
        for cell in order[:count]:
            y, x = divmod(cell, 8)
            box = (slice(None), slice(8 * y, 8 * y + 8), slice(8 * x, 8 * x + 8))
            without[box], only[box] = soft[box], one[box]
        assert found.shares[step] == pytest.approx(count / 64)
        assert found.deletion[step] == pytest.approx(chance(predict, without), abs=1e-5)
        assert found.insertion[step] == pytest.approx(chance(predict, only), abs=1e-5)


def test_the_area_under_a_curve_of_uneven_steps():
    assert area(np.array([1, 0.5, 0], np.float32), np.array([0, 0.25, 1], np.float32)) == pytest.approx(0.375)


def test_average_drop_and_increase_multiply_the_picture_with_the_map(predict):
    one, truth = lit(10)
    found = faithful(predict, baseline(predict, one, BLACK, 0), 5 * truth - 0.5, 0)
    ramp = np.clip((np.arange(64) + 0.5) / 8 - 0.5, 0, 7)
    low, share = np.floor(ramp).astype(int), ramp - np.floor(ramp)
    high = np.minimum(low + 1, 7)
    rows = (1 - share)[:, None] * truth[low] + share[:, None] * truth[high]
    large = rows[:, low] * (1 - share) + rows[:, high] * share
    kept = chance(predict, one * torch.from_numpy(large).float())
    assert found.kept == pytest.approx(kept, abs=1e-5)
    whole = chance(predict, one)
    assert found.numbers(whole)["drop"] == pytest.approx(100 * (whole - kept) / whole, abs=1e-3)
    assert found.numbers(whole)["increase"] == 0
    assert found.numbers(kept / 2)["increase"] == 100
    assert found.numbers(kept / 2)["drop"] == 0


def test_a_map_that_shows_nothing_leaves_black(predict):
    one, truth = lit(10)
    found = faithful(predict, baseline(predict, one, BLACK, 0), -truth, 0)
    assert found.kept == pytest.approx(chance(predict, torch.zeros_like(one)), abs=1e-6)


def test_black_is_what_the_network_sees_for_black(predict):
    one, truth = lit(10)
    found = faithful(predict, baseline(predict, one, torch.full((3, 1, 1), 0.25), 0), -truth, 0)
    assert found.kept == pytest.approx(chance(predict, torch.full_like(one, 0.25)), abs=1e-6)


def test_road_is_the_worst_removed_less_the_best_removed(predict):
    one, truth = lit(10)
    found = faithful(predict, baseline(predict, one, BLACK, 0), truth, 0)
    whole, dark = chance(predict, one), chance(predict, torch.zeros_like(one))
    assert found.best[0] == pytest.approx(dark, abs=0.02)  # a hole in black is filled with black
    assert found.worst[0] == pytest.approx(whole, abs=0.02)
    curves = np.zeros(11, np.float32)
    best, worst = np.array([0.1, 0.2, 0.3, 0.4], np.float32), np.array([0.9, 0.8, 0.3, 0.2], np.float32)
    assert Faithfulness(curves, curves, curves, 0, best, worst).numbers(1)["road"] == pytest.approx(0.3)


def test_cells_are_ranked_from_the_highest_and_equal_ones_at_random():
    evidence = np.array([[1, 3], [3, 2]], np.float32)
    orders = {tuple(ranked(evidence, np.random.default_rng(seed)).tolist()) for seed in range(20)}
    assert orders == {(1, 2, 3, 0), (2, 1, 3, 0)}


@pytest.fixture(scope="module")
def values(predict):
    """Deletion and ROAD of a perfect map and of the controls, and of noise with other seeds, on 16 pictures."""
    random, centre = Subject("random", "", GRID), Subject("centre", "", GRID)
    found = {name: {"deletion": [], "road": []} for name in ("perfect", "random", "other random", "centre")}
    for at in range(16):
        one, truth = lit(at)
        before = baseline(predict, one, BLACK, 0)
        maps = (truth, control(random, 1, (0, at)), control(random, 1, (1, at)), control(centre, 1, (0, at)))
        for name, evidence in zip(found, maps, strict=True):
            numbers = faithful(predict, before, evidence, at).numbers(before.chance)
            for metric, column in found[name].items():
                column.append(numbers[metric])
    return found


@pytest.mark.parametrize("metric", ["deletion", "road"])
@pytest.mark.parametrize("name", ["random", "centre"])
def test_a_perfect_map_beats_the_controls(values, metric, name):
    difference = np.subtract(values["perfect"][metric], values[name][metric])
    assert verdict(estimate(difference, 0), metric) == "better"
    assert verdict(estimate(-difference, 0), metric) == "worse"


@pytest.mark.parametrize("metric", ["deletion", "road"])
def test_noise_against_noise_is_inconclusive(values, metric):
    difference = np.subtract(values["other random"][metric], values["random"][metric])
    assert verdict(estimate(difference, 0), metric) == "inconclusive"

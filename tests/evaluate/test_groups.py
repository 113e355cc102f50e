"""Which maps count as the same."""

from __future__ import annotations

import numpy as np

from camserve.evaluate.groups import grouped
from camserve.evaluate.subjects import Subject

GRID = (4, 4)


def noise(seed: int) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).normal(size=(3, *GRID)).astype(np.float32))


def names(found) -> list[list[str]]:
    return [[one.method for one in group.subjects] for group in grouped(found)]


def test_maps_that_differ_by_a_positive_factor_are_the_same_and_the_best_known_speaks():
    maps = noise(0)
    found = {
        Subject("cam", "a", GRID): [16 * one for one in maps],
        Subject("gradcam", "a", GRID): [factor * one for factor, one in zip((1, 3, 0.1), maps, strict=True)],
        Subject("layercam", "a", GRID): noise(1),
        Subject("hirescam", "a", GRID): [one * np.float32(1 + 1e-6) for one in maps],
    }
    assert names(found) == [["gradcam", "cam", "hirescam"], ["layercam"]]


def test_one_map_that_differs_makes_another_group():
    maps = noise(0)
    other = [maps[0], maps[1], maps[2] + 0.05]
    assert len(names({Subject("gradcam", "a", GRID): maps, Subject("cam", "a", GRID): other})) == 2


def test_the_negative_is_not_the_same():
    maps = noise(0)
    found = {Subject("gradcam", "a", GRID): maps, Subject("cam", "a", GRID): [-one for one in maps]}
    assert len(names(found)) == 2


def test_another_grid_is_not_the_same():
    flat = {Subject("gradcam", "a", (4, 4)): [np.ones((4, 4))], Subject("gradcam", "b", (2, 2)): [np.ones((2, 2))]}
    assert len(names(flat)) == 2


def test_a_method_is_never_the_same_as_a_control():
    maps = noise(0)
    assert len(names({Subject("gradcam", "a", GRID): maps, Subject("random", "", GRID): maps})) == 2


def test_empty_maps_are_the_same():
    nothing = [np.zeros(GRID, np.float32)]
    assert len(names({Subject("gradcam", "a", GRID): nothing, Subject("cam", "a", GRID): nothing})) == 1


def test_the_methods_that_are_one_on_an_exact_network_are_found(study):
    found = [{one.method for one in group.group.subjects} for group in study.measured]
    assert {"cam", "gradcam", "hirescam", "xgradcam"} in found

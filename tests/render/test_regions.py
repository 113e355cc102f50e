"""Regions of maps small enough to check by eye."""

from __future__ import annotations

import numpy as np
import pytest

from camserve.render.regions import Region, regions


def grid(text: str) -> np.ndarray:
    """Rows separated by /, single digits; - stands for -9."""
    return np.array([[-9 if c == "-" else int(c) for c in row] for row in text.split("/")], np.float32)


@pytest.mark.parametrize(
    ("map", "expected"),
    [
        pytest.param("00000/00000/00000/00000/00000", [], id="nothing"),
        pytest.param("-----/-----/-----/-----/-----", [], id="only negative"),
        pytest.param("00000/00000/00800/00000/00000", [((2, 2, 3, 3), 1.0)], id="one cell"),
        pytest.param(
            "88000/88000/00000/00000/00008", [((0, 0, 2, 2), 0.8), ((4, 4, 5, 5), 0.2)], id="two, largest first"
        ),
        pytest.param(
            "80000/00000/00000/00088/00088", [((3, 3, 5, 5), 0.8), ((0, 0, 1, 1), 0.2)], id="two, the later one larger"
        ),
        pytest.param("80000/08000/00800/00000/00000", [((0, 0, 3, 3), 1.0)], id="cells that touch at a corner are one"),
        pytest.param(
            "80800/00000/00000/00000/00000", [((0, 0, 1, 1), 0.5), ((2, 0, 3, 1), 0.5)], id="a gap parts them"
        ),
        pytest.param("84000/00000/00000/00000/00000", [((0, 0, 2, 1), 1.0)], id="exactly half the peak counts"),
        pytest.param("83000/00000/00000/00000/00000", [((0, 0, 1, 1), 8 / 11)], id="less than half does not"),
        pytest.param("8-000/00000/00000/00000/00000", [((0, 0, 1, 1), 1.0)], id="negative cells weigh nothing"),
        pytest.param(
            "80000/81000/88000/00000/00002", [((0, 0, 2, 3), 33 / 35)], id="the share counts weak cells in the box"
        ),
        pytest.param("44444/44444/44444/44444/44444", [((0, 0, 5, 5), 1.0)], id="a flat map is one region"),
    ],
)
def test_regions(map, expected):
    found = regions(grid(map))
    assert [region.box for region in found] == [box for box, _ in expected]
    assert [region.share for region in found] == pytest.approx([share for _, share in expected])


def test_at_most_five_and_the_weakest_is_left_out():
    found = regions(grid("90807/00000/60508/00000/00000"))
    assert len(found) == 5
    assert [round(region.share * 43) for region in found] == [9, 8, 8, 7, 6]


def test_shares_are_plain_floats_in_range():
    found = regions(np.random.default_rng(0).normal(size=(14, 14)).astype(np.float32))
    assert found
    for region in found:
        assert isinstance(region, Region)
        assert type(region.share) is float
        assert 0 < region.share <= 1


def test_a_wide_map_keeps_x_and_y_apart():
    map = np.zeros((3, 9), np.float32)
    map[1, 6:8] = 1
    assert regions(map) == [Region((6, 1, 8, 2), 1.0)]

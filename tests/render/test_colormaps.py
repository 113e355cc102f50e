"""Colour maps as tables."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from camserve.render.colormaps import COLORMAPS, diverging, table
from pictures import noise


def test_the_usual_maps_are_there_under_lower_case_names():
    assert {"jet", "viridis", "turbo", "inferno", "twilight_shifted"} <= COLORMAPS.keys()
    assert len(COLORMAPS) == sum(name.startswith("COLORMAP_") for name in dir(cv2))
    assert all(name == name.lower() for name in COLORMAPS)


@pytest.mark.parametrize("name", COLORMAPS)
def test_a_table_gives_opencvs_colours(name):
    grey = noise(64, 64)[:, :, 0]
    opencv = cv2.applyColorMap(grey, getattr(cv2, f"COLORMAP_{name.upper()}"))
    np.testing.assert_array_equal(table(name)[grey], opencv[:, :, ::-1])


def test_diverging_goes_from_blue_over_white_to_red():
    colours = diverging()
    assert colours.shape == (256, 3)
    assert colours.dtype == np.uint8
    assert colours[128].tolist() == [255, 255, 255]
    assert colours[0].tolist() == [0, 0, 255]
    red, green, blue = colours[255].tolist()
    assert (red, green, blue) == (255, 2, 2)
    below, above = colours[:128].astype(int), colours[129:].astype(int)
    assert (below[:, 2] == 255).all()
    assert (above[:, 0] == 255).all()
    assert (np.diff(below[:, 0]) >= 0).all()
    assert (np.diff(above[:, 2]) <= 0).all()
    np.testing.assert_array_equal(colours[1:128, 0], colours[:128:-1, 2])

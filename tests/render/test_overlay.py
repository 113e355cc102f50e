"""The overlay and the heatmap against OpenCV, pixel by pixel."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from camserve.render import overlay as module
from camserve.render.colormaps import COLORMAPS, diverging
from camserve.render.overlay import Placement, heatmap, levels, scaled
from pictures import noise

WIDTH, HEIGHT = 96, 64
WHOLE = (0.0, 0.0, float(WIDTH), float(HEIGHT))
PART = (16.0, 8.0, 72.0, 64.0)


def evidence(h: int = 7, w: int = 7, seed: int = 0, signed: bool = False) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(h, w)).astype(np.float32)
    return values if signed else np.abs(values)


def overlay(*asked: Any) -> np.ndarray:
    """The service's overlay, red first."""
    return module.overlay(*asked)[:, :, ::-1]


def by_opencv(pixels: np.ndarray, box: tuple, map: np.ndarray, colormap: str, opacity: float) -> np.ndarray:
    """The overlay as one would write it with OpenCV alone, for boxes of whole pixels."""
    x0, y0, x1, y1 = map_box = tuple(int(edge) for edge in box)
    assert map_box == box
    positive = np.maximum(map, 0)
    large = cv2.resize(positive / positive.max(), (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
    heat = cv2.applyColorMap((large * 255).round().astype(np.uint8), getattr(cv2, f"COLORMAP_{colormap.upper()}"))
    drawn = pixels[:, :, ::-1].copy()
    drawn[y0:y1, x0:x1] = cv2.addWeighted(drawn[y0:y1, x0:x1], 1 - opacity, heat, opacity, 0)
    return drawn[:, :, ::-1]


# --- placement ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("h", "w"), [(7, 7), (14, 14), (1, 1), (3, 11), (2, 1)])
@pytest.mark.parametrize(("width", "height"), [(96, 64), (224, 224), (31, 200)])
def test_spread_over_the_whole_picture_equals_opencvs_resize(h, w, width, height):
    map = evidence(h, w, signed=True)
    ours = Placement(width, height, (0, 0, width, height)).spread(map)
    theirs = cv2.resize(map, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert ours.dtype == np.float32


def test_spread_in_a_box_of_whole_pixels_equals_opencvs_resize():
    place = Placement(WIDTH, HEIGHT, PART)
    assert (place.columns, place.rows) == (slice(16, 72), slice(8, 64))
    theirs = cv2.resize(evidence(), (56, 56), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(place.spread(evidence()), theirs, atol=1e-5)


def test_a_box_between_pixels_covers_every_pixel_it_touches():
    place = Placement(100, 50, (10.25, 3.5, 40.75, 34.0))
    assert (place.columns, place.rows) == (slice(10, 41), slice(3, 34))
    assert place.spread(evidence()).shape == (31, 31)


def test_a_box_between_pixels_gives_each_pixel_the_value_at_its_centre():
    """A ramp over 8 cells is linear between the first and the last cell's centre."""
    x0, x1 = 10.25, 50.75
    cell = (x1 - x0) / 8
    ramp = np.tile(np.arange(8, dtype=np.float32), (8, 1))
    place = Placement(100, 100, (x0, x0, x1, x1))
    centres = np.arange(place.columns.start, place.columns.stop) + 0.5
    expected = np.clip((centres - x0) / cell - 0.5, 0, 7)
    np.testing.assert_allclose(place.spread(ramp)[20], expected, atol=1e-5)
    np.testing.assert_allclose(place.spread(ramp.T)[:, 20], expected, atol=1e-5)


def test_a_box_that_ends_a_rounding_error_outside_stays_in_the_picture():
    place = Placement(100, 50, (-1e-9, -1e-9, 100 + 1e-9, 50 + 1e-9))
    assert (place.columns, place.rows) == (slice(0, 100), slice(0, 50))


def test_a_box_smaller_than_a_pixel_covers_one():
    assert Placement(64, 64, (10.1, 20.1, 10.2, 20.2)).spread(evidence()).shape == (1, 1)


# --- overlay ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [pytest.param(WHOLE, id="whole picture"), pytest.param(PART, id="part of it")])
@pytest.mark.parametrize(
    ("colormap", "opacity"), [("jet", 0.4), ("viridis", 0.75), ("bone", 1.0)], ids=lambda value: str(value)
)
def test_the_overlay_equals_opencvs(box, colormap, opacity):
    pixels = noise(WIDTH, HEIGHT)
    ours = overlay(pixels, box, evidence(), False, colormap, opacity)
    theirs = by_opencv(pixels, box, evidence(), colormap, opacity)
    # OpenCV's fixed-point resize may put a level one step away; elsewhere they are the same byte for byte.
    off = np.abs(ours.astype(int) - theirs).max(2)
    assert (off > 0).mean() < 0.005
    assert off.max() <= 20


def test_the_colours_are_blended_exactly():
    """A map of one cell has one level, so nothing depends on how it is resized."""
    pixels = noise(WIDTH, HEIGHT)
    red = cv2.applyColorMap(np.full((HEIGHT, WIDTH), 255, np.uint8), cv2.COLORMAP_JET)
    expected = cv2.addWeighted(pixels[:, :, ::-1], 0.6, red, 0.4, 0)[:, :, ::-1]
    np.testing.assert_array_equal(overlay(pixels, WHOLE, evidence(1, 1), False, "jet", 0.4), expected)


def test_outside_the_box_the_picture_is_plain():
    pixels = noise(WIDTH, HEIGHT)
    drawn = overlay(pixels, PART, evidence(), False, "jet", 0.4)
    outside = np.ones((HEIGHT, WIDTH), bool)
    outside[8:64, 16:72] = False
    np.testing.assert_array_equal(drawn[outside], pixels[outside])
    assert (drawn[~outside] != pixels[~outside]).any(1).mean() > 0.9


def test_the_picture_given_is_not_changed():
    pixels = noise(WIDTH, HEIGHT)
    overlay(pixels, WHOLE, evidence(), False, "jet", 0.4)
    np.testing.assert_array_equal(pixels, noise(WIDTH, HEIGHT))


def test_no_opacity_is_the_plain_picture():
    pixels = noise(WIDTH, HEIGHT)
    np.testing.assert_array_equal(overlay(pixels, WHOLE, evidence(), False, "jet", 0.0), pixels)


@pytest.mark.parametrize("name", COLORMAPS)
def test_full_opacity_shows_the_colour_map_alone(name):
    drawn = overlay(noise(8, 8), (0, 0, 8, 8), evidence(1, 1), False, name, 1.0)
    top = cv2.applyColorMap(np.full((1, 1), 255, np.uint8), getattr(cv2, f"COLORMAP_{name.upper()}"))[0, 0, ::-1]
    assert (drawn == top).all()


def test_a_signed_map_has_its_own_colours():
    pixels = noise(33, 10)
    map = np.array([[-2.0, 0.0, 1.0]], np.float32)
    drawn = overlay(pixels, (0, 0, 33, 10), map, True, "jet", 1.0)
    assert (drawn[:, 5] == diverging()[1]).all()
    assert (drawn[:, 27] == diverging()[192]).all()
    colours = {tuple(c) for c in drawn.reshape(-1, 3).tolist()}
    assert colours <= {tuple(c) for c in diverging().tolist()}


NOTHING = [
    pytest.param(np.zeros((7, 7)), False, id="zeros"),
    pytest.param(np.full((7, 7), -3.0), False, id="all negative"),
    pytest.param(np.full((7, 7), 1e-13), False, id="rounding errors"),
    pytest.param(np.full((7, 7), np.nan), False, id="NaN"),
    pytest.param(np.zeros((7, 7)), True, id="zeros, signed"),
    pytest.param(np.full((7, 7), np.nan), True, id="NaN, signed"),
]


@pytest.mark.parametrize(("map", "signed"), NOTHING)
def test_a_map_without_evidence_leaves_the_plain_picture(map, signed):
    pixels = noise(WIDTH, HEIGHT)
    drawn = overlay(pixels, WHOLE, map.astype(np.float32), signed, "jet", 0.4)
    np.testing.assert_array_equal(drawn, pixels)


# --- heatmap ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("map", "signed"), NOTHING)
def test_a_map_without_evidence_is_one_grey(map, signed):
    grey = heatmap(WIDTH, HEIGHT, PART, map.astype(np.float32), signed)
    assert (grey == (128 if signed else 0)).all()


def test_the_heatmap_is_the_map_in_255_levels():
    grey = heatmap(WIDTH, HEIGHT, PART, evidence(), False)
    assert grey.shape == (HEIGHT, WIDTH)
    assert grey.dtype == np.uint8
    expected = cv2.resize(evidence() / evidence().max(), (56, 56), interpolation=cv2.INTER_LINEAR) * 255
    np.testing.assert_allclose(grey[8:64, 16:72], expected, atol=0.51)
    grey[8:64, 16:72] = 0
    assert not grey.any()


def test_the_signed_heatmap_has_zero_at_128():
    map = np.array([[-1.0, 0.0, 0.5]], np.float32)
    grey = heatmap(44, 10, (0, 0, 33, 10), map, True)
    assert (grey[0, 5], grey[0, 27], grey[0, 38]) == (1, 192, 128)
    assert (grey == 128).sum() >= 100


def test_a_flat_positive_map_is_full_heat():
    assert (heatmap(8, 8, (0, 0, 8, 8), np.full((7, 7), 0.3, np.float32), False) == 255).all()


@pytest.mark.parametrize(
    ("values", "signed", "expected"),
    [
        ([-4, 0, 1, 2], False, [0, 0, 0.5, 1]),
        ([-4, 0, 1, 2], True, [-1, 0, 0.25, 0.5]),
        ([-4, -1], True, [-1, -0.25]),
    ],
    ids=["positive part by its peak", "signed by the larger side", "signed without a positive"],
)
def test_scaled(values, signed, expected):
    assert scaled(np.array([values], np.float32), signed).tolist() == [expected]


def test_levels_are_rounded_to_the_nearest():
    assert levels(np.array([0, 0.5 / 255 - 1e-4, 0.5 / 255 + 1e-4, 1], np.float32), False).tolist() == [0, 0, 1, 255]
    assert levels(np.array([-1, 0, 1], np.float32), True).tolist() == [1, 128, 255]


@pytest.mark.parametrize("side", [64, 65])
def test_one_pixel_that_sticks_out_does_not_hide_a_map_of_pixels(side):
    map = evidence(side, side)
    map[5, 5] = 1000
    map[0] = -1  # what speaks against the class has no part in the scale
    found = scaled(map, signed=False)
    assert found.max() == 1
    assert found.min() == 0
    assert (np.median(found) > 0.1) == (side == 65)
    if side == 65:
        end = np.quantile(map[map > 0], 0.99)
        np.testing.assert_allclose(found, np.clip(map / end, 0, 1), rtol=1e-6)


def test_a_signed_map_of_pixels_keeps_its_sides():
    map = evidence(80, 80, signed=True)
    found = scaled(map, signed=True)
    assert (found.min(), found.max()) == (-1, 1)
    assert (np.sign(found) == np.sign(map)).all()


def test_a_map_of_pixels_without_evidence_is_empty():
    assert not scaled(-evidence(80, 80), signed=False).any()

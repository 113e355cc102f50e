"""Two resizes: torchvision's and timm's numbers for the model, averages for the overlay."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.data import chelsea
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize

from camserve.imaging.picture import Picture
from camserve.imaging.resize import canvas, fitted, resized
from pictures import noise, quarters


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(100, 64), (33, 200), (900, 600)], ids=["smaller", "of another shape", "larger"])
def test_resized_equals_torchvision(size, interpolation):
    width, height = size
    ours = resized(Picture.of(chelsea()), size, (0, 0, *size), interpolation)
    theirs = resize(Image.fromarray(chelsea()), [height, width], InterpolationMode(interpolation))
    np.testing.assert_array_equal(ours, np.asarray(theirs))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_part_has_the_numbers_of_the_whole(data):
    width, height = data.draw(st.integers(1, 400)), data.draw(st.integers(1, 400))
    size = (data.draw(st.sampled_from([64, 128, 50, 77])), data.draw(st.sampled_from([64, 128, 50, 77])))
    x0, y0 = (data.draw(st.integers(-5, length - 2)) for length in size)
    x1, y1 = data.draw(st.integers(x0 + 1, size[0] + 5)), data.draw(st.integers(y0 + 1, size[1] + 5))
    interpolation = data.draw(st.sampled_from(["bilinear", "bicubic"]))
    picture = Picture.of(noise(width, height))
    whole = resize(picture.source, [size[1], size[0]], InterpolationMode(interpolation))
    part = resized(picture, size, (x0, y0, x1, y1), interpolation)
    np.testing.assert_array_equal(part, np.asarray(whole.crop((x0, y0, x1, y1))))


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        pytest.param(1024, 768, (512, 384), id="landscape"),
        pytest.param(768, 1024, (384, 512), id="portrait"),
        pytest.param(513, 513, (512, 512), id="one pixel too large"),
        pytest.param(2000, 1, (512, 1), id="a line keeps one pixel"),
    ],
)
def test_fitted_has_its_longest_side_at_the_limit(width, height, expected):
    pixels = noise(width, height)
    small = fitted(Picture.of(pixels), 512)
    assert (small.shape[1], small.shape[0]) == expected
    averaged = cv2.resize(pixels, expected, interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(float) - averaged).mean() < 20  # of noise, whose values lie 85 apart


def rings(width: int, height: int) -> np.ndarray:
    """A pattern that gets finer towards the edges, up to what pixels can show."""
    y, x = np.mgrid[:height, :width]
    wave = np.cos(np.pi * ((x - width / 2) ** 2 + (y - height / 2) ** 2) / width)
    return np.repeat((127.5 + 127.5 * wave).astype(np.uint8)[:, :, None], 3, axis=2)


@pytest.mark.parametrize(("width", "height"), [(1600, 1200), (1601, 1201), (1000, 750), (2400, 3000)])
def test_fine_patterns_do_not_turn_into_coarse_ones(width, height):
    """Half as far from a slow, good filter as pixels picked out and interpolated are."""
    picture = Picture.of(rings(width, height))
    small = fitted(picture, 512)
    size = small.shape[1], small.shape[0]
    good = np.asarray(picture.source.resize(size, Image.Resampling.LANCZOS)).astype(float)
    picked = cv2.resize(picture.pixels, size, interpolation=cv2.INTER_LINEAR)
    assert ((small - good) ** 2).mean() ** 0.5 < 0.5 * ((picked - good) ** 2).mean() ** 0.5


@pytest.mark.parametrize("side", [1024, 1025, 1600, 700])
def test_nothing_moves_when_fitted(side):
    """A ramp stays where it is, to a third of a pixel of the canvas: the last of an odd number may be left out."""
    ramp = np.repeat(np.linspace(0, 255, side)[None, :, None], side, 0).repeat(3, 2).round().astype(np.uint8)
    small = fitted(Picture.of(ramp), 512).astype(float)
    expected = np.interp((np.arange(512) + 0.5) / 512 * side - 0.5, np.arange(side), np.linspace(0, 255, side))
    assert np.abs(small[256, :, 0] - expected)[1:-1].max() < 0.5 + 0.34 * 255 / 512


@pytest.mark.parametrize(("width", "height"), [(512, 100), (40, 30)])
def test_fitted_never_enlarges(width, height):
    picture = Picture.of(quarters(width, height))
    np.testing.assert_array_equal(fitted(picture, 512), picture.pixels)


@pytest.mark.parametrize("most", [64, 512])
def test_what_was_fitted_is_no_part_of_the_picture(most):
    picture = Picture.of(quarters(128, 100))
    fitted(picture, most)[:] = 0
    np.testing.assert_array_equal(picture.pixels, quarters(128, 100))


@pytest.mark.parametrize("size", [(512, 384), (513, 384), (1600, 1200)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_canvas_shows_what_is_fitted(size):
    picture = Picture.of(noise(*size))
    np.testing.assert_array_equal(canvas(picture, 512)[..., :3], fitted(picture, 512))


def test_a_small_picture_is_its_own_canvas_and_nobody_writes_to_it():
    picture = Picture.of(noise(40, 30))
    assert np.shares_memory(canvas(picture, 512), picture.memory)
    assert not canvas(picture, 512).flags.writeable

"""The one resize: torchvision's and timm's numbers for the model, area averages for the overlay."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.data import chelsea
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize

from camserve.imaging.resize import fitted, resized
from camserve.records import Picture
from pictures import noise, quarters


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(100, 64), (33, 200), (900, 600)], ids=["smaller", "of another shape", "larger"])
def test_resized_equals_torchvision(size, interpolation):
    width, height = size
    ours = resized(Picture(chelsea()), width, height, interpolation)
    theirs = resize(Image.fromarray(chelsea()), [height, width], InterpolationMode(interpolation))
    np.testing.assert_array_equal(ours, np.asarray(theirs))


def test_a_picture_of_the_right_size_is_handed_on():
    picture = Picture(noise(20, 10))
    assert resized(picture, 20, 10, "bicubic") is picture.pixels


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
    small = fitted(Picture(pixels), 512)
    assert (small.shape[1], small.shape[0]) == expected
    np.testing.assert_array_equal(small, cv2.resize(pixels, expected, interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize(("width", "height"), [(512, 100), (40, 30)])
def test_fitted_never_enlarges_and_never_shares_memory(width, height):
    picture = Picture(quarters(width, height))
    copy = fitted(picture, 512)
    np.testing.assert_array_equal(copy, picture.pixels)
    copy[:] = 0
    np.testing.assert_array_equal(picture.pixels, quarters(width, height))

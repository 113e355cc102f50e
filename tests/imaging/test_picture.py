"""A picture in Pillow's own memory, and its pixels as everyone else sees them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from camserve.imaging.picture import Picture
from pictures import noise


@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (31, 17), (2048, 2048), (2100, 2100)], ids=lambda side: str(side)
)
def test_the_pixels_are_pillows(width, height):
    """The last size is more than Pillow keeps in one piece if it is not told to (16 MB)."""
    picture = Picture.of(noise(width, height))
    np.testing.assert_array_equal(picture.pixels, noise(width, height))
    assert picture.pixels.dtype == np.uint8


def test_a_turned_and_cut_picture_has_its_own_pixels():
    turned = Picture(Image.fromarray(noise(40, 30)).transpose(Image.Transpose.ROTATE_90)).cropped((3, 5, 20, 31))
    np.testing.assert_array_equal(turned.pixels, np.rot90(noise(40, 30))[5:31, 3:20])


def test_pixels_and_memory_outlive_their_picture():
    pixels, memory = Picture.of(noise(400, 300)).pixels, Picture.of(noise(400, 300)).memory[:, ::2]
    others = [Picture.of(np.zeros((300, 400, 3), np.uint8)) for _ in range(50)]  # take freed memory, if there is any
    np.testing.assert_array_equal(pixels, noise(400, 300))
    np.testing.assert_array_equal(memory[..., :3], noise(400, 300)[:, ::2])
    assert not memory.flags.writeable
    assert len(others) == 50


def test_nobody_can_change_a_picture_by_its_pixels():
    picture = Picture.of(noise(40, 30))
    picture.pixels[:] = 0
    np.testing.assert_array_equal(picture.pixels, noise(40, 30))

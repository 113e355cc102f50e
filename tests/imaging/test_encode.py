"""Pixels to files: faithful, as small as asked where that is possible."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from camserve.imaging.encode import ENCODINGS, QUALITIES, encode
from pictures import noise, quarters


def decoded(data: bytes) -> np.ndarray:
    """By Pillow, with blue first where there are colours."""
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    return pixels[:, :, ::-1] if pixels.ndim == 3 else pixels


def at_quality(pixels: np.ndarray, format: str, quality: int) -> bytes:
    """What OpenCV makes of the pixels, computed apart."""
    extension, setting = {"jpeg": (".jpg", cv2.IMWRITE_JPEG_QUALITY), "webp": (".webp", cv2.IMWRITE_WEBP_QUALITY)}[
        format
    ]
    return cv2.imencode(extension, pixels, [setting, quality])[1].tobytes()


@pytest.mark.parametrize("format", ENCODINGS)
def test_the_file_is_what_it_says(format):
    image = encode(quarters(48, 32), format)
    opened = Image.open(io.BytesIO(image.data))
    assert (opened.format.lower(), opened.size, opened.mode) == (format, (48, 32), "RGB")
    assert (image.mime, image.width, image.height) == (f"image/{format}", 48, 32)


def test_png_keeps_every_value():
    image = encode(noise(33, 21), "png", max_bytes=1)
    np.testing.assert_array_equal(decoded(image.data), noise(33, 21))
    assert image.quality is None


def test_grey_png_stays_grey():
    grey = noise(33, 21)[:, :, 0]
    image = encode(grey, "png")
    assert Image.open(io.BytesIO(image.data)).mode == "L"
    np.testing.assert_array_equal(decoded(image.data), grey)


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_lossy_formats_keep_red_red(format):
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, :, 2] = 220
    assert np.abs(decoded(encode(pixels, format).data)[16, 16].astype(int) - (0, 0, 220)).max() <= 12


def test_the_qualities_are_the_contracts():
    assert QUALITIES == (85, 70, 55)


@pytest.mark.parametrize("format", ["jpeg", "webp"])
@pytest.mark.parametrize(
    ("limit_of", "spare", "expected"),
    [
        pytest.param(85, 0, 85, id="exactly small enough at 85"),
        pytest.param(85, -1, 70, id="one byte too large at 85"),
        pytest.param(70, 0, 70, id="exactly small enough at 70"),
        pytest.param(70, -1, 55, id="one byte too large at 70"),
        pytest.param(55, -1, 55, id="kept at 55 though still too large"),
    ],
)
def test_quality_steps_down_only_as_far_as_needed(format, limit_of, spare, expected):
    pixels = noise(64, 64)
    image = encode(pixels, format, len(at_quality(pixels, format, limit_of)) + spare)
    assert image.quality == expected
    assert image.data == at_quality(pixels, format, expected)


def test_without_a_limit_the_best_quality_is_kept():
    assert encode(noise(256, 256), "jpeg").quality == 85


def test_pixels_in_any_memory_order_are_encoded():
    pixels = noise(40, 30)
    turned = pixels.transpose(1, 0, 2)
    np.testing.assert_array_equal(decoded(encode(turned, "png").data), turned)

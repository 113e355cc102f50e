"""Every format and mode becomes upright RGB; broken and oversized files cost little and say why."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from camserve.errors import TooLarge, Undecodable
from camserve.imaging.decode import SizeLimits, decode, inspect
from pictures import COLOURS, cat, encoded, huge, png16, quarters, turned

LIMITS = SizeLimits(pixels=50_000_000, side=16_384, aspect_ratio=20.0)
RGB = quarters()
GREY = np.asarray(Image.fromarray(RGB).convert("L"))
HOLE = np.zeros((32, 48), bool)
HOLE[:16, 24:] = True
"""The top right quarter, which the pictures with alpha leave out."""

# Pillow reads broken files with a warning; the handler silences those, see camserve_handler.py.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL.*", "ignore::PIL.Image.DecompressionBombWarning")


def read(image: bytes, limits: SizeLimits = LIMITS) -> np.ndarray:
    pixels = decode(inspect(image, limits)).pixels
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    return pixels


def middles(pixels: np.ndarray) -> np.ndarray:
    """The colours in the middle of the quarters, where a lossy format is steady."""
    height, width = pixels.shape[:2]
    return pixels[[height // 4, height // 4, -height // 4, -height // 4], [width // 4, -width // 4] * 2].astype(int)


def alpha() -> np.ndarray:
    return np.dstack([RGB, np.where(HOLE, 0, 255).astype(np.uint8)])


def on_white(pixels: np.ndarray) -> np.ndarray:
    return np.where(HOLE[:, :, None], 255, pixels)


def grey3(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)


def palette() -> Image.Image:
    return Image.fromarray(RGB).quantize(4, dither=Image.Dither.NONE)


def palette_with_hole() -> tuple[Image.Image, int]:
    image = palette()
    return image, int(np.asarray(image)[0, -1])


def frames(count: int = 3) -> list[Image.Image]:
    return [Image.fromarray(np.roll(RGB, 7 * k, axis=1)) for k in range(count)]


def animated(format: str, **how: object) -> bytes:
    first, *rest = frames()
    return encoded(first, format, save_all=True, append_images=rest, **how)


def ramp16() -> np.ndarray:
    """16-bit grey from 0 to 65535 over the picture."""
    return np.linspace(0, 65_535, 48 * 32).round().astype(np.uint16).reshape(32, 48)


def tiff(pixels: np.ndarray, byte_order: str, photometric: int = 1, sample_format: int = 1) -> bytes:
    """One strip, uncompressed, in either byte order."""
    end = {"II": "<", "MM": ">"}[byte_order]
    height, width = pixels.shape
    bits = pixels.dtype.itemsize * 8
    data = pixels.astype(pixels.dtype.newbyteorder(end)).tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 200, 277: 1, 278: height}
    tags |= {279: len(data), 339: sample_format}
    entries = b"".join(struct.pack(f"{end}HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = byte_order.encode() + struct.pack(f"{end}HIH", 42, 8, len(tags)) + entries + bytes(4)
    return head.ljust(200, b"\0") + data


# --- exact ---------------------------------------------------------------------------------------------------


def lossless() -> list:
    hole, index = palette_with_hole()
    return [
        pytest.param(encoded(RGB, "PNG"), RGB, id="PNG RGB"),
        pytest.param(encoded(alpha(), "PNG"), on_white(RGB), id="PNG RGBA lies over white"),
        pytest.param(encoded(GREY, "PNG"), grey3(GREY), id="PNG grey"),
        pytest.param(encoded(palette(), "PNG"), RGB, id="PNG palette"),
        pytest.param(encoded(hole, "PNG", transparency=index), on_white(RGB), id="PNG palette with transparency"),
        pytest.param(
            encoded(Image.fromarray(np.dstack([GREY, alpha()[:, :, 3]]), "LA"), "PNG"),
            on_white(grey3(GREY)),
            id="PNG grey with alpha",
        ),
        pytest.param(
            encoded(Image.fromarray(HOLE), "PNG"), grey3(np.where(HOLE, 255, 0).astype(np.uint8)), id="PNG of 1 bit"
        ),
        pytest.param(encoded(ramp16(), "PNG"), grey3((ramp16() // 257).astype(np.uint8)), id="PNG 16-bit grey, scaled"),
        pytest.param(png16(RGB.astype(np.uint16) * 257), RGB, id="PNG 16-bit RGB"),
        pytest.param(encoded(palette(), "GIF"), RGB, id="GIF"),
        pytest.param(encoded(hole, "GIF", transparency=index), on_white(RGB), id="GIF with transparency"),
        pytest.param(encoded(RGB, "WEBP", lossless=True), RGB, id="WebP lossless"),
        pytest.param(encoded(alpha(), "WEBP", lossless=True, exact=True), on_white(RGB), id="WebP lossless with alpha"),
        pytest.param(animated("WEBP", lossless=True), RGB, id="WebP animated, first frame"),
        pytest.param(encoded(RGB, "BMP"), RGB, id="BMP"),
        pytest.param(encoded(palette(), "BMP"), RGB, id="BMP palette"),
        pytest.param(encoded(GREY, "BMP"), grey3(GREY), id="BMP grey"),
        pytest.param(encoded(RGB, "TIFF"), RGB, id="TIFF RGB"),
        pytest.param(encoded(RGB, "TIFF", compression="tiff_lzw"), RGB, id="TIFF RGB, compressed"),
        pytest.param(encoded(alpha(), "TIFF"), on_white(RGB), id="TIFF RGBA lies over white"),
        pytest.param(animated("TIFF"), RGB, id="TIFF of several pages, first page"),
        pytest.param(tiff(ramp16(), "II"), grey3((ramp16() // 257).astype(np.uint8)), id="TIFF 16-bit grey"),
        pytest.param(tiff(ramp16(), "MM"), grey3((ramp16() // 257).astype(np.uint8)), id="TIFF 16-bit, big-endian"),
    ]


@pytest.mark.parametrize(("image", "expected"), lossless())
def test_a_lossless_picture_keeps_its_values(image, expected):
    np.testing.assert_array_equal(read(image), expected)


def test_an_animated_gif_gives_its_first_frame():
    first, *rest = [frame.quantize(8, dither=Image.Dither.NONE) for frame in frames()]
    image = encoded(first, "GIF", save_all=True, append_images=rest)
    assert Image.open(io.BytesIO(image)).n_frames == 3
    np.testing.assert_array_equal(read(image), RGB)


# --- lossy ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(encoded(RGB, "JPEG", quality=95), id="JPEG RGB"),
        pytest.param(encoded(RGB, "JPEG", quality=95, progressive=True), id="JPEG progressive"),
        pytest.param(encoded(RGB, "WEBP", quality=95), id="WebP lossy"),
        pytest.param(encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95), id="JPEG CMYK"),
        pytest.param(encoded(Image.fromarray(RGB).convert("CMYK"), "TIFF"), id="TIFF CMYK"),
    ],
)
def test_a_lossy_picture_keeps_its_colours(image):
    pixels = read(image)
    assert pixels.shape == RGB.shape
    assert np.abs(middles(pixels) - COLOURS).max() <= 6


def test_a_grey_jpeg_has_three_equal_channels():
    pixels = read(encoded(GREY, "JPEG", quality=95))
    np.testing.assert_array_equal(pixels, grey3(pixels[:, :, 0]))
    assert np.abs(pixels[:, :, 0].astype(int) - GREY).mean() < 2


def test_a_real_photograph_equals_pillows_own_reading():
    np.testing.assert_array_equal(read(cat()), np.asarray(Image.open(io.BytesIO(cat())).convert("RGB")))


# --- upright -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_turned_upright(orientation):
    pixels = read(turned(RGB, orientation, "JPEG", quality=95))
    assert pixels.shape == RGB.shape
    assert np.abs(middles(pixels) - COLOURS).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_other_formats_are_turned_upright(format, orientation):
    how = {"lossless": True} if format == "WEBP" else {}
    np.testing.assert_array_equal(read(turned(RGB, orientation, format, **how)), RGB)


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_unknown_orientation_is_left_alone(orientation):
    np.testing.assert_array_equal(read(turned(RGB, orientation, "PNG")), RGB)


@pytest.mark.parametrize(
    "exif",
    [
        pytest.param(b"Exif\0\0rubbish", id="no TIFF header"),
        pytest.param(b"Exif\0\0II*\0\xff\xff\xff\x7f", id="a directory behind the end"),
        pytest.param(b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01", id="a directory cut short"),
        pytest.param(
            b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0six\0\0\0\0\0", id="an orientation that is text"
        ),
    ],
)
def test_a_broken_exif_block_does_not_cost_the_picture(exif):
    pixels = read(encoded(RGB, "JPEG", quality=95, exif=exif))
    assert np.abs(middles(pixels) - COLOURS).max() <= 6


# --- broken --------------------------------------------------------------------------------------------------

WHOLE = {
    "JPEG": encoded(RGB, "JPEG"),
    "progressive JPEG": encoded(RGB, "JPEG", progressive=True),
    "PNG": encoded(RGB, "PNG"),
    "GIF": encoded(palette(), "GIF"),
    "lossy WebP": encoded(RGB, "WEBP"),
    "lossless WebP": encoded(RGB, "WEBP", lossless=True),
    "BMP": encoded(RGB, "BMP"),
    "TIFF": encoded(RGB, "TIFF"),
}


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("name", WHOLE)
def test_a_file_cut_short_is_undecodable(name, share):
    whole = WHOLE[name]
    format = name.split()[-1].upper()
    with pytest.raises(Undecodable) as caught:
        read(whole[: max(13, int(len(whole) * share))])
    assert (caught.value.status, caught.value.type) == (422, "Undecodable")
    assert str(caught.value).startswith(f"The {format} picture is broken or cut short: ")


@pytest.mark.parametrize(
    ("format", "start"),
    [
        ("JPEG", b"\xff\xd8\xff\xe0"),
        ("PNG", b"\x89PNG\r\n\x1a\n"),
        ("GIF", b"GIF89a\x10\0\x10\0\0\0\0"),
        ("WEBP", b"RIFF\x40\0\0\0WEBP"),
        ("BMP", b"BM"),
        ("TIFF", b"II*\0"),
    ],
)
def test_rubbish_behind_a_good_signature_is_undecodable(format, start):
    with pytest.raises(Undecodable) as caught:
        read(start + b"rubbish " * 40)
    message = str(caught.value)
    assert message.startswith(f"The {format} picture is broken or cut short: ")
    assert message.endswith(".")
    assert not message.endswith("'.")
    assert " at 0x" not in message
    assert len(message) < 250


def test_rubbish_says_exactly_what_is_wrong():
    with pytest.raises(Undecodable) as caught:
        read(b"BM" + bytes(300))
    assert str(caught.value) == "The BMP picture is broken or cut short: Unsupported BMP header type (0)."
    with pytest.raises(Undecodable) as caught:
        read(b"GIF89a\1")
    assert str(caught.value) == "The GIF picture is broken or cut short: its header cannot be read."


def test_floating_point_pixels_are_refused():
    values = np.linspace(0, 1, 48 * 32, dtype=np.float32).reshape(32, 48)
    with pytest.raises(Undecodable) as caught:
        read(encoded(Image.fromarray(values), "TIFF"))
    assert str(caught.value) == "Expected 8 or 16 bits a channel; the picture holds 32-bit floats."


# --- too large -----------------------------------------------------------------------------------------------


def blank(width: int, height: int) -> bytes:
    return encoded(Image.new("L", (width, height)), "PNG")


@pytest.mark.parametrize(
    ("limits", "fits", "passes", "message"),
    [
        pytest.param(
            SizeLimits(600, 1000, 100.0),
            (30, 20),
            (601, 1),
            "Expected at most 600 pixels; the picture has 601x1.",
            id="pixels",
        ),
        pytest.param(
            SizeLimits(10_000, 64, 100.0),
            (64, 20),
            (65, 20),
            "Expected sides of at most 64 pixels; the picture has 65x20.",
            id="width",
        ),
        pytest.param(
            SizeLimits(10_000, 64, 100.0),
            (20, 64),
            (20, 65),
            "Expected sides of at most 64 pixels; the picture has 20x65.",
            id="height",
        ),
        pytest.param(
            SizeLimits(10_000, 1000, 20.0),
            (100, 5),
            (101, 5),
            "Expected a longer side of at most 20 times the shorter; the picture has 101x5.",
            id="wide",
        ),
        pytest.param(
            SizeLimits(10_000, 1000, 2.5),
            (4, 10),
            (4, 11),
            "Expected a longer side of at most 2.5 times the shorter; the picture has 4x11.",
            id="tall",
        ),
    ],
)
def test_a_limit_holds_to_the_pixel(limits, fits, passes, message):
    width, height = fits
    assert read(blank(width, height), limits).shape == (height, width, 3)
    with pytest.raises(TooLarge) as caught:
        inspect(blank(*passes), limits)
    assert (caught.value.status, caught.value.type) == (413, "TooLarge")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("format", "width", "height"),
    [
        ("PNG", 9_000, 9_000),
        ("GIF", 9_000, 9_000),
        ("BMP", 9_000, 9_000),
        ("TIFF", 9_000, 9_000),
        ("JPEG", 9_000, 9_000),
        ("WEBP", 9_000, 9_000),
        ("PNG", 60_000, 60_000),
        ("GIF", 60_000, 60_000),
        ("BMP", 60_000, 60_000),
        ("TIFF", 60_000, 60_000),
        ("JPEG", 60_000, 60_000),
        ("WEBP", 16_383, 16_383),
        ("PNG", 2_000_000_000, 2_000_000_000),
    ],
)
def test_a_bomb_is_refused_by_its_header(format, width, height):
    bomb = huge(format, width, height)
    assert len(bomb) < 2_000
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with pytest.raises(TooLarge) as caught:
            inspect(bomb, LIMITS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - start < 1
    assert peak < 5_000_000
    assert str(caught.value) in (
        f"Expected at most 50000000 pixels; the picture has {width}x{height}.",
        "Expected at most 50000000 pixels; the picture has far more.",
    )


def test_the_size_is_checked_before_broken_pixels_are_met():
    whole = encoded(RGB, "PNG")
    broken = whole[: whole.index(b"IDAT") + 8]
    with pytest.raises(TooLarge):
        inspect(broken, SizeLimits(100, 1000, 20.0))


def test_a_picture_without_pixels_is_undecodable():
    with pytest.raises(Undecodable):
        inspect(huge("PNG", 0, 0), LIMITS)


def test_the_memory_announced_covers_the_decoded_picture():
    header = inspect(encoded(RGB, "PNG"), LIMITS)
    assert header.memory == 48 * 32 * 20

"""Drawn pictures as encoded bytes, in every format and mode we read, and two photographs."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image

COLOURS = ((200, 30, 40), (20, 160, 60), (30, 60, 190), (230, 220, 210))
"""Top left, top right, bottom left, bottom right of the quarters."""

TO_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""The turn that a camera held so has made: EXIF orientation to upright -> stored."""


def quarters(width: int = 48, height: int = 32) -> np.ndarray:
    """Four plain quarters, so that every flip and turn shows: H x W x 3."""
    pixels = np.empty((height, width, 3), np.uint8)
    top, left = height // 2, width // 2
    pixels[:top, :left], pixels[:top, left:], pixels[top:, :left], pixels[top:, left:] = COLOURS
    return pixels


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Noise that no encoder makes small: H x W x 3."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def square(width: int, height: int, centre: tuple[float, float], side: int) -> np.ndarray:
    """Black with a white square of `side` pixels around `centre` (x, y)."""
    pixels = np.zeros((height, width, 3), np.uint8)
    x, y = (round(c - side / 2) for c in centre)
    assert x >= 0
    assert y >= 0
    assert x + side <= width
    assert y + side <= height
    pixels[y : y + side, x : x + side] = 255
    return pixels


def encoded(pixels: np.ndarray | Image.Image, format: str = "PNG", **how: object) -> bytes:
    """Pixels as a file."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, format, **how)
    return buffer.getvalue()


def turned(pixels: np.ndarray, orientation: int, format: str = "JPEG", **how: object) -> bytes:
    """A file that shows `pixels` once turned as its EXIF orientation says."""
    image = Image.fromarray(pixels)
    stored = image.transpose(TO_STORED[orientation]) if orientation in TO_STORED else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(stored, format, exif=exif, **how)


@cache
def cat() -> bytes:
    """A photograph of 451 x 300 pixels, JPEG."""
    from skimage.data import chelsea

    return encoded(chelsea(), "JPEG", quality=92)


@cache
def coffee() -> bytes:
    """A photograph of 600 x 400 pixels, JPEG."""
    from skimage.data import coffee

    return encoded(coffee(), "JPEG", quality=92)


# --- files that no encoder here writes ----------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png16(pixels: np.ndarray) -> bytes:
    """16-bit RGB (H x W x 3, uint16) as PNG."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def huge(format: str, width: int, height: int) -> bytes:
    """The few bytes that announce a picture of any size."""
    return _HUGE[format](width, height)


def _huge_png(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _huge_gif(width: int, height: int) -> bytes:
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0)
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0)
    return b"GIF89a" + screen + bytes(6) + frame + b"\x02\x02\x4c\x01\x00;"


def _huge_bmp(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info + bytes(64)


def _huge_tiff(width: int, height: int) -> bytes:
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: height, 279: 64}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(200)


def _huge_webp(width: int, height: int) -> bytes:
    """A real lossless picture whose header is rewritten: 14 bits for each side less one."""
    small = bytearray(encoded(np.zeros((2, 2, 3), np.uint8), "WEBP", lossless=True))
    at = small.index(b"VP8L") + 9
    bits = struct.unpack_from("<I", small, at)[0] & ~((1 << 28) - 1)
    struct.pack_into("<I", small, at, bits | (width - 1) | (height - 1) << 14)
    return bytes(small)


def _huge_jpeg(width: int, height: int) -> bytes:
    small = bytearray(encoded(np.zeros((8, 8, 3), np.uint8), "JPEG"))
    at = small.index(b"\xff\xc0") + 5
    struct.pack_into(">HH", small, at, height, width)
    return bytes(small)


_HUGE = {
    "PNG": _huge_png,
    "GIF": _huge_gif,
    "BMP": _huge_bmp,
    "TIFF": _huge_tiff,
    "WEBP": _huge_webp,
    "JPEG": _huge_jpeg,
}

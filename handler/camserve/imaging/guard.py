"""What a small file can make a decoder do beyond its pixels, and the limits to it.

Each is checked before the work that it bounds. A photograph stays far below all of them.
"""

from __future__ import annotations

import ctypes
import io
import logging
import re
import struct
import warnings
from contextlib import suppress

from PIL import Image, _imaging

from camserve.errors import TooLarge, Undecodable

MOST_READS = 100_000
"""Reads from one file. A parser reads a few times for each block, chunk or marker it meets."""
MOST_SCANS = 20
"""Passes of a JPEG over its pixels; encoders make about ten."""
MOST_SEGMENTS = 10_000
"""Segments of a JPEG, each of up to 64 kB."""
MOST_STRIPS = 65_536
"""Values of a TIFF's field about its strips, tiles or samples."""

_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
"""A marker that has a length, or the end (0xD9)."""
_SCAN, _END = 0xDA, 0xD9
_LISTS = {258, 273, 279, 320, 324, 325, 338, 339}
"""Fields of a TIFF that Pillow unpacks: sample bits, strips, colours, tiles, extra samples, sample formats."""
_TILE_WIDTH, _TILE_LENGTH = 322, 323


class Source(io.BytesIO):
    """Encoded bytes that can be read `MOST_READS` times, so that no loop over blocks goes on for long."""

    def __init__(self, image: bytes) -> None:
        super().__init__(image)
        self._left = MOST_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes.

        Raises:
            TooLarge: there were too many reads.
        """
        self._left -= 1
        if self._left < 0:
            raise TooLarge(
                f"The picture consists of too many parts: reading it takes more than {MOST_READS} steps. "
                "Save it again without metadata."
            )
        return super().read(size)


def be_quiet() -> None:
    """Keep what Pillow and libtiff say about a broken file out of this process's log; the client is told."""
    warnings.filterwarnings("ignore", module="PIL")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    with suppress(AttributeError, OSError):  # a Pillow without libtiff
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


def check_parts(image: bytes, format: str) -> None:
    """Refuse endless parts that Pillow or a codec would unpack in one go.

    Raises:
        TooLarge: too many scans, segments, strips or tiles.
    """
    if format == "JPEG":
        _check_scans(image)
    elif format == "TIFF":
        _check_lists(image)


def check_opened(source: Image.Image, most_pixels: int) -> None:
    """Refuse what only an opened file tells.

    Raises:
        TooLarge: a tile of a TIFF is larger than a picture may be.
        Undecodable: a run-length encoded BMP, for which Pillow has a slow decoder only.
    """
    width, height = tile(source)
    if width * height > most_pixels:
        raise TooLarge(f"Expected tiles of at most {most_pixels} pixels; the picture has tiles of {width}x{height}.")
    if any(part[0] == "bmp_rle" for part in getattr(source, "tile", ())):
        raise Undecodable("A run-length encoded BMP is not read; save the picture as PNG.")


def tile(source: Image.Image) -> tuple[int, int]:
    """Width and height of the tiles of a TIFF, which can be larger than the picture; else those of the picture."""
    tags = getattr(source, "tag_v2", {})
    width, height = tags.get(_TILE_WIDTH), tags.get(_TILE_LENGTH)
    if isinstance(width, int) and isinstance(height, int):
        return width, height
    return source.width, source.height


def _check_scans(image: bytes) -> None:
    """Walk from marker to marker as libjpeg does."""
    at, scans = 2, 0
    for _ in range(MOST_SEGMENTS + 1):  # and the end
        marker = _MARKER.search(image, at)
        if marker is None or image[marker.end() - 1] == _END:
            return
        scans += image[marker.end() - 1] == _SCAN
        if scans > MOST_SCANS:
            raise TooLarge(f"Expected a JPEG of at most {MOST_SCANS} scans; this one has more. Save it again.")
        length = int.from_bytes(image[marker.end() : marker.end() + 2])
        at = marker.end() + max(length, 2)
    raise TooLarge(f"Expected a JPEG of at most {MOST_SEGMENTS} segments; this one has more. Save it again.")


def _check_lists(image: bytes) -> None:
    """The first directory: its fields have tag, type, number of values and value."""
    order = "<" if image[:2] == b"II" else ">"
    try:
        start = struct.unpack_from(f"{order}I", image, 4)[0] + 2
        count = struct.unpack_from(f"{order}H", image, start - 2)[0]
    except struct.error:
        return  # there is no directory, as Pillow will say
    there = min(count, (len(image) - start) // 12)
    for tag, _, values, _ in struct.iter_unpack(f"{order}HHII", memoryview(image)[start : start + 12 * there]):
        if tag in _LISTS and values > MOST_STRIPS:
            raise TooLarge(
                f"Expected a TIFF of at most {MOST_STRIPS} strips or tiles; field {tag} has {values} values."
            )

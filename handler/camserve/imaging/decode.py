"""Encoded bytes to an upright RGB Picture; sizes are checked on the header, before pixels cost memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from camserve.errors import RequestError, TooLarge, Undecodable
from camserve.imaging.formats import recognise
from camserve.imaging.guard import Source, check_opened, check_parts, tile
from camserve.imaging.picture import Picture

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to the turn that undoes it; 1 and anything unknown need none."""

_ORIENTATION = 0x0112
_BYTES_PER_PIXEL = 20
"""What decoding may hold at its peak: libwebp's two canvases, the picture, white, and what the two give together."""


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """Pixels in all, pixels of the longest side, longer over shorter side."""

    pixels: int
    side: int
    aspect_ratio: float


@dataclass(frozen=True, slots=True)
class Header:
    """An opened image whose size has been checked and whose pixels have not been read."""

    source: Image.Image

    @property
    def pixels(self) -> int:
        """Pixels of the picture."""
        return self.source.width * self.source.height

    @property
    def memory(self) -> int:
        """Bytes that decoding may need; a TIFF's tile can be larger than its picture."""
        width, height = tile(self.source)
        return max(self.pixels, width * height) * _BYTES_PER_PIXEL


def inspect(image: bytes, limits: SizeLimits) -> Header:
    """Read the header, and check the size and what else decoding could cost.

    Raises:
        MissingImage: there are no bytes.
        UnsupportedFormat: not a format we read.
        TooLarge: a limit is passed.
        Undecodable: the header is broken.
    """
    format = recognise(image)
    check_parts(image, format.name)
    try:
        source = Image.open(Source(image), formats=(format.name,))
    except RequestError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooLarge(f"Expected at most {limits.pixels} pixels; the picture has far more.") from None
    except Exception as error:
        raise _undecodable(format.name, error) from error
    _check_size(source.width, source.height, limits)
    check_opened(source, limits.pixels)
    return Header(source)


def decode(header: Header) -> Picture:
    """Read the pixels: first frame, 8 bits, alpha over white, turned upright as EXIF says.

    Colour profiles are not applied: classifiers are trained on the plain numbers.

    Raises:
        TooLarge: the data consists of too many parts.
        Undecodable: the data is truncated or broken, or holds 32-bit floats.
    """
    source = header.source
    try:
        source.load()
        rgb = _rgb(source)
        turn = _UPRIGHT.get(_orientation(source))
        return Picture(rgb if turn is None else rgb.transpose(turn))
    except RequestError:
        raise
    except Exception as error:
        raise _undecodable(str(source.format), error) from error


def _check_size(width: int, height: int, limits: SizeLimits) -> None:
    if min(width, height) < 1:
        raise Undecodable(f"Expected a picture with pixels; this one is {width}x{height}.")
    if width * height > limits.pixels:
        raise TooLarge(f"Expected at most {limits.pixels} pixels; the picture has {width}x{height}.")
    if max(width, height) > limits.side:
        raise TooLarge(f"Expected sides of at most {limits.side} pixels; the picture has {width}x{height}.")
    if max(width, height) > limits.aspect_ratio * min(width, height):
        raise TooLarge(
            f"Expected a longer side of at most {limits.aspect_ratio:g} times the shorter; "
            f"the picture has {width}x{height}."
        )


def _orientation(source: Image.Image) -> int:
    """EXIF orientation, 1 where there is none or its block is broken: the picture itself is good."""
    try:
        return int(source.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1


def _rgb(source: Image.Image) -> Image.Image:
    """Any Pillow mode as RGB."""
    if source.mode == "RGB" and not source.has_transparency_data:
        return source
    if source.mode == "F":
        raise Undecodable("Expected 8 or 16 bits a channel; the picture holds 32-bit floats.")
    if source.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip to white
        grey = np.asarray(source).clip(0, 65_535) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if source.has_transparency_data:
        layer = source if source.mode == "RGBA" else source.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return source.convert("RGB")


def _undecodable(format: str, error: Exception) -> Undecodable:
    # Pillow's own text for an unknown header shows an address in memory.
    unknown = isinstance(error, UnidentifiedImageError)
    reason = "its header cannot be read" if unknown else ascii(str(error))[1:-1][:120] or type(error).__name__
    return Undecodable(f"The {format} picture is broken or cut short: {reason}.")

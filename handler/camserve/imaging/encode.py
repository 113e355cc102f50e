"""Pixels to JPEG, PNG or WebP bytes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from camserve.records import Bytes, Image

QUALITIES = (85, 70, 55)
"""Tried in turn until a lossy picture is small enough; the last one is kept whatever its size."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """An output format: MIME type, file extension for the encoder, and its quality setting if lossy."""

    mime: str
    extension: str
    quality: int | None


ENCODINGS = {
    "jpeg": Encoding("image/jpeg", ".jpg", cv2.IMWRITE_JPEG_QUALITY),
    "png": Encoding("image/png", ".png", None),
    "webp": Encoding("image/webp", ".webp", cv2.IMWRITE_WEBP_QUALITY),
}


def encode(pixels: Bytes, format: str, max_bytes: int | None = None) -> Image:
    """Encode uint8 pixels as `jpeg`, `png` or `webp`: grey (H x W), or blue first as OpenCV wants it (H x W x 3)."""
    encoding = ENCODINGS[format]
    height, width = pixels.shape[:2]
    if encoding.quality is None:
        return Image(encoding.mime, width, height, None, _bytes(pixels, encoding, []))
    for quality in QUALITIES:
        data = _bytes(pixels, encoding, [encoding.quality, quality])
        if max_bytes is None or len(data) <= max_bytes:
            break
    return Image(encoding.mime, width, height, quality, data)


def _bytes(pixels: Bytes, encoding: Encoding, parameters: list[int]) -> bytes:
    done, buffer = cv2.imencode(encoding.extension, pixels, parameters)
    if not done:
        raise RuntimeError(f"OpenCV could not encode {pixels.shape} as {encoding.extension}")
    return np.asarray(buffer).tobytes()

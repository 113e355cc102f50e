"""Real photographs as files of a camera's size: the same eight at every size, cropped, resized, with sensor noise.

They come with scikit-image; nothing is downloaded.
"""

from __future__ import annotations

import io
from statistics import mean

import numpy as np
from PIL import Image, ImageOps
from skimage import data

Size = tuple[int, int]
SMALL, LARGE = (500, 375), (1600, 1200)
QUALITY = 90
_NOISE = 6.0
"""Standard deviation in levels of 256; without it an enlarged photograph is a smaller file than a camera's."""


def photographs(size: Size, format: str = "JPEG") -> list[bytes]:
    """Eight distinct photographs of width x height, as encoded files."""
    sources = (
        data.astronaut(),
        data.chelsea(),
        data.coffee(),
        data.hubble_deep_field(),
        data.immunohistochemistry(),
        data.retina(),
        data.rocket(),
        data.stereo_motorcycle()[0],
    )
    return [_encoded(_taken(pixels, size, seed), format) for seed, pixels in enumerate(sources)]


def told(size: Size) -> str:
    """A size as it stands in tables."""
    return f"{size[0]}x{size[1]}"


def weight(pictures: list[bytes]) -> str:
    """The mean size of the files."""
    return f"{mean(map(len, pictures)) / 1e3:.0f} kB"


def _taken(pixels: np.ndarray, size: Size, seed: int) -> Image.Image:
    """The middle of a picture at a new size, with the noise of a sensor."""
    fitted = np.asarray(ImageOps.fit(Image.fromarray(pixels), size, Image.Resampling.LANCZOS))
    noisy = fitted + np.random.default_rng(seed).normal(0, _NOISE, fitted.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def _encoded(image: Image.Image, format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, quality=QUALITY)
    return buffer.getvalue()

"""The image formats we read, by their first bytes; the name a client gives is never trusted."""

from __future__ import annotations

from dataclasses import dataclass

from camserve.errors import MissingImage, UnsupportedFormat


@dataclass(frozen=True, slots=True)
class Format:
    """A format: Pillow's name for it, and the bytes it starts with at given offsets."""

    name: str
    signature: tuple[tuple[int, bytes], ...]


FORMATS = (
    Format("JPEG", ((0, b"\xff\xd8\xff"),)),
    Format("PNG", ((0, b"\x89PNG\r\n\x1a\n"),)),
    Format("GIF", ((0, b"GIF87a"),)),
    Format("GIF", ((0, b"GIF89a"),)),
    Format("WEBP", ((0, b"RIFF"), (8, b"WEBP"))),
    Format("BMP", ((0, b"BM"),)),
    Format("TIFF", ((0, b"II*\0"),)),
    Format("TIFF", ((0, b"MM\0*"),)),
)
NAMES = tuple(dict.fromkeys(format.name for format in FORMATS))


def recognise(image: bytes) -> Format:
    """The format of encoded bytes.

    Raises:
        MissingImage: there are no bytes.
        UnsupportedFormat: no signature matches.
    """
    if not image:
        raise MissingImage("The picture is empty: send the bytes of an image file.")
    for format in FORMATS:
        if all(image[at : at + len(magic)] == magic for at, magic in format.signature):
            return format
    raise UnsupportedFormat(
        f"Expected a picture in one of the formats {', '.join(NAMES)}; "
        f"the {len(image)} bytes sent begin with {bytes(image[:8]).hex(' ')}."
    )

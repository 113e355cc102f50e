"""Real pictures of every format, the ways to break them, and files made to cost a decoder more than they weigh."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterable
from functools import cache, partial
from random import Random

import numpy as np
from PIL import Image

from pictures import chunk, encoded, huge, quarters

_WORDS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""Numbers at which sizes, counts and offsets go wrong."""
_HEAD = 200
"""Bytes at the front, where most of a file's structure stands."""
_SIGNATURES = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"BM", b"II*\0", b"MM\0*"),
    *(b"II+\0", b"%PDF-1.7", b"\0\0\0\x1cftypavif", b"8BPS", b"<svg", b"{", b"\0"),
)


@cache
def real() -> dict[str, bytes]:
    """A photograph of 48 x 36 pixels by the name of what it is written as: every format, and what each can hold."""
    from skimage.data import chelsea

    photo = Image.fromarray(chelsea()).resize((48, 36))
    alpha = photo.copy()
    alpha.putalpha(photo.convert("L"))
    colours, grey = photo.quantize(16), photo.convert("L")
    frames = {"save_all": True}
    files: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "JPEG": (photo, "JPEG", {"exif": _exif(), "icc_profile": bytes(500), "comment": b"a comment"}),
        "JPEG progressive": (photo, "JPEG", {"progressive": True, "restart_marker_blocks": 2}),
        "JPEG grey": (grey, "JPEG", {}),
        "JPEG CMYK": (photo.convert("CMYK"), "JPEG", {}),
        "JPEG of several pictures": (photo, "MPO", frames | {}),
        "PNG": (photo, "PNG", {"exif": _exif(), "icc_profile": bytes(500), "dpi": (72, 72)}),
        "PNG alpha": (alpha, "PNG", {}),
        "PNG palette": (colours, "PNG", {"transparency": 3}),
        "PNG 1 bit": (photo.convert("1"), "PNG", {}),
        "PNG 16 bit": (grey.convert("I;16"), "PNG", {}),
        "PNG animated": (photo, "PNG", frames | {}),
        "GIF": (colours, "GIF", {"transparency": 2, "comment": b"a comment"}),
        "GIF animated": (photo, "GIF", frames | {"loop": 0, "duration": 10, "disposal": 2}),
        "WebP": (photo, "WEBP", {"exif": _exif(), "icc_profile": bytes(500)}),
        "WebP lossless": (alpha, "WEBP", {"lossless": True}),
        "WebP animated": (alpha, "WEBP", frames | {"duration": 10}),
        "BMP": (photo, "BMP", {}),
        "BMP palette": (colours, "BMP", {}),
        "BMP alpha": (alpha, "BMP", {}),
        "TIFF": (photo, "TIFF", {"exif": _exif(), "icc_profile": bytes(500)}),
        "TIFF LZW": (alpha, "TIFF", {"compression": "tiff_lzw"}),
        "TIFF deflate": (photo, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "TIFF JPEG": (photo, "TIFF", {"compression": "jpeg"}),
        "TIFF fax": (photo.convert("1"), "TIFF", {"compression": "group4"}),
        "TIFF 16 bit": (grey.convert("I;16"), "TIFF", {}),
        "TIFF float": (grey.convert("F"), "TIFF", {}),
        "TIFF CMYK": (photo.convert("CMYK"), "TIFF", {"compression": "tiff_lzw"}),
        "TIFF of several pages": (photo, "TIFF", frames | {}),
    }
    # Copies, because a picture that was saved remembers how.
    for _, _, how in files.values():
        if "save_all" in how:
            how["append_images"] = [photo.rotate(90), photo.rotate(180)]
    return {name: encoded(image.copy(), format, **how) for name, (image, format, how) in files.items()}


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a maker"
    exif.get_ifd(0x8769)[0x9003] = "2024:01:01 00:00:00"
    exif.get_ifd(0x8825)[2] = (1.0, 2.0, 3.0)
    return exif.tobytes()


# --- mutations ----------------------------------------------------------------------------------------------


def mutated(image: bytes, random: Random) -> bytes:
    """The picture after one to four accidents; a PNG's checksums are set right again, else Pillow looks no further."""
    data = bytearray(image)
    for _ in range(random.choice((1, 1, 2, 4))):
        random.choice(_ACCIDENTS)(data, random)
        data = data or bytearray(1)
    return resealed(bytes(data)) if random.random() < 0.9 else bytes(data)


def _place(data: bytearray, random: Random) -> int:
    """Half of the time near the front."""
    return random.randrange(min(len(data), _HEAD) if random.random() < 0.5 else len(data))


def _flip(data: bytearray, random: Random) -> None:
    data[_place(data, random)] ^= 1 << random.randrange(8)


def _byte(data: bytearray, random: Random) -> None:
    data[_place(data, random)] = random.randrange(256)


def _word(data: bytearray, random: Random) -> None:
    """A number of two or four bytes in either order."""
    size = random.choice((2, 4))
    order = random.choice(("little", "big"))
    at = _place(data, random)
    data[at : at + size] = (random.choice(_WORDS) & (1 << 8 * size) - 1).to_bytes(size, order)  # type: ignore[arg-type]


def _cut(data: bytearray, random: Random) -> None:
    del data[_place(data, random) :]


def _drop(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    del data[at : at + random.randint(1, 64)]


def _repeat(data: bytearray, random: Random) -> None:
    at, length = _place(data, random), random.randint(1, 256)
    data[at:at] = data[at : at + length] * random.choice((1, 2, 100))


def _insert(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    data[at:at] = random.randbytes(random.randint(1, 64))


def _zeros(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    length = min(random.randint(1, 64), len(data) - at)
    data[at : at + length] = bytes(length)


def _sign(data: bytearray, random: Random) -> None:
    """The signature of another format."""
    signature = random.choice(_SIGNATURES)
    data[: len(signature)] = signature


def _splice(data: bytearray, random: Random) -> None:
    """The rest of another picture."""
    other = random.choice(list(real().values()))
    at = _place(data, random)
    data[at:] = other[min(at, len(other)) :]


_ACCIDENTS: tuple[Callable[[bytearray, Random], None], ...] = (
    *(_flip, _byte, _byte, _word, _word, _word, _cut, _drop, _repeat, _insert, _zeros, _sign, _splice),
)


def resealed(image: bytes) -> bytes:
    """A PNG with the right checksum behind every chunk; anything else as it is."""
    if not image.startswith(b"\x89PNG\r\n\x1a\n"):
        return image
    data, at = bytearray(image), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4)
        at = end + 4
    return bytes(data)


def lengths(image: bytes) -> list[int]:
    """Where to cut a file short: each byte of the front, then every way through it, and before its end."""
    whole = len(image)
    return sorted({*range(min(64, whole)), *(whole * part // 40 for part in range(40)), whole - 2, whole - 1})


# --- files that cost more than they weigh -------------------------------------------------------------------

_BODY = 20 * 1024 * 1024
"""The most that the gateway lets through, in bytes."""


def _filled(before: bytes, part: bytes, after: bytes) -> bytes:
    return before + part * ((_BODY - len(before) - len(after)) // len(part)) + after


@cache
def _plain(format: str) -> bytes:
    pixels = Image.fromarray(quarters())
    return encoded(pixels.quantize(4) if format == "GIF" else pixels, format)


def _gif_parts() -> tuple[bytes, bytes]:
    """Before and behind the place for extensions."""
    whole = _plain("GIF")
    at = 13 + 3 * (2 << (whole[10] & 7))
    return whole[:at], whole[at:]


def tiff(tags: dict[int, tuple[int, int, int]], data: bytes, width: int = 64, height: int = 64) -> bytes:
    """A TIFF whose tags have type, count and value; `data` begins at 4096."""
    given = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 1)}
    fields = b"".join(struct.pack("<HHII", tag, *value) for tag, value in sorted((given | tags).items()))
    head = b"II*\0" + struct.pack("<IH", 8, len(given | tags)) + fields + bytes(4)
    return head.ljust(4096, b"\0") + data


def tiles(side: int) -> bytes:
    """A TIFF of 64 x 64 pixels in one compressed tile of that side."""
    data = zlib.compress(bytes(side) * side, 1)
    tags = {259: (3, 1, 8), 322: (4, 1, side), 323: (4, 1, side), 324: (4, 1, 4096), 325: (4, 1, len(data))}
    return tiff(tags, data)


def strips(count: int) -> bytes:
    """A TIFF of 64 x 64 pixels that names so many strips."""
    tags = {273: (4, count, 4096), 278: (4, 1, 1), 279: (4, 1, 64)}
    return tiff(tags, struct.pack("<I", 4096) * count)


def scans(count: int, side: int = 64) -> bytes:
    """A progressive JPEG that passes over its pixels so many times."""
    whole = encoded(np.zeros((side, side, 3), np.uint8), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    has = len(re.findall(rb"\xff\xda", whole))
    return whole[:last] + whole[last:-2] * (count - has + 1) + whole[-2:]


def _bmp_run_length() -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, 16_000, 3_000, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54 + 1024) + info + bytes(1024) + b"\1\1\0\0" * 3_000


@cache
def _bomb() -> bytes:
    return zlib.compress(bytes(100_000_000), 1)


def _ifd_exif() -> bytes:
    """EXIF of as many fields as its counter can say."""
    fields = b"".join(struct.pack("<HHII", tag, 3, 1, 6) for tag in range(65_535))
    return b"II*\0" + struct.pack("<IH", 8, 65_535) + fields + bytes(4)


def gif(frames: bytes, count: int | None = None) -> bytes:
    """A GIF of 64 x 64 pixels behind these frames, so often or as often as fits a body."""
    before = b"GIF89a" + struct.pack("<HHBBB", 64, 64, 0x80, 0, 0) + bytes(6)
    return _filled(before, frames, b";") if count is None else before + frames * count + b";"


def gif_frame(left: int, top: int, width: int, height: int, delay: int = 0) -> bytes:
    """A frame of two black pixels, and nothing for the others."""
    control = b"!\xf9\4" + struct.pack("<BHBB", 8, delay, 0, 0)
    return control + b"," + struct.pack("<HHHHB", left, top, width, height, 0) + b"\2\2\4\x0a\0"


def apng(announced: int, frames: Iterable[bytes], left: int = 0) -> bytes:
    """A PNG of 48 x 32 pixels that is the first frame of an animation, so far from its left; more frames follow it."""
    png = _plain("PNG")
    head = chunk(b"acTL", struct.pack(">II", announced, 0)) + chunk(b"fcTL", _place_of_frame(0, 48, 32, left))
    return b"".join([png[:33], head, png[33:-12], *frames, png[-12:]])


def apng_frame(number: int, width: int = 1, height: int = 1, left: int = 0) -> bytes:
    """One frame more, the first being 0, that is shown for no time."""
    data = struct.pack(">I", 2 * number) + zlib.compress(bytes(4))
    return chunk(b"fcTL", _place_of_frame(2 * number - 1, width, height, left)) + chunk(b"fdAT", data)


def _place_of_frame(sequence: int, width: int, height: int, left: int = 0) -> bytes:
    return struct.pack(">IIIIIHHBB", sequence, width, height, left, 0, 0, 0, 0, 0)


def webp(count: int, left: int = 0) -> bytes:
    """A WebP of 64 x 64 pixels with so many frames of two by two, shown for no time, all at the same place."""
    picture = encoded(np.zeros((2, 2, 3), np.uint8), "WEBP", lossless=True)[12:]
    place = b"".join(number.to_bytes(3, "little") for number in (left // 2, 0, 1, 1, 0)) + b"\0"
    frame = _riff(b"ANMF", place + picture)
    head = _riff(b"VP8X", struct.pack("<I", 2) + (63).to_bytes(3, "little") * 2) + _riff(b"ANIM", bytes(6))
    return _riff(b"RIFF", b"WEBP" + head + frame * count)


def _riff(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def profile(count: int, announced: int, length: int = 65_519, numbered: bool = True) -> bytes:
    """A JPEG whose colour profile comes in so many pieces, each of which announces how many there are."""
    parts = [bytes([(at + 1) % 256 if numbered else 1, announced]) + bytes(length) for at in range(count)]
    segments = b"".join(b"\xff\xe2" + struct.pack(">H", 14 + len(part)) + b"ICC_PROFILE\0" + part for part in parts)
    jpeg = _plain("JPEG")
    return jpeg[:2] + segments + jpeg[2:]


_MANY = 5_000
"""Frames that fit into a file which nobody would call large."""


def animated() -> dict[str, tuple[Callable[[], bytes], int]]:
    """Animations that make no sense, and the status each gets: of a good one the first frame is read, and no other."""
    small, far = gif_frame(0, 0, 1, 1), gif_frame(60_000, 60_000, 5_000, 5_000)
    return {
        "a GIF of 5,000 frames that last no time": (lambda: gif(small, _MANY), 200),
        "a GIF of as many frames as fit": (lambda: gif(small), 200),
        "a GIF whose later frames are outside": (lambda: gif(small + far, _MANY), 200),
        "a GIF whose first frame is far outside": (lambda: gif(far, _MANY), 413),
        "a GIF whose frames have no size": (lambda: gif(gif_frame(0, 0, 0, 0), _MANY), 422),
        "a GIF of control blocks without a frame": (lambda: gif(small[:8]), 413),
        "a PNG of 5,000 frames that last no time": (lambda: apng(_MANY, map(apng_frame, range(1, _MANY))), 200),
        "a PNG of 250,000 frames": (lambda: apng(250_000, map(apng_frame, range(1, 250_000))), 200),
        "a PNG that announces 2 thousand million frames": (lambda: apng(1 << 31, [apng_frame(1)]), 200),
        "a PNG whose later frame is outside": (lambda: apng(2, [apng_frame(1, 48, 32, left=1 << 30)]), 200),
        "a PNG whose first frame is outside": (lambda: apng(2, [apng_frame(1)], left=1 << 30), 422),
        "a WebP of 5,000 frames that last no time": (lambda: webp(_MANY), 200),
        "a WebP of 450,000 frames": (lambda: webp(450_000), 200),
        "a WebP whose frames are outside": (lambda: webp(_MANY, left=1 << 20), 422),
    }


def profiled() -> dict[str, tuple[Callable[[], bytes], int]]:
    """JPEGs with absurd colour profiles, and the status each gets; a profile is not applied, whatever it says."""
    jpeg = _plain("JPEG")
    return {
        "a profile of 16 MB": (lambda: profile(255, 255), 200),
        "a profile of more pieces than can be counted": (lambda: profile(300, 255), 200),
        "a profile of 9,000 empty pieces": (lambda: profile(9_000, 40, length=0), 200),
        "a profile of more pieces than a JPEG may have": (lambda: profile(20_000, 32, length=0), 413),
        "a profile of fewer pieces than announced": (lambda: profile(3, 200), 200),
        "a profile that announces no pieces": (lambda: profile(3, 0), 200),
        "a profile whose pieces have one number": (lambda: profile(200, 200, numbered=False), 200),
        "a profile without its numbers": (lambda: jpeg[:2] + b"\xff\xe2\0\x0eICC_PROFILE\0" + jpeg[2:], 422),
    }


def costly() -> dict[str, tuple[Callable[[], bytes], int]]:
    """Files of at most 20 MiB whose reading would take minutes or gigabytes, and the status each gets."""
    jpeg, png = _plain("JPEG"), _plain("PNG")
    before, behind = _gif_parts()
    text = chunk(b"tEXt", b"a\0b")
    return {
        "a JPEG of empty segments": (lambda: _filled(jpeg[:2], b"\xff\xe0\0\2", jpeg[2:]), 413),
        "a JPEG of comments": (lambda: _filled(jpeg[:2], b"\xff\xfe\0\3a", jpeg[2:]), 413),
        "a JPEG of fill bytes": (lambda: _filled(jpeg[:2], b"\xff", jpeg[2:]), 413),
        "a JPEG of 2,000 scans": (lambda: scans(2_000, 4_096), 413),
        "a PNG of unknown chunks": (lambda: _filled(png[:33], chunk(b"aaAa", b""), png[33:]), 413),
        "a PNG of texts": (lambda: _filled(png[:33], text, png[33:]), 413),
        "a PNG of texts at its end": (lambda: _filled(png[:-12], text, png[-12:]), 413),
        "a PNG of empty data": (lambda: _filled(png[:33], chunk(b"IDAT", b""), png[33:]), 413),
        "a PNG with a profile that is a bomb": (lambda: png[:33] + chunk(b"iCCP", b"a\0\0" + _bomb()) + png[33:], 422),
        "a PNG with a text that is a bomb": (lambda: png[:33] + chunk(b"zTXt", b"a\0\0" + _bomb()) + png[33:], 422),
        "a PNG with EXIF of 65,535 fields": (lambda: png[:33] + chunk(b"eXIf", _ifd_exif()) + png[33:], 200),
        "a GIF of comments": (lambda: _filled(before, b"!\xfe\1a\0", behind), 413),
        "a GIF of padding": (lambda: _filled(before, b"\0", behind), 413),
        "a BMP of runs": (lambda: _bmp_run_length(), 422),
        "a TIFF of strips": (lambda: strips((_BODY - 4096) // 4), 413),
        "a TIFF with a tile of 400 MB": (lambda: tiles(20_000), 413),
        **{f"a {name} of 65535 x 65535": (partial(huge, name, 65_535, 65_535), 413) for name in _UNBOUNDED},
        **{f"a {name} of 65535 x 1": (partial(huge, name, 65_535, 1), 413) for name in _UNBOUNDED},
        **{f"a {name} of 1 x 65535": (partial(huge, name, 1, 65_535), 413) for name in _UNBOUNDED},
        "a WebP of 16383 x 16383": (lambda: huge("WEBP", 16_383, 16_383), 413),
        **{f"a {name} of no width": (partial(huge, name, 0, 40), 422) for name in _UNBOUNDED},
        **{f"a {name} of no height": (partial(huge, name, 40, 0), 422) for name in _UNBOUNDED},
        **animated(),
        **profiled(),
    }


_UNBOUNDED = ("PNG", "GIF", "BMP", "TIFF", "JPEG")
"""A WebP's sides have 14 bits."""

"""Pictures of every format, whole, broken in every way, and made to cost: each gets its answer, and none costs much."""

from __future__ import annotations

import subprocess
import sys
import time
from random import Random

import numpy as np
import pytest
from hostile import LIMITS, decoded, peak
from judge import Judge
from mutation import costly, lengths, mutated, real, scans, strips, tiles
from PIL import Image

from camserve.errors import TooLarge
from camserve.imaging import guard
from camserve.imaging.decode import decode, inspect
from camserve.imaging.formats import FORMATS
from camserve.imaging.guard import MOST_READS, MOST_SCANS, MOST_SEGMENTS, MOST_STRIPS, Source
from camserve.records import Row
from pictures import chunk, encoded, noise

MEGA = 1_000_000
CASES = 1_400
"""Mutated pictures through the whole path."""


@pytest.fixture(scope="module")
def judge(seeded) -> Judge:
    return Judge(seeded)


def row(image: bytes) -> Row:
    return Row("hostile", {"data": image, "explain": b"true"}, {})


@pytest.mark.parametrize("name", real())
def test_the_picture_that_is_broken_below_is_good(judge, name):
    assert judge([row(real()[name])])[0].status == (422 if name == "TIFF float" else 200)


def test_mutated_pictures_of_every_format(judge):
    random, whole = Random(7), list(real().values())
    for _ in range(CASES // 7):
        judge([row(mutated(random.choice(whole), random)) for _ in range(7)])
    assert {"200", "413 TooLarge", "415 UnsupportedFormat", "422 Undecodable"} <= set(judge.outcomes)


@pytest.mark.parametrize("name", real())
def test_a_picture_cut_at_every_length_class(name):
    whole = real()[name]
    for length in lengths(whole):
        (kind,) = decoded(whole[:length])
        if length == 0:
            assert kind == "400 MissingImage"
        elif length < 2:
            assert kind == "415 UnsupportedFormat"
        else:
            assert kind in {"415 UnsupportedFormat", "422 Undecodable", "good"}, length


@pytest.mark.parametrize("format", dict.fromkeys(one.name for one in FORMATS))
def test_the_signature_of_one_format_on_the_rest_of_another(format):
    signature = next(one.signature for one in FORMATS if one.name == format)
    for whole in real().values():
        image = bytearray(whole)
        for at, magic in signature:
            image[at : at + len(magic)] = magic
        decoded(bytes(image))


@pytest.mark.parametrize("name", costly())
def test_a_file_that_would_cost_minutes_or_gigabytes(judge, name):
    made, status = costly()[name]
    image = made()
    with peak() as memory:
        start = time.perf_counter()
        answer = judge([row(image)])[0]
        seconds = time.perf_counter() - start
    assert answer.status == status, answer.body
    assert seconds < 10
    assert memory.grown < 150 * MEGA


# --- the limits inside a file, each at its value and one past it --------------------------------------------


def test_strips_at_the_limit_and_one_past_it():
    assert decode(inspect(strips(MOST_STRIPS), LIMITS)).width == 64
    with pytest.raises(TooLarge, match="at most 65536 strips or tiles; field 273 has 65537"):
        inspect(strips(MOST_STRIPS + 1), LIMITS)


def test_scans_at_the_limit_and_one_past_it():
    assert decode(inspect(scans(MOST_SCANS), LIMITS)).width == 64
    with pytest.raises(TooLarge, match=f"at most {MOST_SCANS} scans"):
        inspect(scans(MOST_SCANS + 1), LIMITS)


def test_scans_are_counted_where_the_decoder_would_see_them():
    """Markers without a length do not hide those behind them, and the picture in the metadata does not count."""
    many = scans(MOST_SCANS + 1)
    with pytest.raises(TooLarge):
        inspect(many.replace(b"\xff\xda", b"\xff\x01\xff\xda"), LIMITS)
    comment = b"\xff\xfe" + (2 + 1_000).to_bytes(2) + b"\xff\xda" * 500
    decoded_image = decode(inspect(many[:2] + comment + scans(1)[2:], LIMITS))
    assert decoded_image.width == 64
    assert decode(inspect(scans(1) + b"\xff\xda" * 500, LIMITS)).width == 64  # a film behind the picture


def segments(count: int) -> bytes:
    """A JPEG of so many segments: its own, and empty comments."""
    plain = encoded(Image.new("L", (64, 64)), "JPEG")
    own, at = 0, 2
    while plain[at + 1] != 0xDA:  # what is behind the start of the scan are its pixels
        own, at = own + 1, at + 2 + int.from_bytes(plain[at + 2 : at + 4])
    return plain[:2] + b"\xff\xfe\0\2" * (count - own - 1) + plain[2:]


def test_segments_at_the_limit_and_one_past_it():
    assert decode(inspect(segments(MOST_SEGMENTS), LIMITS)).width == 64
    with pytest.raises(TooLarge, match="at most 10000 segments"):
        inspect(segments(MOST_SEGMENTS + 1), LIMITS)


def test_reads_at_the_limit_and_one_past_it():
    source = Source(bytes(MOST_READS + 1))
    assert all(source.read(1) for _ in range(MOST_READS))
    with pytest.raises(TooLarge, match="takes more than 100000 steps"):
        source.read(1)


def test_reads_of_a_picture_at_the_limit_and_one_past_it(monkeypatch):
    """Those of the header and those of what lies behind it are counted together."""
    png = encoded(Image.new("L", (64, 64)), "PNG")
    image = png[:33] + chunk(b"aaAa", b"") * 1_000 + png[33:-12] + chunk(b"aaAa", b"") * 1_000 + png[-12:]
    header = inspect(image, LIMITS)
    source = header.source.fp
    decode(header)
    needed = MOST_READS - source._left
    assert needed > 2 * 2_000
    monkeypatch.setattr(guard, "MOST_READS", needed)
    assert decode(inspect(image, LIMITS)).width == 64
    monkeypatch.setattr(guard, "MOST_READS", needed - 1)
    header = inspect(image, LIMITS)
    with pytest.raises(TooLarge, match=f"takes more than {needed - 1} steps"):
        decode(header)


def test_a_tile_at_the_limit_and_one_past_it():
    side = 256
    limits = type(LIMITS)(side * side, 16_384, 20.0)
    header = inspect(tiles(side), limits)
    assert header.memory >= side * side
    assert decode(header).width == 64
    with pytest.raises(TooLarge, match="tiles of at most 65536 pixels; the picture has tiles of 272x272"):
        inspect(tiles(side + 16), limits)


def test_a_png_of_20_mb_in_small_chunks_is_read():
    """libpng writes chunks of 8 kB, and each takes three reads or four."""
    pixels = noise(3_000, 2_300)
    whole = encoded(pixels, "PNG", compress_level=0)
    start, end = whole.index(b"IDAT") - 4, whole.rindex(b"IEND") - 4
    data = b"".join(whole[at + 8 : at + 8 + size] for at, size in _chunks(whole[start:end], start))
    small = b"".join(chunk(b"IDAT", data[at : at + 8192]) for at in range(0, len(data), 8192))
    assert len(small) > 20 * MEGA
    np.testing.assert_array_equal(decode(inspect(whole[:start] + small + whole[end:], LIMITS)).pixels, pixels)


def _chunks(data: bytes, offset: int) -> list[tuple[int, int]]:
    """Where chunks begin in the file, and their lengths."""
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        found.append((offset + at, size))
        at += size + 12
    return found


# --- memory -------------------------------------------------------------------------------------------------

SIDE = 3_000
LARGE = {
    "PNG": lambda: encoded(Image.new("RGB", (SIDE, SIDE)), "PNG"),
    "PNG alpha": lambda: encoded(Image.new("RGBA", (SIDE, SIDE)), "PNG"),
    "PNG grey alpha": lambda: encoded(Image.new("LA", (SIDE, SIDE)), "PNG"),
    "PNG 16 bit": lambda: encoded(Image.new("I;16", (SIDE, SIDE)), "PNG"),
    "PNG palette": lambda: encoded(Image.new("P", (SIDE, SIDE)), "PNG", transparency=0),
    "GIF": lambda: encoded(Image.new("P", (SIDE, SIDE)), "GIF", transparency=0),
    "WebP alpha": lambda: encoded(Image.new("RGBA", (SIDE, SIDE)), "WEBP", lossless=True, method=0),
    "JPEG": lambda: encoded(Image.new("CMYK", (SIDE, SIDE)), "JPEG", progressive=True, subsampling=0),
    "TIFF": lambda: encoded(Image.new("I", (SIDE, SIDE)), "TIFF", compression="tiff_adobe_deflate"),
    "BMP": lambda: encoded(Image.new("RGB", (SIDE, SIDE)), "BMP"),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_bomb_of_an_allowed_size_takes_no_more_than_was_announced(name):
    """The budget for decoding is kept by what a header announces."""
    image, grown = LARGE[name](), []
    for _ in range(2):  # what else this process does can only add
        with peak() as memory:
            header = inspect(image, LIMITS)
            decode(header)
        grown.append(memory.grown)
    assert min(grown) <= header.memory + 20 * MEGA


# --- the log ------------------------------------------------------------------------------------------------

BROKEN_TIFFS = """
import sys
from random import Random
sys.path[:0] = sys.argv[1:]
from hostile import decoded
from mutation import mutated, real
random = Random(5)
print(sum((decoded(mutated(real()[name], random)) for name in ("TIFF LZW", "TIFF JPEG") * 100), decoded(b"")))
"""


def test_libtiff_says_nothing_either():
    """It writes to the process's standard error itself, which TorchServe puts into its log."""
    command = [sys.executable, "-c", BROKEN_TIFFS, *(path for path in sys.path if path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "422 Undecodable" in done.stdout
    assert done.stderr == ""

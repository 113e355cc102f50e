"""Which bytes are a picture, by their first bytes alone."""

from __future__ import annotations

import pytest

from camserve.errors import MissingImage, UnsupportedFormat
from camserve.imaging.formats import NAMES, recognise
from pictures import encoded, quarters


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_real_file_is_recognised(format):
    assert recognise(encoded(quarters(), format)).name == format


@pytest.mark.parametrize(
    ("start", "format"),
    [
        pytest.param(b"GIF87a", "GIF", id="the older GIF"),
        pytest.param(b"MM\0*", "TIFF", id="a big-endian TIFF"),
        pytest.param(b"RIFF\1\2\3\4WEBP", "WEBP", id="a WebP of any length"),
    ],
)
def test_every_signature_is_known(start, format):
    assert recognise(start + b"rest").name == format


def test_the_names_are_each_listed_once():
    assert NAMES == ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")


def test_text_is_refused_with_its_first_bytes():
    with pytest.raises(UnsupportedFormat) as caught:
        recognise(b"hello, world")
    assert (caught.value.status, caught.value.type) == (415, "UnsupportedFormat")
    assert str(caught.value) == (
        "Expected a picture in one of the formats JPEG, PNG, GIF, WEBP, BMP, TIFF; "
        "the 12 bytes sent begin with 68 65 6c 6c 6f 2c 20 77."
    )


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(b"\x89PNG", id="half a PNG signature"),
        pytest.param(b" \xff\xd8\xff", id="a blank before a JPEG"),
        pytest.param(b"RIFF\0\0\0\0WAVE", id="a sound in the same container"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", id="SVG"),
        pytest.param(b"%PDF-1.7", id="PDF"),
        pytest.param(b"\0\0\0\x1cftypavif", id="AVIF"),
        pytest.param(b"\0", id="one byte"),
    ],
)
def test_anything_else_is_refused(image):
    with pytest.raises(UnsupportedFormat, match=rf"^Expected a picture .* the {len(image)} bytes sent begin with "):
        recognise(image)


def test_no_bytes_are_a_missing_picture():
    with pytest.raises(MissingImage) as caught:
        recognise(b"")
    assert (caught.value.status, caught.value.type) == (400, "MissingImage")
    assert str(caught.value) == "The picture is empty: send the bytes of an image file."

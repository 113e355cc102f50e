"""Every error of the contract, seen through HTTP; and nothing a client sends stops the worker."""

from __future__ import annotations

import io
import json
import struct
import zlib

import pytest
import requests
from PIL import Image
from service import CAT, EGYPTIAN_CAT, b64

pytestmark = pytest.mark.live


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises pixels it does not have."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def long_picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (2100, 100)).save(out, "PNG")
    return out.getvalue()


ERRORS = {
    "unknown option": ("?colour=red", CAT, 400, "InvalidOption", "Unknown option 'colour'; expected one of explain,"),
    "bad value": ("?opacity=2", CAT, 400, "InvalidOption", "Option 'opacity': expected a number from 0 to 1, got '2'."),
    "option twice": ("?topk=1&topk=2", CAT, 400, "InvalidOption", "Option 'topk' is given twice in the query"),
    "picture in the query": ("?data=x", CAT, 400, "InvalidOption", "The picture cannot travel in the query"),
    "not true or false": ("?verify=1", CAT, 400, "InvalidOption", "Option 'verify': expected true or false, got '1'."),
    "too many channels": (
        "?channels=17",
        CAT,
        400,
        "InvalidOption",
        "Option 'channels': expected a number of the most",
    ),
    "not allowed here": (
        "?method=scorecam",
        CAT,
        400,
        "InvalidOption",
        "Option 'method': scorecam needs 1280 forwards",
    ),
    "not taken": (
        "?method=eigencam&classes=3",
        CAT,
        400,
        "InvalidOption",
        "Option 'classes': eigencam does not take it",
    ),
    "method unknown": ("?method=magic", CAT, 400, "InvalidOption", "Option 'method': expected one of cam,"),
    "method not here": ("?method=cam&layer=blocks.4.0", CAT, 400, "InvalidOption", "Option 'method': cam needs"),
    "layer unknown": ("?layer=nowhere", CAT, 400, "InvalidOption", "Option 'layer': 'nowhere' is no layer"),
    "class unknown": ("?classes=unicorn", CAT, 400, "InvalidOption", "Option 'classes': no class is named 'unicorn'"),
    "class out of range": (
        "?classes=1000",
        CAT,
        400,
        "InvalidOption",
        "Option 'classes': expected a class index from 0 to 999",
    ),
    "contrast with itself": ("?classes=281&contrast=281", CAT, 400, "InvalidOption", "Option 'contrast': class 281"),
    "crop outside": ("?crop=400,0,100,100", CAT, 400, "InvalidOption", "Option 'crop': expected a box inside"),
    "no body": ("", b"", 400, "MissingImage", "No picture: send an image file"),
    "broken JSON": ("", b'{"data": ', 400, "InvalidRequest", "The body is not valid JSON"),
    "JSON list": ("", b"[1]", 400, "InvalidRequest", "Expected a JSON object"),
    "bad base64": ("", b'{"data": "%%%"}', 400, "InvalidRequest", "'data' is not valid base64"),
    "bad query": ("?explain=%ff", CAT, 400, "InvalidRequest", "The query is not valid"),
    "text": ("", b"just text", 415, "UnsupportedFormat", "Expected a picture in one of the formats JPEG"),
    "cut short": ("", CAT[: len(CAT) // 2], 422, "Undecodable", "The JPEG picture is broken or cut short"),
    "only a signature": ("", CAT[:20], 422, "Undecodable", "The JPEG picture is broken or cut short"),
    "too many pixels": ("", png_header(10_000, 10_000), 413, "TooLarge", "Expected at most 50000000 pixels"),
    "a bomb": ("", png_header(60_000, 60_000), 413, "TooLarge", "Expected at most 50000000 pixels"),
    "side too long": ("", png_header(16_385, 1_000), 413, "TooLarge", "Expected sides of at most 16384 pixels"),
    "too narrow": ("", long_picture(), 413, "TooLarge", "Expected a longer side of at most 20 times the shorter"),
}


@pytest.mark.parametrize(("path", "body", "code", "kind", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(service, path, body, code, kind, message):
    got = service.ask(path, body).error
    assert got[:2] == (code, kind)
    assert got[2].startswith(message)


def test_a_body_over_the_limit_is_refused_by_the_gateway(service):
    code, _, message = service.ask(data=b"\xff" * (20 * 1024 * 1024 + 1)).error
    assert code == 413
    assert "20m" in message


def test_an_unknown_model_is_not_found(service):
    assert service.ask("/predictions/other").status == 404


def test_a_form_without_the_gateway_is_told_the_cure(service):
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    # Many pictures are no valid form; on those TorchServe's frontend answers 500 before the handler is asked.
    code, kind, message = service.ask(native=True, headers=headers, data=b64(CAT)).error
    assert (code, kind) == (400, "MissingImage")
    assert message.startswith("A form-encoded body loses the picture")


def test_multipart_without_a_picture(service):
    code, kind, message = service.ask(data={"explain": "true"}, files={"picture": b"short"}).error
    assert (code, kind) == (400, "MissingImage")
    assert message.startswith("No picture: send an image file as the body, as the form field 'data'")


# --- a batch with bad neighbours, and what kills a TorchServe worker -----------------------------------------


def workers(service) -> list[str]:
    url = f"http://127.0.0.1:{service.stack.ports.management}/models/classifier"
    return [worker["pid"] for worker in requests.get(url, timeout=30).json()[0]["workers"]]


HOSTILE = {
    "CR LF in an option": ("?layer=a%0d%0aX-Evil:%201", CAT),
    "CR LF in an option's name": ("?a%0d%0ab=1", CAT),
    "NUL": ("?layer=%00", CAT),
    "emoji": ("?classes=%F0%9F%90%88", CAT),
    "lone surrogate in JSON": ("", b'{"data": "\\ud800"}'),
    "lone surrogate as an option": ("", json.dumps({"data": b64(CAT), "layer": "\ud800"}).encode()),
    "script": ("?classes=<script>alert(1)</script>", CAT),
    "very long value": ("?classes=" + "x" * 4000, CAT),
    "very long name": ("?" + "x" * 4000 + "=1", CAT),
    "NaN as JSON": ("", b'{"data": "", "opacity": NaN}'),
    "nan as text": ("?opacity=nan", CAT),
    "huge number": ("?topk=99999999999999999999", CAT),
    "deep JSON": ("", b'{"a":' * 5000),
    "JSON null": ("", b'{"data": null}'),
    "many fields": ("?" + "&".join(f"a{n}=1" for n in range(500)), CAT),
    "broken multipart": ("", b"--x\r\n"),
    "explain header": ("?explain=2", CAT),
}


@pytest.mark.parametrize(("path", "body"), HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("native", [False, True], ids=["gateway", "native"])
def test_hostile_requests_are_answered_and_the_workers_live_on(service, path, body, native):
    before = workers(service)
    if native and path:
        path = "/models/classifier/invoke" + path
    reply = service.ask(path, body, native=native)
    assert 400 <= reply.status < 500
    assert "X-Evil" not in reply.headers
    assert service.ask().top == EGYPTIAN_CAT
    assert workers(service) == before


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Camserve-Layer": "caf\xe9"},
        {"X-Camserve-": "1"},
        {"X-Camserve-Query-": "1"},
        {"X-Request-Start": "t=99999999999999999999999"},
        {"X-Request-Start": "t=-1"},
        {"Accept": "image/jpeg" * 100},
        {"describe": "True"},
        {"explain": "True"},
        {"Content-Type": "multipart/form-data"},
        {"Content-Type": "application/json; charset=nonsense"},
        {"X-Request-Method": "GET"},
    ],
    ids=lambda headers: "-".join(headers),
)
def test_hostile_headers_do_not_stop_a_worker(service, headers):
    before = workers(service)
    for native in (False, True):
        assert service.ask(headers=headers, native=native).status < 600
    assert service.ask().top == EGYPTIAN_CAT
    assert workers(service) == before

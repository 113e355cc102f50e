"""A multipart form to its fields: as clients write it, and broken in every way."""

from __future__ import annotations

import pytest
import requests

from camserve import form
from camserve.errors import InvalidOption, InvalidRequest
from camserve.records import Row
from camserve.request import Ask, read
from pictures import encoded, quarters

TYPE = "multipart/form-data; boundary=b"
PICTURE = encoded(quarters())


def part(name: str = "data", value: bytes = b"1") -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"


END = b"--b--\r\n"


def sent(**options: str) -> tuple[bytes, str]:
    """Body and content type as requests writes them."""
    files = {"data": ('a "name"; name="x".png', PICTURE, "image/png")}
    request = requests.Request("POST", "http://x", data=options, files=files).prepare()
    return request.body, request.headers["Content-Type"]


def test_a_clients_form_has_its_fields():
    body, kind = sent(explain="true", classes="café")
    assert form.fields(body, kind) == {"data": PICTURE, "explain": b"true", "classes": "café".encode()}


def test_a_form_from_the_gateway_is_read_like_one_from_torchserve():
    body, kind = sent(topk="3")
    call = read(Row("form", {"body": body}, {"x-camserve-form": kind, "x-camserve-topk": "1"}), 8)
    (ask,) = call.asks
    assert isinstance(ask, Ask)
    assert (ask.image, ask.options.topk) == (PICTURE, 3)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        pytest.param(part() + END, {"data": b"1"}, id="one"),
        pytest.param(b"before\r\n" + part() + END + b"behind", {"data": b"1"}, id="with text around it"),
        pytest.param(part(value=b"a\r\n\r\n--c\r\n") + END, {"data": b"a\r\n\r\n--c\r\n"}, id="with lines in it"),
        pytest.param(part(value=b"") + END, {"data": b""}, id="empty"),
        pytest.param(part("") + END, {"": b"1"}, id="an empty name"),
        pytest.param(
            b"--b\r\ncontent-type: a/b\r\ncontent-disposition: form-data; name=data\r\n\r\n1\r\n--b--",
            {"data": b"1"},
            id="no quotes",
        ),
        pytest.param(END, {}, id="no part"),
    ],
)
def test_a_form_is_read(body, fields):
    assert form.fields(body, TYPE) == fields
    assert form.fields(body, 'multipart/form-data; charset=utf-8; Boundary="b"') == fields


def head(text: bytes) -> bytes:
    """A form of one part with that head."""
    return b"--b\r\n" + text + b"\r\n\r\n1\r\n" + END


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        pytest.param(b"--b\r\n\r\n1\r\n" + END, "Missing Content-Disposition", id="no head"),
        pytest.param(head(b"Content-Disposition: form-data"), "Missing name option", id="no name"),
        pytest.param(
            head(b'Content-Disposition: form-data; filename="data"'), "Missing name option", id="a file name alone"
        ),
        pytest.param(
            head(b'Content-Disposition: form-data; name="\xff"'), "failed to decode", id="a name that is no text"
        ),
        pytest.param(b"--b\r\n" + END, "Malformed segment header", id="nothing in a part"),
        pytest.param(part(), "Unexpected end", id="cut short"),
        pytest.param(b"rubbish", "Boundary not found", id="no form"),
    ],
)
def test_a_broken_form_is_refused(body, fault):
    with pytest.raises(
        InvalidRequest, match=rf"^The form cannot be read: .*{fault}.*\. Expected at most 100 parts with "
    ):
        form.fields(body, TYPE)


def test_a_form_without_a_boundary_is_refused():
    with pytest.raises(InvalidRequest, match="Empty boundary"):
        form.fields(part() + END, "multipart/form-data")


def test_a_field_given_twice_is_refused():
    with pytest.raises(InvalidOption, match="'topk' is given twice in the form"):
        form.fields(part("topk") + part("topk") + END, TYPE)


def test_fields_at_the_limit_and_one_past_it():
    many = [part(f"n{index}") for index in range(101)]
    assert len(form.fields(b"".join(many[:100]) + END, TYPE)) == 100
    with pytest.raises(InvalidRequest, match=r"Maximum segment count exceeded\. Expected at most 100 parts"):
        form.fields(b"".join(many) + END, TYPE)

"""The error tree: what a client may rely on."""

from __future__ import annotations

import pytest

from camserve import errors
from camserve.errors import quoted

TABLE = {
    "InvalidOption": (400, "Bad Request"),
    "InvalidRequest": (400, "Bad Request"),
    "MissingImage": (400, "Bad Request"),
    "TooLarge": (413, "Content Too Large"),
    "UnsupportedFormat": (415, "Unsupported Media Type"),
    "Undecodable": (422, "Unprocessable Content"),
}


@pytest.mark.parametrize("name", TABLE)
def test_status_phrase_and_type(name):
    error = getattr(errors, name)("text")
    assert (error.status, error.phrase) == TABLE[name]
    assert error.type == name
    assert str(error) == "text"


def test_an_internal_error_tells_no_detail():
    error = errors.InternalError()
    assert (error.status, error.phrase, error.type) == (500, "Internal Server Error", "InternalError")
    assert str(error) == "The request could not be answered; the server's log has the reason."


def test_the_table_is_complete():
    subclasses = {cls.__name__ for cls in errors.RequestError.__subclasses__()}
    assert subclasses == {*TABLE, "InternalError"}


def test_a_setup_error_is_not_one_rows_fault():
    assert issubclass(errors.SetupError, errors.CamserveError)
    assert not issubclass(errors.SetupError, errors.RequestError)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("plain", "'plain'", id="text"),
        pytest.param("x" * 58, "'" + "x" * 58 + "'", id="text that just fits"),
        pytest.param("x" * 59, "'" + "x" * 56 + "...", id="text that is one too long"),
        pytest.param(b"\xff\0", r"b'\xff\x00'", id="bytes"),
        pytest.param("\ud800\n\x7f\u202e", r"'\ud800\n\x7f\u202e'", id="characters that would harm a log"),
        pytest.param(None, "None", id="nothing"),
        pytest.param({"a": [1, 2]}, "{'a': [1, 2]}", id="JSON"),
    ],
)
def test_quoted(value, expected):
    assert quoted(value) == expected
    assert len(quoted(value)) <= 60


def test_a_value_nested_too_deeply_is_described():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert quoted(deep) == "a list that is nested too deeply"
    while deep:  # taken apart by hand: a recursive destructor is not what is tested here
        deep = deep[0]

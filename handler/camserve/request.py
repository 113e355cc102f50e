"""Row to images and Options: the forms a body can take, and where options may stand.

A row carries options in up to four places; the nearer to the picture's own, the stronger:

    query (X-Camserve-Query, set by the gateway)  >  instance  >  field (multipart, JSON, gRPC)  >  header
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import parse_qsl

import orjson
import pybase64

from camserve import form
from camserve.errors import InvalidOption, InvalidRequest, MissingImage, RequestError, quoted
from camserve.imaging.encode import ENCODINGS
from camserve.options import Options, parse
from camserve.records import Row

_MAX_PARTS = 10_000
"""Commas and brackets of a JSON body. Base64 has none, and each can become an object of 64 bytes in memory."""
_PREFIX = "x-camserve-"
_QUERY = "x-camserve-query"
_FORM = "x-camserve-form"
"""The gateway's word that the body is a multipart form: its content type."""
_IMAGE_FIELDS = ("data", "body")
_IGNORED = "model_name"
_ACCEPT = {encoding.mime: name for name, encoding in ENCODINGS.items()}


@dataclass(frozen=True, slots=True)
class Ask:
    """One picture to answer: encoded bytes and options."""

    image: bytes
    options: Options


@dataclass(frozen=True, slots=True)
class Call:
    """A row as read: what it asks, or the error it earned.

    `asks` has one entry, or one for each KServe instance; a describe call has none. `picture_only` is set
    where the client accepts a picture before anything else, `as_page` where a browser asks what the model can do.
    """

    row: Row
    asks: tuple[Ask | RequestError, ...] = ()
    kind: Literal["predict", "kserve", "describe"] = "predict"
    picture_only: bool = False
    as_page: bool = False


def read(row: Row, max_instances: int, max_option_bytes: int = 2_000) -> Call:
    """A row as a Call.

    Raises:
        InvalidOption, InvalidRequest, MissingImage: the whole row is at fault.
    """
    row = _with_form(row)
    query, fields, headers = _query(row), _fields(row, max_option_bytes), _headers(row)
    body = _body(row)
    if body is None and not fields.get("data"):
        if _wants_page(row):
            return Call(row, kind="describe", as_page=True)
        if _wants_description(row):
            return Call(row, kind="describe")
    if body is not None and "data" in fields:
        raise InvalidRequest("The picture came twice, as the body and as the field 'data'; send it once.")
    default = {"explain": True} if row.headers.get("explain", "").lower() == "true" else {}
    if isinstance(body, dict) and "instances" in body:
        return _kserve(row, body, default | headers, fields, query, max_instances, max_option_bytes)
    accepted = _accepted_picture(row)
    if isinstance(body, dict):
        image, fields = _encoded(body.pop("data", None), "data"), body | fields
    else:
        image = fields.pop("data", None) if body is None else body
    if image is None:
        raise _missing(row)
    forced = {"explain": True, "image_format": accepted} if accepted else {}
    options = _options(default | headers | fields | query | forced, max_option_bytes)
    if accepted:
        _one_overlay(options)
    return Call(row, (Ask(bytes(image), options),), picture_only=bool(accepted))


# --- where values come from ---------------------------------------------------------------------------------


def _with_form(row: Row) -> Row:
    """The row with the fields of a form that the gateway handed over as a body."""
    content_type, body = row.headers.get(_FORM), row.fields.get("body")
    if not content_type or not body:
        return row
    return replace(row, fields=form.fields(body, content_type))


def _query(row: Row) -> dict[str, Any]:
    """The query as the gateway hands it on; a name given twice is refused."""
    try:
        pairs = parse_qsl(row.headers.get(_QUERY, ""), keep_blank_values=True, errors="strict", max_num_fields=100)
    except (ValueError, UnicodeDecodeError):
        raise InvalidRequest("The query is not valid: expected name=value pairs, percent-encoded UTF-8.") from None
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidOption(f"Option {quoted(name)} is given twice in the query; give it once.")
        if name in _IMAGE_FIELDS:
            raise InvalidOption(f"The picture cannot travel in the query ({quoted(name)}); send it as the body.")
        found[name] = value
    found.pop(_IGNORED, None)
    return found


def _fields(row: Row, most: int) -> dict[str, Any]:
    """Form and gRPC fields as text, the picture's own field as bytes."""
    found: dict[str, Any] = {}
    for name, value in row.fields.items():
        if name == "data":
            found[name] = value
        elif name not in ("body", _IGNORED):
            found[name] = _text(name, value, most)
    return found


def _headers(row: Row) -> dict[str, Any]:
    return {
        name.removeprefix(_PREFIX).replace("-", "_"): value
        for name, value in row.headers.items()
        if name.startswith(_PREFIX) and name not in (_QUERY, _FORM)
    }


def _text(name: str, value: bytes, most: int) -> str:
    _check_length(name, len(value), most)
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidOption(f"Option {quoted(name)}: expected UTF-8 text, got {quoted(value)}.") from None


def _options(values: Mapping[str, Any], most: int) -> Options:
    """Values from anywhere as checked options; as text or JSON none may be longer than `most` bytes."""
    for name, value in values.items():
        with suppress(TypeError):  # too deep for orjson, and for an option
            text = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else orjson.dumps(value)
            _check_length(name, len(text), most)
    return parse(values)


def _check_length(name: str, length: int, most: int) -> None:
    if length > most:
        raise InvalidOption(
            f"Option {quoted(name)}: expected at most {most} bytes, got {length}; "
            "the picture belongs in the field 'data'."
        )


# --- the forms of a body ------------------------------------------------------------------------------------


def _body(row: Row) -> bytes | dict[str, Any] | None:
    """The raw body: a picture's bytes, a JSON object, or None where there is nothing.

    A picture never begins like JSON, so the first byte decides, not the content type a client may forget.
    """
    body = row.fields.get("body")
    if not body:
        return None
    text = body.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    if text[:1] not in (b"{", b"["):
        return body
    if sum(map(text.count, (b",", b"[", b"{"))) > _MAX_PARTS:
        raise InvalidRequest(f"Expected JSON of at most {_MAX_PARTS} commas and brackets; send fewer options.")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {ascii(str(error))[1:-1][:100]}.") from None
    if not isinstance(value, dict):
        raise InvalidRequest('Expected a JSON object like {"data": "<base64>", "explain": true}, got a list.')
    return value


def _kserve(
    row: Row,
    body: dict[str, Any],
    headers: dict[str, Any],
    fields: dict[str, Any],
    query: dict[str, Any],
    most: int,
    most_bytes: int,
) -> Call:
    """A KServe V1 request: {"instances": [{"b64": ..., options}], "parameters": {options}}."""
    instances, parameters = body.pop("instances"), body.pop("parameters", {})
    if body:
        raise InvalidRequest(f"Expected only 'instances' and 'parameters', got {quoted(next(iter(body)))} too.")
    if not isinstance(parameters, dict):
        raise InvalidRequest(f"Expected 'parameters' to be an object of options, got {quoted(parameters)}.")
    if not isinstance(instances, list) or not 1 <= len(instances) <= most:
        count = f"{len(instances)}" if isinstance(instances, list) else quoted(instances)
        raise InvalidRequest(f"Expected 'instances' to be a list of 1 to {most} objects, got {count}.")
    shared = headers | parameters | fields
    asks = tuple(_instance(instance, shared, query, most_bytes) for instance in instances)
    return Call(row, asks, kind="kserve")


def _instance(instance: Any, shared: Mapping[str, Any], query: Mapping[str, Any], most: int) -> Ask | RequestError:
    """One instance, or its error: the others are answered."""
    try:
        if not isinstance(instance, dict):
            raise InvalidRequest(f'Expected an instance like {{"b64": "<base64>"}}, got {quoted(instance)}.')
        own = dict(instance)
        image = _encoded(own.pop("b64", None), "b64")
        if image is None:
            raise MissingImage("The instance has no picture: expected it as base64 in 'b64'.")
        return Ask(image, _options({**shared, **own, **query}, most))
    except RequestError as error:
        return error.bare()


def _encoded(value: Any, name: str) -> bytes | None:
    """Base64 as bytes; None where there is none."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise InvalidRequest(f"Expected the picture as base64 text in '{name}', got {quoted(value)}.")
    try:
        return pybase64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"'{name}' is not valid base64; it begins with {quoted(value[:20])}.") from None


def _missing(row: Row) -> RequestError:
    if row.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return MissingImage(
            "A form-encoded body loses the picture: send it with the header 'Content-Type: "
            "application/octet-stream', with curl -T FILE, or through the gateway."
        )
    return MissingImage("No picture: send an image file as the body, as the form field 'data', or as base64 in JSON.")


def _wants_description(row: Row) -> bool:
    """A GET, as the gateway tells or as TorchServe's management port does.

    TorchServe itself does not tell a GET from a POST without a body, so only these two are believed.
    """
    asked = row.headers.get("describe", "").lower() == "true"
    return asked or row.headers.get("x-request-method") in ("GET", "HEAD")


def _wants_page(row: Row) -> bool:
    """A GET that accepts HTML before anything else, as browsers do; without the gateway a POST looks the same."""
    return _accepted(row) == "text/html" and row.headers.get("x-request-method", "GET") in ("GET", "HEAD")


def is_native(row: Row) -> bool:
    """Whether a row came to TorchServe past the gateway."""
    return "x-request-method" not in row.headers


def _accepted_picture(row: Row) -> str | None:
    """The picture format a client accepts before anything else, if any."""
    return _ACCEPT.get(_accepted(row))


def _accepted(row: Row) -> str:
    """The media type a client accepts before anything else."""
    return row.headers.get("accept", "").split(",")[0].split(";")[0].strip().lower()


def _one_overlay(options: Options) -> None:
    if options.classes != 1 and not (isinstance(options.classes, tuple) and len(options.classes) == 1):
        raise InvalidOption("Option 'classes': a picture as the answer shows exactly one class; ask for one.")
    if "overlay" not in options.maps:
        raise InvalidOption("Option 'maps': a picture as the answer is the overlay; leave overlay among the maps.")

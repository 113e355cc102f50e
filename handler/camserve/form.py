"""A multipart form to its fields.

TorchServe's own parser answers some broken forms with 500, so the gateway hands them over as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from camserve.errors import InvalidOption, InvalidRequest, quoted

_MOST_FIELDS = 100


def fields(body: bytes, content_type: str) -> dict[str, bytes]:
    """The fields of a body of type multipart/form-data, by name.

    Raises:
        InvalidOption: a field is given twice.
        InvalidRequest: the body is no such form, or has too many fields.
    """
    found: dict[str, bytes] = {}
    try:
        for name, value in _parts(body, content_type):
            if name in found:
                raise InvalidOption(f"Option {quoted(name)} is given twice in the form; give it once.")
            found[name] = value
    except MultipartError as error:
        raise InvalidRequest(
            f"The form cannot be read: {error.args[0]}. Expected at most {_MOST_FIELDS} parts with "
            "'Content-Disposition: form-data; name=\"...\"', each after the boundary that the content type names, and "
            "that boundary with -- at the end."
        ) from error
    return found


def _parts(body: bytes, content_type: str) -> Iterator[tuple[str, bytes]]:
    """Name and value of each part."""
    boundary = parse_options_header(content_type)[1].get("boundary", "")
    name, value = "", b""
    with PushMultipartParser(boundary, max_segment_count=_MOST_FIELDS, strict=True) as parser:
        for event in parser.parse(bytes(body)):
            if isinstance(event, MultipartSegment):
                name, value = event.name, b""
            elif event:
                value = event  # whole: all of the body is at hand
            else:
                yield name, value

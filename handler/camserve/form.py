"""A multipart form to its fields.

TorchServe's own parser answers some broken forms with 500, so the gateway hands them over as they are.
"""

from __future__ import annotations

import re

from camserve.errors import InvalidOption, InvalidRequest, quoted

_MOST_FIELDS = 100
_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE)
_NAME = re.compile(
    rb'^content-disposition:[^\r\n]*?;\s*name=(?:"([^"\r\n]*)"|([^\s;"]+))', re.IGNORECASE | re.MULTILINE
)


def fields(body: bytes, content_type: str) -> dict[str, bytes]:
    """The fields of a body of type multipart/form-data, by name.

    Raises:
        InvalidOption: a field is given twice.
        InvalidRequest: the body is no such form, or has too many fields.
    """
    found: dict[str, bytes] = {}
    for part in _parts(body, content_type):
        head, gap, value = part.partition(b"\r\n\r\n")
        name = _name(head) if gap else None
        if name is None:
            raise InvalidRequest(
                "The form cannot be read: expected parts with 'Content-Disposition: form-data; name=\"...\"'."
            )
        if name in found:
            raise InvalidOption(f"Option {quoted(name)} is given twice in the form; give it once.")
        found[name] = value
    return found


def _parts(body: bytes, content_type: str) -> list[bytes]:
    """What stands between the boundaries."""
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise InvalidRequest("The form cannot be read: expected a boundary in its content type.")
    boundary = b"\r\n--" + (match[1] or match[2]).encode("utf-8", "replace")
    parts = (b"\r\n" + body).split(boundary, _MOST_FIELDS + 1)
    if len(parts) > _MOST_FIELDS + 1 and not parts[-1].startswith(b"--"):
        raise InvalidRequest(f"The form cannot be read: expected at most {_MOST_FIELDS} fields.")
    if len(parts) < 2 or not parts[-1].startswith(b"--"):
        raise InvalidRequest("The form cannot be read: expected its boundary before each part and at its end.")
    return parts[1:-1]


def _name(head: bytes) -> str | None:
    match = _NAME.search(head)
    try:
        return None if match is None else (match[1] if match[1] is not None else match[2]).decode()
    except UnicodeDecodeError:
        return None

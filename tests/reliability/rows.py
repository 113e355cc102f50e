"""Rows as a client bent on mischief sends them: every form of a body, options in every place, right, odd and absurd."""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

from hypothesis import strategies as st

from camserve.cam.methods import METHODS
from camserve.options import MAPS, Options
from camserve.records import Row
from camserve.render.colormaps import COLORMAPS
from pictures import encoded, quarters

OPTIONS = tuple(Options.model_fields)
_SOUND: dict[str, list[Any]] = {
    "explain": ["true", "auto", True, False, " TRUE "],
    "topk": [1, "20", "+3"],
    "classes": ["top:3", "0,3", [0, "label 4"], "label 2", 9, "[1, 2]"],
    "method": list(METHODS),
    "layer": ["features", "early.0", "features.1"],
    "contrast": ["runner_up", 3, "label 5", None],
    "polarity": ["positive", "negative", "both"],
    "channels": [0, 3, "16"],
    "maps": [",".join(MAPS), list(MAPS), "grid", '["heatmap"]'],
    "colormap": list(COLORMAPS),
    "opacity": [0, 1, "0.5", 0.25, "1e-3"],
    "image_format": ["jpeg", "png", "webp"],
    "max_side": [64, "2048", 512],
    "crop": ["0,0,16,16", [8, 8, 24, 24], None],
    "verify": [True, "false"],
}
_WORDS = (
    *(
        "",
        " ",
        "top:0",
        "top:21",
        "top:-1",
        "top:",
        "top:1_0",
        "label:",
        "1,",
        ",",
        "[",
        "[]",
        "[[1]]",
        "[1,",
        "{}",
        "null",
    ),
    *("nan", "inf", "-inf", "1e999", "0x10", "1_0", "٣", "½", "-1", "0", "9" * 30, "1" * 9, "2147483648", "true,true"),
    *(
        "\0",
        "\r\nX-Evil: 1",
        "<script>alert(1)</script>",
        "%00",
        "%s%n",
        "${jndi:ldap://x}",
        "../../etc/passwd",
        "'; --",
    ),
    *("\ud800", "🐈" * 50, "x" * 200, "x" * 201, "x" * 1999, "x" * 2000, "x" * 2001, "1," * 21, "a\u202eb", "\ufeff1"),
)
_NAMES = st.sampled_from(OPTIONS) | st.sampled_from(
    [*("data", "body", "b64", "instances", "parameters", "model_name", "Explain", "top-k", "__class__", "")]
)
_TEXT = st.text(max_size=20)
_NUMBERS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats()
_ODD = st.sampled_from(_WORDS) | _TEXT | _NUMBERS
JSON = st.recursive(
    _ODD, lambda part: st.lists(part, max_size=4) | st.dictionaries(_NAMES | _TEXT, part, max_size=4), max_leaves=8
)


@cache
def picture() -> bytes:
    """A good picture of 48 x 32 pixels."""
    return encoded(quarters(), "PNG")


@st.composite
def options(draw: st.DrawFn, most: int = 5) -> dict[str, Any]:
    """Options by name: mostly sound ones, here and there an absurd value or name."""
    chosen: dict[str, Any] = {}
    for _ in range(draw(st.integers(0, most))):
        name = draw(st.sampled_from(OPTIONS))
        sound = st.sampled_from(_SOUND[name])
        chosen[name] = draw(sound | sound | sound | JSON)
    if draw(st.integers(0, 7)) == 0:
        chosen[draw(_NAMES | _TEXT)] = draw(JSON)
    return chosen


def _texts(values: dict[str, Any]) -> dict[str, str]:
    """As they stand in a form or a query."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@st.composite
def base64s(draw: st.DrawFn) -> Any:
    """A picture as base64, now and then broken, or something else in its place."""
    good = base64.b64encode(picture()).decode()
    broken = [good[:-1], good + "=", good[: len(good) // 2], good.replace("A", "-"), "data:image/png;base64," + good]
    odd = [
        f" {good}",
        good[:40] + "\n" + good[40:],
        good[:40] + "\0" + good[40:],
        "",
        "====",
        "A",
        None,
        [good],
        {"b64": good},
    ]
    return draw(st.just(good) | st.just(good) | st.sampled_from(broken + odd) | _ODD)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """The bytes of a body: a picture, JSON, KServe, or any of them broken."""
    kind = draw(st.sampled_from(("picture", "json", "kserve", "odd json", "bytes")))
    if kind == "picture":
        return picture()
    if kind == "bytes":
        return draw(st.binary(max_size=200))
    if kind == "json":
        value: Any = {"data": draw(base64s()), **draw(options())}
    elif kind == "kserve":
        instance = st.builds(lambda image, own: {"b64": image, **own}, base64s(), options(2))
        value = {"instances": draw(st.lists(instance | JSON, max_size=9) | JSON)}
        if draw(st.booleans()):
            value["parameters"] = draw(options(3) | JSON)
        value |= draw(st.just({}) | st.just({}) | st.dictionaries(_TEXT, JSON, max_size=1))
    else:
        value = draw(JSON)
    text = json.dumps(value).encode()
    front = draw(st.sampled_from((b"", b"", b"\xef\xbb\xbf", b" \r\n", b"{", b'{"a":' * 2000)))
    return front + text[: draw(st.just(len(text)) | st.just(len(text)) | st.integers(0, len(text)))]


@st.composite
def headers(draw: st.DrawFn) -> dict[str, str]:
    """Headers in lower case, as the entry hands them on."""
    found = {f"x-camserve-{name.replace('_', '-')}": text for name, text in _texts(draw(options(2))).items()}
    query = draw(st.none() | st.none() | options(3) | _TEXT | st.sampled_from(_WORDS))
    if isinstance(query, dict):
        found["x-camserve-query"] = urlencode(_texts(query), errors="replace", quote_via=quote)
    elif query is not None:
        found["x-camserve-query"] = query
    for name, values in _HEADERS.items():
        if draw(st.integers(0, 5)) == 0:
            found[name] = draw(st.sampled_from(values) | _TEXT)
    return found


_HEADERS = {
    "accept": ["image/jpeg", "image/webp;q=1", "text/html", "*/*", "image/png,,", ";", "application/json"],
    "content-type": ["application/json", "application/x-www-form-urlencoded", "multipart/form-data", "image/jpeg"],
    "x-request-method": ["GET", "POST", "HEAD", "PUT", ""],
    "x-request-start": ["t=1", "t=-1", "t=", "t=99999999999999999999", "t=nan", "t=1700000000000"],
    "explain": ["True", "False", ""],
    "describe": ["True", "False", ""],
}


@st.composite
def forms(draw: st.DrawFn) -> bytes:
    """A multipart form between lines of --b, now and then broken."""
    parts = [(name, _bytes(text)) for name, text in _texts(draw(options(3))).items()]
    parts += draw(st.sampled_from(([("data", picture())], [("data", picture())], [], [("data", b"")] * 2)))
    text = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="' + _bytes(name) + b'"\r\n\r\n' + value + b"\r\n"
        for name, value in parts
    )
    text += draw(st.sampled_from((b"--b--\r\n", b"--b--\r\n", b"--b--\r\n", b"", b"--b\r\n\r\n--b--")))
    return text[: draw(st.just(len(text)) | st.just(len(text)) | st.integers(0, len(text)))]


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """A row of any form with options in any place."""
    fields: dict[str, bytes] = {}
    given = draw(headers())
    if draw(st.integers(0, 3)) == 0:
        fields["body"] = draw(forms())
        given["x-camserve-form"] = draw(st.sampled_from(("multipart/form-data; boundary=b",) * 4 + ("b", "")))
        return Row("fuzzed", fields, given)
    if draw(st.booleans()):
        fields["body"] = draw(bodies())
    if draw(st.booleans()):
        fields |= {name: _bytes(text) for name, text in _texts(draw(options())).items()}
        fields["data"] = draw(st.just(picture()) | st.just(picture()) | st.binary(max_size=30))
    return Row("fuzzed", fields, given)

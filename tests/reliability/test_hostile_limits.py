"""Every limit of a request that a setting sets, at its value and one past it; and past it before it costs memory."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
from hostile import peak
from judge import outcome
from PIL import Image

import toynets
from camserve.cam.engine import LATE
from camserve.errors import InvalidRequest
from camserve.pipeline import Pipeline
from camserve.records import Answer, Row
from camserve.request import read
from pictures import cat, encoded, quarters

MEGA = 1_000_000
PICTURE = encoded(quarters())
B64 = base64.b64encode(PICTURE).decode()
LIMITS: dict[str, Any] = {
    "max_pixels": 6_000,
    "max_request_pixels": 7_023,
    "max_picture_side": 100,
    "max_aspect_ratio": 4,
    "max_classes": 3,
    "max_channels": 2,
    "max_forwards": 16,
    "max_instances": 2,
    "max_option_bytes": 100,
}


@pytest.fixture(scope="module")
def limited(tmp_path_factory) -> Pipeline:
    return toynets.loaded(tmp_path_factory.mktemp("limited"), **LIMITS)


def blank(width: int, height: int) -> Row:
    return toynets.row(encoded(Image.new("L", (width, height)), "PNG"))


def asked(**options: Any) -> Row:
    return toynets.row(PICTURE, explain="true", **options)


def body(value: Any) -> Row:
    return Row("limits", {"body": json.dumps(value).encode()}, {})


def query(text: str) -> Row:
    return Row("limits", {"body": PICTURE}, {"x-camserve-query": text})


def instances(count: int) -> Row:
    return body({"instances": [{"b64": B64}] * count})


CASES = {
    "pixels": (blank(100, 60), blank(100, 61), 413, "Expected at most 6000 pixels; the picture has 100x61."),
    "width": (blank(100, 25), blank(101, 26), 413, "Expected sides of at most 100 pixels; the picture has 101x26."),
    "height": (blank(25, 100), blank(26, 101), 413, "Expected sides of at most 100 pixels; the picture has 26x101."),
    "shape": (
        blank(80, 20),
        blank(81, 20),
        413,
        "Expected a longer side of at most 4 times the shorter; the picture has 81x20.",
    ),
    "classes": (asked(classes="0,1,2"), asked(classes="0,1,2,3"), 400, "Option 'classes': expected at most 3, got 4."),
    "channels": (asked(channels=2), asked(channels=3), 400, "Option 'channels': expected at most 2, got 3."),
    "instances": (instances(2), instances(3), 400, "Expected 'instances' to be a list of 1 to 2 objects, got 3."),
    "option as a field": (
        asked(classes="0".ljust(100)),
        asked(classes="0".ljust(101)),
        400,
        "Option 'classes': expected at most 100 bytes, got 101; the picture belongs in the field 'data'.",
    ),
    "option in JSON": (
        body({"data": B64, "classes": "label 1".ljust(100)}),
        body({"data": B64, "classes": "label 1".ljust(101)}),
        400,
        "Option 'classes': expected at most 100 bytes, got 101; the picture belongs in the field 'data'.",
    ),
    "option as a list": (
        body({"data": B64, "classes": ["label 1".ljust(96)]}),
        body({"data": B64, "classes": ["label 1".ljust(97)]}),
        400,
        "Option 'classes': expected at most 100 bytes, got 101; the picture belongs in the field 'data'.",
    ),
    "option in the query": (
        query("classes=0" + "+" * 99),
        query("classes=0" + "+" * 100),
        400,
        "Option 'classes': expected at most 100 bytes, got 101; the picture belongs in the field 'data'.",
    ),
    "option as a header": (
        Row("limits", {"body": PICTURE}, {"x-camserve-classes": "0".ljust(100)}),
        Row("limits", {"body": PICTURE}, {"x-camserve-classes": "0".ljust(101)}),
        400,
        "Option 'classes': expected at most 100 bytes, got 101; the picture belongs in the field 'data'.",
    ),
}


def test_the_dearest_request_that_is_allowed_ends_and_loses_no_prediction(tmp_path):
    """Eight pictures, ten classes of each, two large PNG of each class: drawing them all takes half a minute."""
    pipeline = toynets.loaded(tmp_path, explain_within_ms=2_000)
    large = base64.b64encode(encoded(Image.open(io.BytesIO(cat())).resize((2048, 2048)), "JPEG")).decode()
    wish = {"explain": "true", "classes": "top:10", "maps": "overlay,heatmap", "image_format": "png", "max_side": 2048}
    (answer,) = pipeline.answer([body({"instances": [{"b64": large}] * 8, "parameters": wish})])
    found = json.loads(answer.body)
    assert answer.status == 200
    assert len(found["predictions"]) == 8
    reasons = [one.get("reason") for each in found["explanations"] for one in each["classes"]]
    assert len(reasons) == 80
    assert LATE in reasons
    assert all(reason in (None, LATE) or reason.startswith("Dropped") for reason in reasons)


@pytest.mark.parametrize("name", CASES)
def test_a_limit_at_its_value_and_one_past_it(limited, name):
    fits, passes, status, message = CASES[name]
    good, refused = limited.answer([fits, passes])
    assert outcome(good) == "200", good.body
    assert (refused.status, json.loads(refused.body)["message"]) == (status, message)


def test_the_pixels_of_all_instances_at_the_limit_and_one_past_it(limited):
    for second, codes in (((33, 31), [0, 0]), ((32, 32), [0, 413])):
        sizes = ((100, 60), second)
        pictures = [base64.b64encode(encoded(Image.new("L", size), "PNG")).decode() for size in sizes]
        answer = limited.answer([body({"instances": [{"b64": one} for one in pictures]})])[0]
        outcome(answer)
        found = json.loads(answer.body)["predictions"]
        assert sorted(one.get("error", {}).get("code", 0) for one in found) == codes


def test_an_instance_has_the_same_limit_of_an_option(limited):
    row = body({"instances": [{"b64": B64, "classes": "0".ljust(length)} for length in (100, 101)]})
    first, second = json.loads(limited.answer([row])[0].body)["predictions"]
    assert "predictions" in first
    assert second["error"]["message"].startswith("Option 'classes': expected at most 100 bytes, got 101")


def test_top_n_is_clamped_to_the_classes_allowed(limited):
    answer = toynets.good(limited.answer([asked(classes="top:20", maps="regions")])[0])
    assert len(answer["explanation"]["classes"]) == 3


@pytest.mark.parametrize("method", ["scorecam", "ablationcam"])
def test_forwards_at_the_limit_and_one_past_it(limited, tmp_path, method):
    """The layer has 16 channels."""
    assert limited.answer([asked(method=method)])[0].status == 200
    answer = toynets.loaded(tmp_path, max_forwards=15).answer([asked(method=method)])[0]
    assert answer.status == 400
    assert "needs 16 forwards" in json.loads(answer.body)["message"]


def test_the_bounds_that_are_no_settings(limited):
    """The most that any setting could allow."""
    for option, fits, passes in (("topk", 20, 21), ("max_side", 2048, 2049), ("opacity", 1, 1.001)):
        assert limited.answer([asked(**{option: fits})])[0].status == 200
        assert limited.answer([asked(**{option: passes})])[0].status == 400


# --- before memory is spent ---------------------------------------------------------------------------------

LARGE = 20 * 1024 * 1024


def answered(pipeline: Pipeline, row: Row) -> Answer:
    """The answer to a row that must cost no more than a few copies of its body."""
    with peak() as memory:
        answer = pipeline.answer([row])[0]
    assert memory.grown < 4 * LARGE
    return answer


@pytest.mark.parametrize(
    ("start", "part", "end"),
    [
        pytest.param(b'{"data": [', b"{},", b"{}]}", id="objects"),
        pytest.param(b'{"data": [', b"[],", b"[]]}", id="lists"),
        pytest.param(b'{"instances": [', b'{"b64":""},', b"{}]}", id="instances"),
        pytest.param(b'{"classes": [', b"1000,", b"1]}", id="classes"),
    ],
)
def test_json_of_countless_parts_is_refused_before_it_is_read(seeded, start, part, end):
    """Read, 20 MB of {} are half a gigabyte of objects."""
    text = start + part * ((LARGE - len(start) - len(end)) // len(part)) + end
    answer = answered(seeded, Row("limits", {"body": text}, {}))
    assert (answer.status, json.loads(answer.body)["message"]) == (
        400,
        "Expected JSON of at most 10000 commas and brackets; send fewer options.",
    )


def test_json_parts_at_the_limit_and_one_past_it():
    def row(parts: int) -> Row:
        return Row("limits", {"body": b'{"data": "' + b"," * (parts - 1) + b'"}'}, {})

    with pytest.raises(InvalidRequest, match="'data' is not valid base64"):
        read(row(10_000), 8)
    with pytest.raises(InvalidRequest, match="at most 10000 commas and brackets"):
        read(row(10_001), 8)


@pytest.mark.parametrize("name", ["classes", "layer", "nothing"])
def test_an_endless_option_costs_no_more_than_its_body(seeded, name):
    for value in ("x" * (LARGE - 1_000), ["x" * (LARGE - 1_000)]):
        answer = answered(seeded, body({"data": B64, name: value}))
        assert answer.status == 400
        assert len(answer.body) < 1_000


def test_too_many_pixels_are_refused_before_they_are_decoded(limited):
    image = encoded(Image.new("RGB", (4_000, 4_000)), "PNG")
    with peak() as memory:
        assert limited.answer([toynets.row(image)])[0].status == 413
    assert memory.grown < 20 * MEGA

"""Every form of a request, which value wins, and faults that stay short, plain and the client's own."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camserve.errors import InvalidOption, InvalidRequest, MissingImage, RequestError
from camserve.records import Row
from camserve.request import Ask, read
from camserve.response import error

IMAGE = b"\xff\xd8\xff the picture"
B64 = base64.b64encode(IMAGE).decode()


def call(fields: dict | None = None, headers: dict | None = None, most: int = 8):
    return read(Row("id", fields or {}, headers or {}), most)


def ask(fields: dict | None = None, headers: dict | None = None) -> Ask:
    """The one picture that a row asks for."""
    read_as = call(fields, headers)
    assert read_as.kind == "predict"
    (one,) = read_as.asks
    assert isinstance(one, Ask)
    return one


def body(value: object) -> dict[str, bytes]:
    return {"body": value if isinstance(value, bytes) else json.dumps(value).encode()}


def query(**options: object) -> dict[str, str]:
    return {"x-camserve-query": urlencode(options)}


def refusal(kind: type[RequestError], fields: dict | None = None, headers: dict | None = None) -> str:
    with pytest.raises(kind) as caught:
        call(fields, headers)
    assert type(caught.value) is kind
    assert caught.value.status == 400
    return str(caught.value)


# --- the forms of a body ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(body(IMAGE), id="the raw body"),
        pytest.param({"data": IMAGE}, id="the form field data"),
        pytest.param(body({"data": B64}), id="base64 in JSON"),
        pytest.param(body(b"\xef\xbb\xbf \r\n\t" + json.dumps({"data": B64}).encode()), id="JSON behind a BOM"),
        pytest.param({"data": IMAGE, "model_name": b"classifier"}, id="with the server's own field"),
    ],
)
def test_a_picture_arrives(fields):
    one = ask(fields)
    assert one.image == IMAGE
    assert one.options.model_dump() == ask({"data": IMAGE}).options.model_dump()


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        pytest.param(body(IMAGE), query(topk=3, explain="true"), id="the query"),
        pytest.param({"data": IMAGE, "topk": b"3", "explain": b"true"}, {}, id="form fields"),
        pytest.param(body(IMAGE) | {"topk": b"3", "explain": b"true"}, {}, id="a query merged by the server"),
        pytest.param(body({"data": B64, "topk": 3, "explain": True}), {}, id="JSON"),
        pytest.param(body(IMAGE), {"x-camserve-topk": "3", "x-camserve-explain": "true"}, id="headers"),
    ],
)
def test_options_arrive(fields, headers):
    options = ask(fields, headers).options
    assert (options.topk, options.explain) == (3, True)


def test_a_header_may_write_its_option_with_dashes():
    assert ask(body(IMAGE), {"x-camserve-max-side": "100"}).options.max_side == 100


def test_an_empty_picture_is_left_to_the_decoder():
    assert ask({"data": b""}, {"host": "x"}).image == b""


# --- who wins -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "headers", "expected"),
    [
        pytest.param({"data": IMAGE}, {}, 5, id="nobody: the default"),
        pytest.param({"data": IMAGE}, {"x-camserve-topk": "1"}, 1, id="the header alone"),
        pytest.param({"data": IMAGE, "topk": b"2"}, {"x-camserve-topk": "1"}, 2, id="a field beats the header"),
        pytest.param(body({"data": B64, "topk": 2}), {"x-camserve-topk": "1"}, 2, id="JSON beats the header"),
        pytest.param(
            {"data": IMAGE, "topk": b"2"}, {"x-camserve-topk": "1"} | query(topk=3), 3, id="the query beats a field"
        ),
        pytest.param(body({"data": B64, "topk": 2}), query(topk=3), 3, id="the query beats JSON"),
        pytest.param(body({"data": B64, "topk": 2}) | {"topk": b"4"}, {}, 4, id="the server's merged query beats JSON"),
    ],
)
def test_the_stronger_place_wins(fields, headers, expected):
    assert ask(fields, headers).options.topk == expected


@pytest.mark.parametrize(
    ("instance", "parameters", "headers", "expected"),
    [
        pytest.param({}, {}, {"x-camserve-topk": "1"}, 1, id="header"),
        pytest.param({}, {"topk": 2}, {"x-camserve-topk": "1"}, 2, id="parameters beat the header"),
        pytest.param({"topk": 3}, {"topk": 2}, {"x-camserve-topk": "1"}, 3, id="the instance beats parameters"),
        pytest.param({"topk": 3}, {"topk": 2}, query(topk=4), 4, id="the query beats the instance"),
    ],
)
def test_the_stronger_place_wins_in_kserve(instance, parameters, headers, expected):
    asked = call(body({"instances": [{"b64": B64, **instance}], "parameters": parameters}), headers)
    assert asked.asks[0].options.topk == expected


def test_the_servers_explain_path_is_the_weakest_word():
    path = {"explain": "True"}
    assert ask(body(IMAGE), path).options.explain is True
    assert ask(body(IMAGE), path | query(explain="false")).options.explain is False
    assert ask(body(IMAGE), path | {"x-camserve-explain": "auto"}).options.explain == "auto"
    kserve = call(body({"instances": [{"b64": B64}, {"b64": B64, "explain": False}]}), path)
    assert [one.options.explain for one in kserve.asks] == [True, False]


def test_a_query_merged_by_the_server_counts_in_kserve():
    fields = body({"instances": [{"b64": B64}]}) | {"topk": b"2", "model_name": b"toy"}
    assert call(fields).asks[0].options.topk == 2


# --- the query ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("topk=1&topk=2", InvalidOption, "Option 'topk' is given twice in the query; give it once."),
        ("topk=1&topk=1", InvalidOption, "Option 'topk' is given twice in the query; give it once."),
        (
            "data=abc",
            InvalidOption,
            "The picture cannot travel in the query ('data'); send it as the body.",
        ),
        ("body=", InvalidOption, "The picture cannot travel in the query ('body'); send it as the body."),
        (
            "layer=%ff",
            InvalidRequest,
            "The query is not valid: expected name=value pairs, percent-encoded UTF-8.",
        ),
        (
            "&".join(f"n{k}=1" for k in range(101)),
            InvalidRequest,
            "The query is not valid: expected name=value pairs, percent-encoded UTF-8.",
        ),
        ("topk=", InvalidOption, "Option 'topk': expected a number of predictions from 1 to 20, got ''."),
    ],
    ids=["a name twice", "a value twice", "data", "body", "not UTF-8", "101 options", "an empty value"],
)
def test_a_query_is_refused(text, kind, message):
    assert refusal(kind, body(IMAGE), {"x-camserve-query": text}) == message


def test_a_query_is_percent_decoded_and_ignores_the_model_name():
    text = f"model_name=a&classes={quote('386,Indian elephant')}&layer=a%2Eb"
    options = ask(body(IMAGE), {"x-camserve-query": text}).options
    assert (options.classes, options.layer) == ((386, "Indian elephant"), "a.b")


# --- what is missing or broken ------------------------------------------------------------------------------

NO_PICTURE = "No picture: send an image file as the body, as the form field 'data', or as base64 in JSON."


@pytest.mark.parametrize(
    "fields",
    [{}, body(b""), body({}), body({"data": None}), body({"data": ""}), {"topk": b"3"}],
    ids=["nothing", "an empty body", "an empty object", "null", "empty base64", "options only"],
)
def test_a_missing_picture(fields):
    assert refusal(MissingImage, fields, {"content-length": "0"}) == NO_PICTURE


@pytest.mark.parametrize("more", ["", "; charset=utf-8"])
def test_a_form_encoded_body_names_the_cure(more):
    headers = {"content-type": "application/x-www-form-urlencoded" + more, "content-length": "9"}
    assert refusal(MissingImage, {}, headers) == (
        "A form-encoded body loses the picture: send it with the header 'Content-Type: application/octet-stream', "
        "with curl -T FILE, or through the gateway."
    )


DEEP = b"[" * 900 + b"]" * 900


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        pytest.param(
            body([1, 2]),
            InvalidRequest,
            'Expected a JSON object like {"data": "<base64>", "explain": true}, got a list.',
            id="a list",
        ),
        pytest.param(
            body(b"{"),
            InvalidRequest,
            "The body is not valid JSON: unexpected end of data: line 1 column 2 (char 1).",
            id="JSON cut short",
        ),
        pytest.param(
            body(b"[" * 10_000),
            InvalidRequest,
            "The body is not valid JSON: depth limit exceeded: line 1 column 1026 (char 1025).",
            id="JSON deeper than the parser goes",
        ),
        pytest.param(
            body(b'{"data": ' + DEEP + b"}"),
            InvalidRequest,
            f"Expected the picture as base64 text in 'data', got {'[' * 57}....",
            id="deep JSON instead of the picture",
        ),
        pytest.param(
            body({"data": "not base64!"}),
            InvalidRequest,
            "'data' is not valid base64; it begins with 'not base64!'.",
            id="no base64",
        ),
        pytest.param(
            body({"data": B64 + "\n"}),
            InvalidRequest,
            f"'data' is not valid base64; it begins with '{B64[:20]}'.",
            id="base64 with a line break",
        ),
        pytest.param(
            body({"data": "abcde"}),
            InvalidRequest,
            "'data' is not valid base64; it begins with 'abcde'.",
            id="base64 of a wrong length",
        ),
        pytest.param(
            body({"data": "é" * 100}),
            InvalidRequest,
            r"'data' is not valid base64; it begins with '" + r"\xe9" * 14 + "....",
            id="base64 beyond ASCII",
        ),
        pytest.param(
            body({"data": 5}),
            InvalidRequest,
            "Expected the picture as base64 text in 'data', got 5.",
            id="a number as the picture",
        ),
        pytest.param(
            body({"data": B64, "topk": "\x00\n\x1b"}),
            InvalidOption,
            r"Option 'topk': expected a number of predictions from 1 to 20, got '\x00\n\x1b'.",
            id="control characters in a value",
        ),
        pytest.param(
            {"data": IMAGE, "topk": b"\xff"},
            InvalidOption,
            r"Option 'topk': expected UTF-8 text, got b'\xff'.",
            id="a field that is no text",
        ),
        pytest.param(
            {"data": IMAGE, "topk": b"1" * 2_001},
            InvalidOption,
            "Option 'topk': expected at most 2000 bytes, got 2001; the picture belongs in the field 'data'.",
            id="a field that is too long",
        ),
        pytest.param(
            {"data": IMAGE, "topk": b"1" * 2_000},
            InvalidOption,
            f"Option 'topk': expected a number of predictions from 1 to 20, got '{'1' * 56}....",
            id="a field just short enough to be read",
        ),
    ],
)
def test_refused(fields, kind, message):
    assert refusal(kind, fields) == message


@pytest.mark.parametrize("place", ["field", "header"])
def test_lone_surrogates_and_control_characters_come_back_as_ascii(place):
    fields, headers = {"data": IMAGE}, {}
    if place == "field":
        fields["\ud800\x00"] = b"1"
    else:
        headers["x-camserve-\ud800\x00"] = "\udfff"
    assert refusal(InvalidOption, fields, headers).startswith(r"Unknown option '\ud800\x00'; expected one of explain, ")


def test_a_value_with_a_lone_surrogate_comes_back_as_ascii():
    message = refusal(InvalidOption, {"data": IMAGE}, {"x-camserve-layer": "\ud800"})
    assert message == r"Option 'layer': expected the name of a layer, got '\ud800'."


def test_the_deepest_json_that_is_read_does_not_break_the_message():
    deepest = b"[" * 1023 + b"]" * 1023
    message = refusal(InvalidOption, body(b'{"data": "' + B64.encode() + b'", "topk": ' + deepest + b"}"))
    assert message == (
        "Option 'topk': expected a number of predictions from 1 to 20, got a list that is nested too deeply."
    )


# --- a picture as the answer --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("image/jpeg", "jpeg"),
        ("IMAGE/PNG;q=0.9, */*", "png"),
        (" image/webp , application/json", "webp"),
        ("application/json, image/png", None),
        ("image/*", None),
        ("image/gif", None),
        ("*/*", None),
        ("", None),
    ],
)
def test_a_picture_accepted_first_is_the_answer(accept, expected):
    read_as = call(body(IMAGE), {"accept": accept})
    assert read_as.picture_only is (expected is not None)
    options = read_as.asks[0].options
    assert (options.explain, options.image_format) == ((True, expected) if expected else (False, "jpeg"))


def test_the_accepted_type_beats_every_option():
    headers = {"accept": "image/png"} | query(explain="false", image_format="webp")
    options = ask(body(IMAGE), headers).options
    assert (options.explain, options.image_format) == (True, "png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"classes": "top:2"},
            "Option 'classes': a picture as the answer shows exactly one class; ask for one.",
        ),
        ({"classes": "1,2"}, "Option 'classes': a picture as the answer shows exactly one class; ask for one."),
        (
            {"maps": "grid"},
            "Option 'maps': a picture as the answer is the overlay; leave overlay among the maps.",
        ),
    ],
    ids=["two likeliest", "two named", "no overlay"],
)
def test_one_picture_shows_one_class(options, message):
    assert refusal(InvalidOption, body(IMAGE), {"accept": "image/png"} | query(**options)) == message
    assert ask(body(IMAGE), query(**options)).options.explain is False


# --- describe -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "headers", "kind"),
    [
        pytest.param({}, {"x-request-method": "GET"}, "describe", id="a GET through the gateway"),
        pytest.param({}, {"x-request-method": "HEAD"}, "describe", id="a HEAD through the gateway"),
        pytest.param({}, {"describe": "True"}, "describe", id="the server's own describe"),
        pytest.param(body(b""), {"x-request-method": "GET"}, "describe", id="an empty body"),
        pytest.param(body(IMAGE), {"x-request-method": "POST"}, "predict", id="a POST with a picture"),
        pytest.param(body(IMAGE), {"x-request-method": "GET"}, "predict", id="a GET with a picture"),
        pytest.param({"data": IMAGE}, {}, "predict", id="gRPC"),
    ],
)
def test_describe_is_a_get_without_a_picture(fields, headers, kind):
    read_as = call(fields, headers)
    assert read_as.kind == kind
    assert len(read_as.asks) == (kind == "predict")


@pytest.mark.parametrize("headers", [{}, {"x-request-method": "POST"}, {"describe": "False"}])
def test_a_post_without_a_picture_is_a_mistake(headers):
    assert refusal(MissingImage, {}, headers) == NO_PICTURE


# --- KServe -------------------------------------------------------------------------------------------------


def test_instances_are_asked_each_with_its_own_options():
    asked = call(
        body({"instances": [{"b64": B64}, {"b64": B64, "topk": 1}], "parameters": {"topk": 2, "explain": True}})
    )
    assert asked.kind == "kserve"
    assert [(one.image, one.options.topk, one.options.explain) for one in asked.asks] == [
        (IMAGE, 2, True),
        (IMAGE, 1, True),
    ]


def test_a_faulty_instance_stays_alone():
    asked = call(
        body({"instances": [{"b64": B64}, {}, {"b64": "?"}, 5, {"b64": B64, "topk": 0}, {"b64": B64, "c": 1}, [[]]]})
    )
    assert isinstance(asked.asks[0], Ask)
    assert [(type(one), str(one)) for one in asked.asks[1:5]] == [
        (MissingImage, "The instance has no picture: expected it as base64 in 'b64'."),
        (InvalidRequest, "'b64' is not valid base64; it begins with '?'."),
        (InvalidRequest, 'Expected an instance like {"b64": "<base64>"}, got 5.'),
        (InvalidOption, "Option 'topk': expected a number of predictions from 1 to 20, got 0."),
    ]
    assert str(asked.asks[5]).startswith("Unknown option 'c'; expected one of ")
    assert str(asked.asks[6]) == 'Expected an instance like {"b64": "<base64>"}, got [[]].'


@pytest.mark.parametrize("count", [1, 8])
def test_as_many_instances_as_allowed(count):
    assert len(call(body({"instances": [{"b64": B64}] * count})).asks) == count


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        pytest.param(
            {"instances": []}, "Expected 'instances' to be a list of 1 to 8 objects, got 0.", id="no instance"
        ),
        pytest.param(
            {"instances": [{"b64": B64}] * 9},
            "Expected 'instances' to be a list of 1 to 8 objects, got 9.",
            id="nine instances",
        ),
        pytest.param(
            {"instances": "x"}, "Expected 'instances' to be a list of 1 to 8 objects, got 'x'.", id="text as instances"
        ),
        pytest.param(
            {"instances": [{}], "parameters": [1]},
            "Expected 'parameters' to be an object of options, got [1].",
            id="a list as parameters",
        ),
        pytest.param(
            {"instances": [{}], "parameters": None},
            "Expected 'parameters' to be an object of options, got None.",
            id="null as parameters",
        ),
        pytest.param(
            {"instances": [{}], "topk": 1},
            "Expected only 'instances' and 'parameters', got 'topk' too.",
            id="an option beside the instances",
        ),
    ],
)
def test_a_kserve_body_is_refused(whole, message):
    assert refusal(InvalidRequest, body(whole)) == message


def test_the_limit_of_instances_is_the_callers():
    with pytest.raises(InvalidRequest, match=r"list of 1 to 2 objects, got 3\.$"):
        call(body({"instances": [{}] * 3}), most=2)


# --- whatever comes -----------------------------------------------------------------------------------------

NAMES = st.sampled_from(
    [
        "data",
        "body",
        "instances",
        "parameters",
        "b64",
        "topk",
        "classes",
        "maps",
        "crop",
        "layer",
        "contrast",
        "opacity",
        "explain",
        "model_name",
    ]
)
WORDS = st.text(max_size=30) | st.sampled_from(["top:3", "1,2,3", "[1,2]", "[", "nan", "true", "1e999"])
ANY_TEXT = st.text(st.characters(), max_size=30)
"""Lone surrogates and control characters too."""
NUMBERS = st.none() | st.booleans() | st.integers() | st.floats()
JSON = st.recursive(
    NUMBERS | WORDS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(NAMES | WORDS, inner, max_size=5)
)
BYTES = st.binary(max_size=60) | WORDS.map(str.encode) | JSON.map(lambda value: json.dumps(value).encode())
FIELDS = st.dictionaries(NAMES | ANY_TEXT, BYTES, max_size=6)
HEADER_NAMES = st.sampled_from(["x-camserve-query", "accept", "describe", "explain", "content-type", "host"]) | (
    NAMES | ANY_TEXT
).map("x-camserve-".__add__)
HEADERS = st.dictionaries(HEADER_NAMES, ANY_TEXT | WORDS, max_size=6)
KSERVE = st.fixed_dictionaries(
    {"instances": JSON | st.lists(st.dictionaries(NAMES, JSON, max_size=4), max_size=4)}, optional={"parameters": JSON}
)


def only_a_request_error(fields: dict, headers: dict) -> None:
    """Whatever is wrong is told in one short ASCII sentence that travels as JSON."""
    try:
        faults = [one for one in call(fields, headers).asks if isinstance(one, RequestError)]
    except RequestError as fault:
        faults = [fault]
    for fault in faults:
        message = str(fault)
        assert 0 < len(message) < 1_000
        assert message.isascii()
        assert message.isprintable()
        assert json.loads(error(fault).body) == {"code": 400, "type": fault.type, "message": message}


@settings(max_examples=300, deadline=None)
@given(FIELDS, HEADERS)
def test_any_fields_and_headers(fields, headers):
    only_a_request_error(fields, headers)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES | WORDS, JSON, max_size=5) | KSERVE | JSON, HEADERS)
def test_any_json(value, headers):
    only_a_request_error(body(value), headers)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=50).map(b"{".__add__))
def test_any_bytes(data):
    only_a_request_error(body(data), {})
    only_a_request_error({"data": data, "topk": data}, {})


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAMES, JSON, min_size=1, max_size=5))
def test_any_value_of_every_option(values):
    only_a_request_error(body({**values, "data": B64}), {})
    only_a_request_error(body({"instances": [{**values, "b64": B64}]}), {})

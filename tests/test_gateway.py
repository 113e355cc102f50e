"""The gateway's rules, through a real TorchServe whose handler answers with what it got."""

import http.client
import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from echo_stack import build_archive, echo_stack

pytestmark = pytest.mark.live

ORIGIN = "https://inspector.example"
LIMIT = 20 * 1024 * 1024


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    build_archive(folder / "archives")
    with echo_stack(folder / "archives", folder / "state", CAMSERVE_ALLOWED_ORIGIN=ORIGIN) as running:
        running.wait_ready()
        yield running


@pytest.fixture(scope="module")
def call(stack):
    """call(method, path, ...): the answer of the gateway."""
    with requests.Session() as session:
        yield lambda method, path, **options: session.request(method, stack.url + path, timeout=40, **options)


@pytest.fixture
def echo(call):
    """echo(path, ...): what the handler got for a POST."""

    def post(path, **options):
        answer = call("POST", path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return post


@pytest.fixture
def wish(call):
    """wish(...): the answer when the handler is asked to behave like that."""
    return lambda **wishes: call("POST", "/predictions/echo", data=json.dumps({"wish": 1, **wishes}))


def raw(stack, request_line):
    """The status and body for a request line that no client library would send as it stands."""
    with socket.create_connection(("127.0.0.1", stack.ports.gateway), timeout=10) as connection:
        connection.sendall(request_line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.read()


def assert_refused(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    error = answer.json()
    assert error["code"] == status
    assert set(error) == {"code", "type", "message"}
    return error


# Routes


@pytest.mark.parametrize(
    "path",
    [
        "/predictions/echo",
        "/predictions/echo/",
        "/predictions/echo/1.0",
        "/explanations/echo",
        "/explanations/echo/1.0",
        "/v1/models/echo:predict",
        "/v1/models/echo:explain",
        "/models/echo/invoke",
        "/echo/predict",
        "/echo/1.0/predict",
        "/invocations?model_name=echo",
        "//predictions///echo",
        "/predictions/%65cho",
        "/predictions/echo%2f1.0",
        "/v1/../predictions/echo",
    ],
)
def test_every_prediction_route_reaches_the_handler(echo, path):
    assert echo(path, data=b"12345")["length"] == 5


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_the_method_is_told_to_the_handler(call, method):
    answer = call(method, "/predictions/echo", data=b"123", headers={"X-Request-Method": "BREW"}).json()
    assert answer["headers"]["x-request-method"] == method
    assert answer["length"] == 3


def test_head_is_answered_without_a_body_and_leaves_the_connection_usable(call):
    for _ in range(3):
        answer = call("HEAD", "/predictions/echo")
        assert answer.status_code == 200
        assert answer.content == b""
        assert call("POST", "/predictions/echo", data=b"1").json()["length"] == 1


@pytest.mark.parametrize(
    "path",
    [
        "/models",
        "/models/echo",
        "/api-description",
        "/metrics",
        "/workflows",
        "/v2/models/echo/infer",
        "/v2/health/ready",
        "/predictions",
        "/predictions/",
        "/predictions/echo/1.0/more",
        "/predictions/../models",
        "/predictions/%2e%2e/models",
        "/predictions/echo/..%2f..%2fmodels",
        "/v1/models/..:predict",
        "/predictions/.hidden",
        "/predictions/echo%0a",
        "/predictions/echo%0d%0aX-Evil:1",
        "/predictions/echo%20HTTP",
        "/predictions/echo%3fexplain=true",
        "/predictions/" + "n" * 101,
        "/ready/echo/more",
        "/_refusal",
        "/_body_is_read",
        "/no-such-file",
    ],
)
def test_everything_else_is_a_json_404(stack, path):
    status, body = raw(stack, b"GET " + path.encode() + b" HTTP/1.1")
    assert (status, json.loads(body)["code"]) == (404, 404)


def test_torchserves_own_404_passes_through(call):
    assert_refused(call("POST", "/predictions/nobody", data=b"1"), 404)
    assert "nobody" in call("POST", "/predictions/nobody", data=b"1").json()["message"]


@pytest.mark.parametrize("query", ["", "?model_name=", "?model_name=a%2fb", "?model_name=../echo", "?x=1"])
def test_invocations_without_a_good_name_is_a_400(call, query):
    assert "model_name" in assert_refused(call("POST", "/invocations" + query, data=b"1"), 400)["message"]


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "TRACE", "OPTIONS", "PROPFIND", "POSTX"])
def test_other_methods_are_a_405(call, method):
    answer = call(method, "/predictions/echo")
    assert_refused(answer, 405)
    assert answer.headers["Allow"] == "GET, HEAD, POST, PUT"


# What the handler sees


def test_the_query_travels_in_a_header_only(echo):
    seen = echo("/predictions/echo?explain=true&classes=1%2C2", headers={"X-Camserve-Query": "faked=1"}, data=b"1")
    assert seen["headers"]["x-camserve-query"] == "explain=true&classes=1%2C2"
    assert seen["keys"] == ["body"]


def test_without_a_query_the_header_is_absent_even_if_the_client_sends_one(echo):
    seen = echo("/predictions/echo", headers={"X-Camserve-Query": "faked=1"}, data=b"1")
    assert "x-camserve-query" not in seen["headers"]


def test_a_query_of_five_kilobytes_arrives(echo):
    query = "classes=" + "1," * 2400
    assert echo(f"/predictions/echo?{query}", data=b"1")["headers"]["x-camserve-query"] == query


def test_the_start_is_in_milliseconds_and_cannot_be_faked(echo):
    before = time.time() * 1000
    start = echo("/predictions/echo", headers={"X-Request-Start": "t=1"}, data=b"1")["headers"]["x-request-start"]
    assert re.fullmatch(r"t=\d{13}", start)
    assert before - 50 <= int(start[2:]) <= time.time() * 1000 + 50


def test_torchserves_internal_headers_are_removed(echo):
    headers = echo("/predictions/echo", headers={"explain": "True", "Describe": "True"}, data=b"1")["headers"]
    assert not {"explain", "describe"} & set(headers)


@pytest.mark.parametrize(
    ("path", "sent", "seen"),
    [
        ("/explanations/echo", None, "true"),
        ("/explanations/echo/1.0", None, "true"),
        ("/v1/models/echo:explain", None, "true"),
        ("/explanations/echo", "auto", "auto"),
        ("/predictions/echo", None, None),
        ("/predictions/echo", "auto", "auto"),
        ("/v1/models/echo:predict", None, None),
    ],
)
def test_explanation_paths_ask_for_maps_unless_the_client_says_otherwise(echo, path, sent, seen):
    headers = {"X-Camserve-Explain": sent} if sent else {}
    assert echo(path, headers=headers, data=b"1")["headers"].get("x-camserve-explain") == seen


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ("application/json", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
        ("application/x-www-form-urlencoded", "application/octet-stream"),
        ("text/plain", "application/octet-stream"),
        ("image/jpeg", "application/octet-stream"),
        ("application/jsonp", "application/octet-stream"),
        (None, "application/octet-stream"),
    ],
)
def test_whatever_is_no_form_or_json_arrives_as_bytes(echo, sent, seen):
    answer = echo("/predictions/echo", data=b"a=%zz&b=2", headers={"Content-Type": sent})
    assert answer["headers"]["content-type"] == seen
    assert (answer["keys"], answer["length"]) == (["body"], 9)


def test_forms_arrive_unread_with_their_type_in_a_header(echo):
    forged = {"X-Camserve-Form": "multipart/form-data; boundary=forged"}
    seen = echo("/predictions/echo", files={"data": b"12345"}, data={"explain": "true"}, headers=forged)
    assert seen["keys"] == ["body"]
    assert seen["length"] > 100
    assert seen["headers"]["content-type"] == "application/octet-stream"
    assert re.fullmatch(r"multipart/form-data; boundary=\w{32}", seen["headers"]["x-camserve-form"])
    assert "x-camserve-form" not in echo("/predictions/echo", data=b"1", headers=forged)["headers"]


@pytest.mark.parametrize("path", ["/predictions/echo", "/predictions/echo/", "/predictions/echo/1.0/"])
@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
def test_a_chunked_upload_arrives_whole(call, method, path):
    answer = call(method, path + "?explain=true", data=iter([b"x" * 700_000, b"y" * 700_000])).json()
    assert answer["length"] == 1_400_000
    assert answer["headers"]["x-camserve-query"] == "explain=true"
    assert answer["headers"]["x-request-method"] == method


# Errors


@pytest.mark.parametrize("status", [400, 401, 404, 413, 415, 422, 429])
def test_the_handlers_own_errors_pass_through(wish, status):
    answer = wish(status=status)
    assert answer.status_code == status
    assert answer.json() == {"code": status, "type": "Wished", "message": "from the handler"}


def test_the_handlers_own_413_passes_through_after_a_chunked_upload_too(call):
    answer = call("POST", "/predictions/echo", data=iter([b'{"wish": 1, ', b'"status": 413}']))
    assert (answer.status_code, answer.json()["type"]) == (413, "Wished")


def test_a_body_at_the_limit_arrives_and_one_byte_more_is_a_413(call, echo):
    assert echo("/predictions/echo", data=b"x" * LIMIT)["length"] == LIMIT
    assert "20m" in assert_refused(call("POST", "/predictions/echo", data=b"x" * (LIMIT + 1)), 413)["message"]


def test_a_form_at_the_limit_arrives(echo):
    assert LIMIT - 300 < echo("/predictions/echo", files={"data": b"x" * (LIMIT - 300)})["length"] <= LIMIT


def test_a_chunked_body_over_the_limit_is_the_same_413(call):
    assert_refused(call("POST", "/predictions/echo", data=(b"x" * 1024 * 1024 for _ in range(21))), 413)


def test_a_line_or_headers_that_are_too_long_are_refused_in_json(call):
    assert_refused(call("POST", "/predictions/echo?" + "q" * 7000), 414)
    assert_refused(call("POST", "/predictions/echo", headers={f"X-{i}": "v" * 900 for i in range(8)}), 431)


def test_the_longest_that_nginx_takes_is_not_too_long_for_torchserve(echo):
    query = "q" * 2800
    seen = echo(f"/predictions/echo?{query}", headers={f"X-{i}": "v" * 900 for i in range(3)}, data=b"1")
    assert seen["headers"]["x-camserve-query"] == query


def test_a_malformed_chunked_body_is_a_json_400(stack):
    lines = b"POST /predictions/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno-number"
    status, body = raw(stack, lines)
    assert (status, json.loads(body)["code"]) == (400, 400)


def test_a_malformed_request_is_a_json_400(stack):
    status, body = raw(stack, b"GET /predictions/%zz HTTP/1.1")
    assert (status, json.loads(body)["code"]) == (400, 400)


def test_a_handler_that_raises_is_a_503_that_says_when_to_retry(wish):
    answer = wish(**{"raise": True})
    assert assert_refused(answer, 503)["type"] == "Unavailable"
    assert answer.headers["Retry-After"] == "1"


def test_a_full_queue_is_a_503_that_says_when_to_retry(wish):
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: wish(sleep=0.5), range(12)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert refused
    assert len(refused) < 12
    for answer in refused:
        assert assert_refused(answer, 503)["type"] == "Unavailable"
        assert answer.headers["Retry-After"] == "1"


def test_a_request_whose_worker_dies_is_sent_again(wish, tmp_path):
    answer = wish(die_once=str(tmp_path / "died"))
    assert answer.status_code == 200
    assert (tmp_path / "died").exists()


def test_a_chunked_request_whose_worker_dies_is_sent_again(call, tmp_path):
    wish = json.dumps({"wish": 1, "die_once": str(tmp_path / "died")})
    assert call("POST", "/predictions/echo", data=iter([wish.encode()])).status_code == 200


def test_a_request_that_kills_the_worker_twice_is_a_503(wish):
    answer = wish(die_once="/proc/no-such-folder/never-created")
    assert_refused(answer, 503)
    assert answer.headers["Retry-After"] == "1"


def test_an_answer_of_256_kilobytes_arrives_whole(wish):
    assert len(wish(answer_bytes=256 * 1024).json()["padding"]) == 256 * 1024


# Health


def test_ping_and_ready(call):
    assert call("GET", "/ping").json() == {"status": "Healthy"}
    assert call("GET", "/ready").status_code == 200
    seen = call("GET", "/ready/echo/?explain=perhaps", data=b"12345").json()
    assert (seen["length"], seen["headers"].get("x-camserve-query")) == (0, None)
    assert seen["headers"]["x-request-method"] == "GET"


def test_ready_takes_get_and_head_only(call):
    assert call("HEAD", "/ready").status_code == 200
    assert_refused(call("POST", "/ready"), 405)


def test_a_model_that_does_not_exist_is_not_ready(call):
    answer = call("GET", "/ready/nobody")
    assert_refused(answer, 503)
    assert answer.headers["Retry-After"] == "1"


def test_ready_gives_up_after_two_seconds(call, wish):
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(wish, sleep=4)
        time.sleep(0.3)
        began = time.monotonic()
        assert_refused(call("GET", "/ready"), 503)
        assert time.monotonic() - began < 2.7
        assert busy.result().status_code == 200


# Other origins


def test_the_allowed_origin_may_ask_and_read_errors(call):
    headers = {"Origin": ORIGIN, "Access-Control-Request-Headers": "content-type"}
    preflight = call("OPTIONS", "/predictions/echo", headers=headers)
    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert preflight.headers["Access-Control-Allow-Headers"] == "content-type"
    assert call("GET", "/nowhere", headers=headers).headers["Access-Control-Allow-Origin"] == ORIGIN


def test_another_origin_may_not(call):
    headers = {"Origin": "https://elsewhere.example"}
    assert_refused(call("OPTIONS", "/predictions/echo", headers=headers), 405)
    answer = call("POST", "/predictions/echo", headers=headers, data=b"1")
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_answers_are_not_cached_and_do_not_name_the_version(call):
    headers = call("POST", "/predictions/echo", data=b"1").headers
    assert "no-store" in headers["Cache-Control"]
    assert headers["Server"] == "nginx"


# Without TorchServe; keep this last, it ends the module's.


def test_torchserve_being_gone_is_a_503(stack, call):
    stack._children["TorchServe"].end(lambda process: process.terminate(), 10)
    for path in ("/predictions/echo", "/ready"):
        answer = call("GET", path)
        assert_refused(answer, 503)
        assert answer.headers["Retry-After"] == "1"

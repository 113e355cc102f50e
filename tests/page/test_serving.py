"""The gateway gives out the page's files, these only, and under a strict policy."""

from __future__ import annotations

import http.client
import json
from contextlib import closing

import pytest

from camserve.inspector import PAGE

pytestmark = pytest.mark.live

FILES = sorted(str(file.relative_to(PAGE)) for file in PAGE.rglob("*.*") if file.suffix != ".md")
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "jpg": "image/jpeg",
}
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob: data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}


def get(service, path: str, method: str = "GET") -> tuple[int, http.client.HTTPMessage, bytes]:
    """The answer to a path that goes out as it is written."""
    connection = http.client.HTTPConnection(service.gateway.removeprefix("http://"), timeout=20)
    with closing(connection):
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers, response.read()


@pytest.mark.parametrize("path", ["/", *(f"/page/{name}" for name in FILES)])
def test_it_is_the_file_under_a_strict_policy(service, path):
    status, headers, body = get(service, path)
    name = path.removeprefix("/page/") if path != "/" else "index.html"
    assert (status, body) == (200, (PAGE / name).read_bytes())
    assert headers["Content-Type"] == TYPES[name.rpartition(".")[2]]
    assert dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; ")) == POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path",
    [
        "/page",
        "/page/",
        "/page/samples",
        "/page/samples/",
        "/page/samples/LICENSE.md",
        "/page/nothing.js",
        "/page/samples/nothing.jpg",
        "/page/../gateway.conf",
        "/page/..%2fgateway.conf",
        "/page/%2e%2e/nginx.conf",
        "/page/samples/../../logs/gateway.log",
        "/page/samples/..%2f..%2f..%2f..%2fetc/passwd",
        "/page/.hidden.js",
        "/page/page.js%00.jpg",
        "/page/page.js/",
        "/index.html",
        "/samples/cat.jpg",
    ],
)
def test_everything_else_is_a_json_error(service, path):
    status, headers, body = get(service, path)
    assert status in (400, 404)
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body)["code"] == status


def test_the_page_takes_no_post(service):
    status, _, body = get(service, "/", "POST")
    assert (status, json.loads(body)["code"]) == (405, 405)


def test_the_gateway_tells_its_model_and_its_limit(service):
    status, headers, body = get(service, "/page/gateway.json")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert json.loads(body) == {"model": "classifier", "max_body": "20m"}


def test_a_browsers_get_of_the_model_is_the_page_with_the_policy_of_its_hashes(service):
    for native in (False, True):
        answer = service.ask(data=None, method="GET", native=native, headers={"Accept": "text/html,*/*;q=0.8"})
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "script-src 'sha256-" in answer.headers["Content-Security-Policy"]
        assert (b"data-native" in answer.body.split(b">")[1]) == native


def test_a_browser_that_asks_for_readiness_gets_no_page(service):
    answer = service.ask("/ready", data=None, method="GET", headers={"Accept": "text/html"})
    assert answer.headers["Content-Type"] == "application/json"


def test_any_other_get_of_the_model_is_the_description(service):
    assert "default_layer" in service.ask(data=None, method="GET").json

"""Who gets in, and by what: ports, tokens, TLS, requests that are not what they seem, and archives that run code."""

from __future__ import annotations

import io
import json
import pickle
import re
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import hostile_network
import psutil
import pytest
import requests
import torch
from served import until

from camserve.archive import Recipe, build, opened, put
from camserve.errors import SetupError, StackError
from camserve.settings import Preprocessing
from camserve.stack import Ports, Stack, commands
from camserve.stack.entrance import Entrance
from echo_stack import CONFIG, build_archive, echo_stack

pytestmark = pytest.mark.live

SECRET = "/predictions/echo"
INSIDE = [b"minWorkers", b"modelName", b"Requests2XX", b"openapi", b"ts_inference", b"key_file", b"InvalidKey"]
"""Words of TorchServe's management, metrics, description and keys."""


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("security") / "archives"
    build_archive(folder)
    return folder


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """certificate(...): PEM files for localhost, the key beside the certificate."""
    folder = tmp_path_factory.mktemp("certificates")

    def make(name="localhost", days="2"):
        pem, key, wish, names = (folder / f"{name}{days}.{kind}" for kind in ("pem", "key", "csr", "ext"))
        names.write_text(f"subjectAltName=DNS:{name}")
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
        openssl("req", *curve, "-nodes", "-keyout", key, "-out", wish, "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", wish, "-signkey", key, "-days", days, "-extfile", names, "-out", pem)
        return pem, key

    return make


@pytest.fixture(scope="module")
def stack(archives, tmp_path_factory):
    """Neither TLS nor tokens."""
    with echo_stack(archives, tmp_path_factory.mktemp("plain") / "state") as running:
        running.wait_ready()
        yield running


@pytest.fixture(scope="module")
def guarded(archives, certificate, tmp_path_factory):
    """TLS and tokens."""
    pem, key = certificate()
    settings = {
        "CAMSERVE_TOKENS": "true",
        "CAMSERVE_ALLOWED_ORIGIN": "https://inspector.example",
        "CAMSERVE_HOST": "localhost",
        "CAMSERVE_TLS_CERTIFICATE": str(pem),
        "CAMSERVE_TLS_KEY": str(key),
    }
    with echo_stack(archives, tmp_path_factory.mktemp("guarded") / "state", **settings) as running:
        running.wait_ready()
        yield running


def keys(stack):
    return json.loads(stack.entrance.tokens.read_text())


def bearer(stack, kind="inference"):
    return {"Authorization": f"Bearer {keys(stack)[kind]['key']}"}


def ask(stack, method="POST", path=SECRET, **more):
    return requests.request(method, stack.url + path, verify=str(stack.entrance.certificate), timeout=30, **more)


def wire(stack, sent, wait=3.0):
    """All that comes back for these bytes until the gateway closes, or is still for `wait` seconds."""
    with socket.create_connection(("127.0.0.1", stack.ports.gateway), timeout=wait) as connection:
        connection.sendall(sent)
        received = b""
        try:
            while part := connection.recv(65536):
                received += part
        except (TimeoutError, ConnectionResetError):
            pass
    return received


def statuses(received):
    """The status of each answer on a connection."""
    return [int(code) for code in re.findall(rb"(?:^|\}|\n|\r)HTTP/1\.[01] (\d{3})", received)]


def post(path=b"/predictions/echo", headers=(), body=b"", line=None):
    """A request, its head as given; Connection: close, so that the answers can be counted."""
    head = [line or b"POST " + path + b" HTTP/1.1", b"Host: x", b"Connection: close", *headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


# Ports


def listening(stack):
    """port -> addresses, of all processes of a stack."""
    found = {}
    for child in stack._children.values():
        tree = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
        for process in tree:
            for one in process.net_connections("inet"):
                if one.status == psutil.CONN_LISTEN:
                    found.setdefault(one.laddr.port, set()).add(one.laddr.ip.removeprefix("::ffff:"))
    return found


def test_every_port_but_the_gateways_is_on_the_loopback_interface(service):
    """Of a real model, whose workers open the one that Prometheus scrapes."""
    stack, ports = service.stack, service.stack.ports
    until(lambda: ports.scrape in listening(stack))
    found = listening(stack)
    assert found.pop(ports.gateway) == {"0.0.0.0"}
    inside = {ports.inference, ports.management, ports.metrics, ports.grpc, ports.grpc_management, ports.scrape}
    assert inside <= set(found)
    assert {address for addresses in found.values() for address in addresses} == {"127.0.0.1"}


@pytest.mark.parametrize(
    "path",
    [
        *("/models", "/models?limit=1", "/models/echo", "/models/echo?customized=true", "/models/echo/1.0/set-default"),
        *(
            "/metrics",
            "/api-description",
            "/workflows",
            "/wfpredict/echo",
            "/token?type=inference",
            "/v2",
            "/v2/models",
        ),
        *("/key_file.json", "/page/key_file.json", "/page/../nginx.conf", "/page/..%2fkeys%2fkey_file.json"),
        *("/page/samples/../../../nginx.conf", "/page/samples/%2e%2e/%2e%2e/gateway.conf", "/logs/gateway.log"),
        *("/predictions/../models", "/predictions/echo/../../models/echo", "/predictions/echo/%2e%2e/%2e%2e/metrics"),
        *("/predictions/..;/models", "/predictions/echo;/../../models/echo", "/models/echo/invoke/../.."),
        *("//models", "/./models", "/%6dodels", "/models%2fecho", "/models/echo%23", "/models/echo%3fcustomized=true"),
        *("/_refusal", "/_token", "/_body_is_read", "/_without_tls", "/predictions/echo/1.0%2f..%2f..%2f..%2fmodels"),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"PUT"])
def test_nothing_of_torchserves_own_is_reached(stack, method, path):
    received = wire(stack, post(line=method + b" " + path.encode() + b" HTTP/1.1", headers=[b"Content-Length: 0"]))
    assert statuses(received) in ([400], [404], [405]), received
    assert not [word for word in INSIDE if word in received]


# Requests that are not what they seem

GET_INSIDE = b"GET /models HTTP/1.1\r\nHost: x\r\n\r\n"
SMUGGLED = b"0\r\n\r\n" + GET_INSIDE
CHUNKED = b"Transfer-Encoding: chunked"


REFUSED = {
    "both lengths": (post(headers=[b"Content-Length: 5", CHUNKED], body=SMUGGLED), 400),
    "both lengths, the other way round": (post(headers=[CHUNKED, b"Content-Length: 5"], body=SMUGGLED), 400),
    "two lengths that differ": (post(headers=[b"Content-Length: 0", b"Content-Length: 36"], body=GET_INSIDE), 400),
    "two lengths that agree": (post(headers=[b"Content-Length: 1", b"Content-Length: 1"], body=b"x"), 400),
    "a list of lengths": (post(headers=[b"Content-Length: 0, 36"], body=GET_INSIDE), 400),
    "a signed length": (post(headers=[b"Content-Length: +0"], body=GET_INSIDE), 400),
    "a negative length": (post(headers=[b"Content-Length: -1"], body=GET_INSIDE), 400),
    "a hexadecimal length": (post(headers=[b"Content-Length: 0x0"], body=GET_INSIDE), 400),
    "chunked twice": (post(headers=[CHUNKED, CHUNKED], body=SMUGGLED), 400),
    "chunked, and something else": (post(headers=[b"Transfer-Encoding: chunked, identity"], body=SMUGGLED), 501),
    "an unknown encoding": (post(headers=[b"Transfer-Encoding: xchunked"], body=SMUGGLED), 501),
    "a blank before the colon": (post(headers=[b"Transfer-Encoding : chunked", b"Content-Length: 0"]), 400),
    "a folded header": (post(headers=[b"X-Fold: a", b" Transfer-Encoding: chunked"], body=SMUGGLED), 400),
    "a header without a colon": (post(headers=[b"Content-Length 5"], body=b"12345"), 400),
    "a NUL in a header": (post(headers=[b"X-A: a\x00b", b"Content-Length: 0"]), 400),
    "a NUL in the path": (post(b"/predictions/echo\x00/../../models", [b"Content-Length: 0"]), 400),
    "an encoded NUL": (post(b"/predictions/echo%00", [b"Content-Length: 0"]), 400),
    "a bare CR in the path": (post(b"/predictions/echo\rX: 1", [b"Content-Length: 0"]), 400),
    "a blank in the path": (post(b"/predictions/echo HTTP/1.1 x", [b"Content-Length: 0"]), 400),
    "more dots than folders": (post(b"/../../models", [b"Content-Length: 0"]), 400),
    "a broken escape": (post(b"/predictions/%zz", [b"Content-Length: 0"]), 400),
    "two hosts": (post(headers=[b"Host: y", b"Content-Length: 0"]), 400),
    "a host that is a path": (b"GET /ping HTTP/1.1\r\nHost: x/../models\r\nConnection: close\r\n\r\n", 400),
    "no host": (b"GET /ping HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
    "a later version": (b"GET /ping HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    "no number for a version": (b"GET /ping HTTP/x\r\nHost: x\r\n\r\n", 400),
    "HTTP/2 without being asked": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "lower case": (post(line=b"post /predictions/echo HTTP/1.1", headers=[b"Content-Length: 0"]), 400),
    "CONNECT": (b"CONNECT 127.0.0.1:8081 HTTP/1.1\r\nHost: 127.0.0.1:8081\r\n\r\n", 405),
    "TRACE": (post(line=b"TRACE /predictions/echo HTTP/1.1", headers=[b"X-Secret: 1"]), 405),
    "PROPFIND": (post(line=b"PROPFIND / HTTP/1.1"), 405),
    "OPTIONS for everything": (post(line=b"OPTIONS * HTTP/1.1"), 400),
    "another server's address": (post(line=b"GET http://127.0.0.1:8081/models HTTP/1.1"), 404),
    "a chunk's length that is none": (post(headers=[CHUNKED], body=b"zz\r\n" + GET_INSIDE), 400),
    "a chunk's length too long to be one": (post(headers=[CHUNKED], body=b"f" * 17 + b"\r\n" + GET_INSIDE), 400),
}


@pytest.mark.parametrize("trick", REFUSED)
def test_it_is_refused_with_one_answer(stack, trick):
    sent, status = REFUSED[trick]
    received = wire(stack, sent)
    assert statuses(received) == [status], received
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"Content-Type: application/json" in head
    assert json.loads(body)["code"] == status
    assert not [word for word in INSIDE if word in received]


def seen(received):
    """What the handler got, from the one good answer."""
    assert statuses(received) == [200], received
    return json.loads(received[received.index(b"{") : received.rindex(b"}") + 1])


@pytest.mark.parametrize(
    ("header", "absent"),
    [
        (b"X-A: 1%0d%0adescribe: true", "describe"),
        (b"DESCRIBE: true", "describe"),
        (b"eXplain: True", "explain"),
        (b"X-Camserve-Query: explain=true", "x-camserve-query"),
        (b"X_Camserve_Query: explain=true", "x_camserve_query"),
        (b"Connection: keep-alive, X-Request-Method, X-Request-Start", "connection"),
    ],
)
def test_a_clients_header_does_not_pass_for_one_of_ours(stack, header, absent):
    headers = seen(wire(stack, post(headers=[header, b"Content-Length: 1"], body=b"x")))["headers"]
    assert absent not in headers
    assert headers["x-request-method"] == "POST"
    assert re.fullmatch(r"t=\d{13}", headers["x-request-start"])


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"X-A: 1\rdescribe: true", 400),
        (b"Transfer-Encoding: identity", 501),
        (b"\x1cTransfer-Encoding: chunked", 400),
        (b"Transfer-Encoding\x0b: chunked", 400),
        (b"\x1cDescribe: true", 400),
    ],
)
def test_a_header_that_is_none_is_refused(stack, header, status):
    """Nothing of the request reaches the handler, whose answer would be the one of status 200."""
    assert statuses(wire(stack, post(headers=[header, b"Content-Length: 1"], body=b"x"))) == [status]


def test_lines_that_end_in_a_bare_lf_mean_the_same_to_both(stack):
    sent = post(headers=[b"X-A: 1\nContent-Length: 5"], body=b"12345").replace(b"\r\n", b"\n")
    assert seen(wire(stack, sent))["length"] == 5


def test_an_absolute_address_chooses_a_path_and_no_server(stack):
    for scheme in (b"http", b"ftp"):
        received = wire(stack, post(line=b"GET " + scheme + b"://127.0.0.1:8081/ping HTTP/1.1"))
        assert statuses(received) == [200]
        assert b"Healthy" in received


@pytest.mark.parametrize(("path", "answer"), [(b"/models", ("code", 404)), (b"/ping", ("status", "Healthy"))])
def test_the_oldest_http_gets_the_same_routes(stack, path, answer):
    """It has no headers, so its answer has none: the body is all there is."""
    received = wire(stack, b"GET " + path + b"\r\n")
    name, value = answer
    assert json.loads(received)[name] == value
    assert not [word for word in INSIDE if word in received]


def test_an_upgrade_is_not_made(stack):
    received = wire(stack, post(line=b"GET /predictions/echo HTTP/1.1", headers=[b"Upgrade: h2c"]))
    assert statuses(received) == [200]


@pytest.mark.parametrize("path", [b"/nothing", b"/predictions/echo"])
@pytest.mark.parametrize("method", [b"POST", b"DELETE"])
def test_a_body_is_not_taken_for_the_next_request(stack, method, path):
    first = method + b" " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(GET_INSIDE) + GET_INSIDE
    received = wire(stack, first + post(line=b"GET /ready HTTP/1.1"))
    refused = 405 if method == b"DELETE" and path != b"/nothing" else 404
    good = path == b"/predictions/echo" and method == b"POST"
    assert statuses(received)[-1] == 200
    assert statuses(received)[0] in ((200,) if good else (refused, 405))
    assert len(statuses(received)) == 2
    assert not [word for word in INSIDE if word in received]


@pytest.mark.parametrize("host", [b"evil.example", b"evil.example:99", b"[::1]", b"127.0.0.1:8081"])
def test_the_host_is_not_repeated_and_leads_nowhere_else(stack, host):
    for path in (b"/page", b"/page/", b"/predictions", b"/page/samples", b"/"):
        received = wire(stack, b"GET " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
        assert host not in received
        assert b"\nLocation:" not in received


@pytest.mark.parametrize("where", ["query", "header", "form", "name", "id"])
@pytest.mark.parametrize(
    "breaks", ["%0d%0aX-Injected:%201", "%E5%98%8D%E5%98%8AX-Injected:1", "\u560d\u560aX-Injected: 1"]
)
def test_nothing_a_client_says_becomes_a_header(service, where, breaks):
    """The handler quotes bad options in its errors, in bodies alone."""
    more = {
        "query": {"path": f"?classes={breaks}&explain=true"},
        "header": {"headers": {"X-Camserve-Classes": breaks.encode().decode("latin-1"), "X-Camserve-Explain": "true"}},
        "form": {"data": {"classes": breaks.replace("%0d%0a", "\r\n")}, "files": {"data": b"x"}},
        "name": {"path": f"/predictions/classifier{breaks}"},
        "id": {"headers": {"X-Request-Id": breaks.encode().decode("latin-1")}},
    }[where]
    reply = service.ask(**more)
    assert reply.status in (200, 400, 404)
    assert not [name for name in reply.headers if "inject" in name.lower()]
    assert not [value for value in reply.headers.values() if "inject" in value.lower()]


@pytest.mark.parametrize("path", ["?topk=1&topk=2", "?topk=1&TOPK=2", "?explain=false&explain=true"])
def test_an_option_given_twice_is_refused(service, path):
    assert service.ask(path).error[:2] == (400, "InvalidOption")


# Tokens


@pytest.mark.parametrize(
    ("method", "path"), [("POST", SECRET), ("GET", "/ping"), ("GET", "/ready"), ("PUT", "/echo/predict")]
)
def test_without_the_right_token_nothing_is_answered(guarded, method, path):
    key = keys(guarded)["inference"]["key"]
    wrong = [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Basic {key}",
        key,
        f"Bearer {key}x",
        f"Bearer {key} {key}",
    ]
    wrong += [f"Bearer {keys(guarded)[other]['key']}" for other in ("management", "API")]
    for value in wrong:
        answer = ask(guarded, method, path, headers={} if value is None else {"Authorization": value}, data=b"1")
        assert answer.status_code == 401, (value, answer.text)
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.json()["type"] == "Unauthorized"
        assert key not in answer.text
    assert ask(guarded, method, path, headers=bearer(guarded), data=b"1").status_code == 200


def test_the_right_token_gets_in_by_every_kind_of_body(guarded):
    headers = bearer(guarded)
    assert ask(guarded, headers=headers, data=b"123").json()["length"] == 3
    assert ask(guarded, headers=headers, data=iter([b"12", b"34"])).json()["length"] == 4
    form = ask(guarded, headers=headers, files={"data": b"12345"}).json()
    assert form["headers"]["x-camserve-form"].startswith("multipart/form-data; boundary=")
    assert ask(guarded, "GET", "/ready/echo", headers=headers).status_code == 200
    assert ask(guarded, headers={"Authorization": headers["Authorization"].replace(" ", "  ")}).status_code == 200


def test_a_chunked_upload_without_a_token_is_refused(guarded):
    assert ask(guarded, data=iter([b"12", b"34"])).status_code == 401


def test_two_tokens_are_one_too_many(guarded):
    token = bearer(guarded)["Authorization"].encode()
    with secured(guarded) as connection:
        connection.sendall(post(headers=[b"Authorization: Bearer x", b"Authorization: " + token, b"Content-Length: 0"]))
        assert statuses(connection.recv(65536)) == [400]


def test_a_body_is_not_read_before_the_token(guarded):
    with secured(guarded) as connection:
        connection.sendall(b"POST /predictions/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n")
        assert statuses(connection.recv(65536)) == [401]


def test_the_handlers_own_400_stays_what_it_is(guarded):
    answer = ask(guarded, headers=bearer(guarded), data=json.dumps({"wish": 1, "status": 400}))
    assert answer.status_code == 400
    assert answer.json() == {"code": 400, "type": "Wished", "message": "from the handler"}
    assert "WWW-Authenticate" not in answer.headers


def test_what_needs_no_token(guarded):
    """The page's files, a preflight of the allowed origin, and being told that there is nothing."""
    origin = {"Origin": "https://inspector.example", "Access-Control-Request-Headers": "authorization"}
    assert ask(guarded, "OPTIONS", headers=origin).status_code == 204
    assert ask(guarded, "GET", "/page/gateway.json").status_code == 200
    assert ask(guarded, "GET", "/nothing").status_code == 404
    assert ask(guarded, headers=origin).headers["Access-Control-Allow-Origin"] == origin["Origin"]


def test_the_keys_are_for_their_owner_alone(guarded):
    file = guarded.entrance.tokens
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_no_key_is_in_a_log(guarded):
    ask(guarded, headers=bearer(guarded), data=b"1")
    ask(guarded, headers={"Authorization": f"Bearer {keys(guarded)['management']['key']}"}, data=b"1")
    logs = [file for file in guarded.logs.rglob("*") if file.is_file()]
    assert len(logs) > 3
    for kind in ("inference", "management", "API"):
        assert not [file for file in logs if keys(guarded)[kind]["key"].encode() in file.read_bytes()]


def test_the_terminal_tells_where_the_keys_are_and_not_what(guarded):
    said = commands.summary(guarded, {"predictions": []}, Path("cat.jpg"), "overlay.jpg")
    assert f"Authorization: Bearer $(jq -r .inference.key {guarded.entrance.tokens})" in said
    assert f"'{guarded.url}/predictions/echo?explain=true'" in said
    assert keys(guarded)["inference"]["key"] not in said


def test_a_new_key_ends_the_old_one(guarded):
    old = bearer(guarded)
    url = f"http://127.0.0.1:{guarded.ports.management}/token?type=inference"
    assert requests.get(url, headers=old, timeout=9).status_code == 400
    assert requests.get(url, headers=bearer(guarded, "API"), timeout=9).status_code == 200
    assert ask(guarded, headers=old).status_code == 401
    assert ask(guarded, headers=bearer(guarded)).status_code == 200
    assert guarded.entrance.tokens.stat().st_mode & 0o777 == 0o600


def ping(stack):
    try:
        return stack.entrance.ask("GET", "/ping", None, 5)[0]
    except OSError:
        return None


def test_an_expired_key_is_a_401_and_keys_go_with_the_service(archives, tmp_path):
    with echo_stack(archives, tmp_path / "state", CAMSERVE_TOKENS="true", TS_TOKEN_EXPIRATION_TIME_MIN="0") as stack:
        deadline = time.monotonic() + 60
        while (status := ping(stack)) in (None, 503) and time.monotonic() < deadline:
            time.sleep(0.3)
        assert stack.entrance.tokens.exists()
        assert status == 401
        assert stack.entrance.ask("POST", SECRET, b"1", 5)[0] == 401
    assert not stack.entrance.tokens.parent.exists()


def test_without_tokens_none_is_asked_for(stack):
    assert requests.post(stack.url + SECRET, data=b"1", timeout=9).status_code == 200
    assert requests.post(stack.url + SECRET, data=b"1", headers={"Authorization": "Bearer x"}, timeout=9).ok
    assert not list((stack.state / "keys").iterdir())


# TLS


@contextmanager
def secured(stack):
    """A connection by TLS, as raw as it gets."""
    context = ssl.create_default_context(cafile=stack.entrance.certificate)
    with (
        socket.create_connection(("127.0.0.1", stack.ports.gateway), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        yield connection


def test_the_address_is_that_of_the_certificate(guarded):
    assert guarded.url == f"https://localhost:{guarded.ports.gateway}"
    with secured(guarded) as connection:
        assert connection.version() == "TLSv1.3"


@pytest.mark.parametrize(
    ("version", "works"), [("-tls1_3", True), ("-tls1_2", True), ("-tls1_1", False), ("-tls1", False)]
)
def test_old_versions_of_tls_are_not_spoken(guarded, version, works):
    command = ["openssl", "s_client", version, "-connect", f"127.0.0.1:{guarded.ports.gateway}"]
    if not works:
        command += ["-cipher", "DEFAULT@SECLEVEL=0"]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=20, check=False)
    assert (b"alert protocol version" in done.stderr) == (not works)
    assert (done.returncode == 0) == works


def test_a_weak_cipher_is_not_spoken(guarded):
    address = f"127.0.0.1:{guarded.ports.gateway}"
    command = ["openssl", "s_client", "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256", "-connect", address]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=20, check=False)
    assert b"handshake failure" in done.stderr


def test_plain_http_is_told_to_use_tls(guarded):
    answer = requests.post(f"http://localhost:{guarded.ports.gateway}{SECRET}", data=b"1", timeout=9)
    assert answer.status_code == 400
    assert answer.json()["type"] == "TlsNeeded"


def test_browsers_are_told_to_come_by_tls_only(guarded, stack):
    hosts = {"example.org": "max-age=31536000", "localhost": None}
    for host, expected in hosts.items():
        for path in ("/ping", "/nothing", "/page/page.js"):
            answer = ask(guarded, "GET", path, headers={**bearer(guarded), "Host": host})
            assert answer.headers.get("Strict-Transport-Security") == expected, (host, path)
    assert (
        "Strict-Transport-Security" not in requests.get(stack.url, headers={"Host": "example.org"}, timeout=9).headers
    )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"CAMSERVE_HOST": "localhost"},
            "TLS needs CAMSERVE_HOST, CAMSERVE_TLS_CERTIFICATE, CAMSERVE_TLS_KEY together",
        ),
        (
            {"CAMSERVE_TLS_KEY": "PEM.key"},
            "TLS needs CAMSERVE_HOST, CAMSERVE_TLS_CERTIFICATE, CAMSERVE_TLS_KEY together",
        ),
        ({"CAMSERVE_HOST": "a b"}, "CAMSERVE_HOST is 'a b': expected a host name"),
        ({"CAMSERVE_TLS_KEY": "OTHER.key"}, "cannot be used for TLS \\(KEY_VALUES_MISMATCH\\)"),
        ({"CAMSERVE_TLS_CERTIFICATE": "/nowhere.pem"}, "/nowhere.pem and .* cannot be used for TLS \\(No such file"),
        ({"CAMSERVE_TOKENS": "yes"}, "CAMSERVE_TOKENS is 'yes': expected true or false"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(certificate, settings, sentence, tmp_path):
    pem, key = certificate()
    other = certificate("other.example")[1]
    names = {"PEM.key": str(key), "OTHER.key": str(other)}
    whole = {"CAMSERVE_HOST": "localhost", "CAMSERVE_TLS_CERTIFICATE": str(pem), "CAMSERVE_TLS_KEY": str(key)}
    given = {name: names.get(value, value) for name, value in settings.items()}
    alone = "together" in sentence
    with pytest.raises(StackError, match=sentence):
        Entrance.from_environment(given if alone else {**whole, **given}, 1, tmp_path)


@pytest.mark.parametrize(
    ("name", "days", "reason"), [("other.example", "2", "not valid for 'localhost'"), ("localhost", "-1", "expired")]
)
def test_a_certificate_that_clients_would_refuse_ends_the_start(archives, certificate, tmp_path, name, days, reason):
    pem, key = certificate(name, days)
    settings = {"CAMSERVE_HOST": "localhost", "CAMSERVE_TLS_CERTIFICATE": str(pem), "CAMSERVE_TLS_KEY": str(key)}
    with (
        echo_stack(archives, tmp_path / "state", **settings) as stack,
        pytest.raises(StackError, match=f"Clients would refuse .*{reason}"),
    ):
        stack.wait_ready(30)


# Archives


class Trap:
    """Leaves a file where it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def scripted():
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(hostile_network.Tiny().eval(), torch.zeros(1, 3, 32, 32)), buffer)
    return buffer.getvalue()


DANGEROUS = {
    "a pickle that runs code": lambda marker: pickle.dumps(Trap(marker), protocol=2),
    "torch's form of one": lambda marker: saved(Trap(marker)),
    "one within a state dict": lambda marker: saved({"head.weight": torch.zeros(3, 4), "extra": Trap(marker)}),
    "a whole network": lambda marker: saved(hostile_network.Tiny()),
    "TorchScript": lambda marker: scripted(),
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A good archive of a tiny network."""
    folder = tmp_path_factory.mktemp("packed")
    (folder / "labels.txt").write_text("one\ntwo\nthree\n")
    recipe = Recipe(
        "tiny",
        f"{hostile_network.__file__}:Tiny",
        "none",
        folder / "labels.txt",
        Preprocessing(resize=36, crop=32),
        server={"minWorkers": 1, "maxWorkers": 1, "startupTimeout": 120},
    )
    return build(recipe, folder / "store")


@pytest.fixture
def changed(packed, tmp_path):
    """changed(name, content): a copy of it with another file in it."""

    def change(name, content):
        (tmp_path / "store").mkdir()
        copy = tmp_path / "store" / "tiny.mar"
        shutil.copy(packed, copy)
        put(copy, name, content)
        return copy

    return change


def test_the_archive_is_good_as_it_is(packed):
    with opened(Recipe("tiny", str(packed))) as pipeline:
        assert pipeline.card.name == "tiny"


@pytest.mark.parametrize("kind", DANGEROUS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch on TorchScript
def test_an_archive_that_could_run_code_is_refused(changed, tmp_path, kind):
    archive = changed("weights.pt", DANGEROUS[kind](tmp_path / "ran"))
    refused = pytest.raises(SetupError, match=r"^weights\.pt is not a plain state dict: save it with torch\.save")
    with refused, opened(Recipe("tiny", str(archive))):
        pass
    assert not (tmp_path / "ran").exists()


def test_the_service_refuses_it_in_one_sentence_and_runs_nothing(changed, tmp_path):
    changed("weights.pt", saved(Trap(tmp_path / "ran")))
    stack = Stack(tmp_path / "store", "tiny", "tiny.mar", Ports.free(), CONFIG, tmp_path / "state")
    with stack, pytest.raises(StackError, match=r"^The model did not load: weights\.pt is not a plain state dict"):
        stack.wait_ready(120)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../../outside", "/tmp/camserve-outside", "..\\outside", "model/../../outside"])
def test_an_archive_that_writes_outside_its_folder_is_refused(changed, tmp_path, name):
    archive = changed(name, b"1")
    with pytest.raises(StackError, match="outside of the model's folder"):
        Stack(archive.parent, "tiny", "tiny.mar", Ports.free(), CONFIG, tmp_path / "state").start()
    before = {file for file in tmp_path.rglob("*") if file.is_file()}
    with opened(Recipe("tiny", str(archive))):
        assert {file for file in tmp_path.rglob("*") if file.is_file()} == before
    assert not Path("/tmp/camserve-outside").exists()

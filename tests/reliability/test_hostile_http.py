"""Hostile requests over HTTP, through the real gateway and the real TorchServe: no 5xx, and the worker lives on."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from urllib.parse import quote

import pytest
import requests
from hostile_network import Tiny
from mutation import costly, mutated, real
from service import Reply, Service, serving
from traffic import Ask, Traffic

from camserve.archive import Recipe, build
from camserve.settings import Preprocessing
from pictures import encoded, quarters

pytestmark = pytest.mark.live

SHORT, LONG = 300, 2_000
BODY = 1024 * 1024
"""The gateway's limit here, in bytes."""
SLACK = 64 * 1024
"""TorchServe's limit is so much above it, as in config.properties."""
RIGHT = {200, 400, 404, 413, 414, 415, 422, 431}
VALUES = (
    "true",
    "auto",
    "top:3",
    "9" * 40,
    "\0",
    "\r\nX-Evil: 1",
    "<b>",
    "%00",
    "nan",
    "🐈",
    "x" * 2_001,
    "",
)
NAMES = ("explain", "topk", "classes", "layer", "maps", "crop", "opacity", "method", "colour", "data", "")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Iterator[Service]:
    """A tiny network, one worker, bodies of at most 1 MiB."""
    folder = tmp_path_factory.mktemp("tiny")
    labels = folder / "labels.txt"
    labels.write_text("one\ntwo\nthree\n")
    network = f"{Path(__file__).parents[1] / 'live' / 'hostile_network.py'}:{Tiny.__name__}"
    server = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 8, "maxBatchDelay": 1, "jobQueueSize": 64}
    server |= {"responseTimeout": 60, "startupTimeout": 120}
    build(Recipe("tiny", network, "none", labels, Preprocessing(resize=36, crop=32), server=server), folder / "store")
    limits = {"CAMSERVE_MAX_BODY": "1m", "TS_MAX_REQUEST_SIZE": str(BODY + SLACK)}
    with serving(folder, "tiny", **limits) as stack:
        yield Service(stack)


def workers(service: Service) -> list[str]:
    url = f"http://127.0.0.1:{service.stack.ports.management}/models/tiny"
    return [worker["pid"] for worker in requests.get(url, timeout=30).json()[0]["workers"]]


def right(reply: Reply) -> None:
    """The status is one of a client's mistake, or good, and the JSON what the contract says."""
    assert reply.status in RIGHT, f"{reply.status} {reply.body[:300]!r}"
    assert "X-Evil" not in reply.headers
    if reply.headers["content-type"] == "application/json":
        answer = reply.json
        assert answer.get("code", reply.status) == reply.status


def good(reply: Reply) -> None:
    assert reply.status == 200
    assert [entry["class_id"] for entry in reply.json["predictions"]] == GOOD


GOOD: list[int] = []
"""The honest picture's classes, most probable first."""


# --- the requests -------------------------------------------------------------------------------------------


def _picture(random: Random) -> bytes:
    whole = random.choice(list(real().values()))
    return mutated(whole, random) if random.random() < 0.8 else whole


def _query(random: Random) -> str:
    pairs = [f"{quote(random.choice(NAMES))}={quote(random.choice(VALUES))}" for _ in range(random.randint(0, 2))]
    return "?" + "&".join(pairs) if pairs and random.random() < 0.5 else ""


def _raw(random: Random) -> Ask:
    return Ask("/predictions/tiny" + _query(random), _picture(random), check=right, kind="raw")


def _json(random: Random) -> Ask:
    body = {"data": base64.b64encode(_picture(random)).decode(), random.choice(NAMES): random.choice(VALUES)}
    return Ask("/predictions/tiny", _broken(json.dumps(body).encode(), random), check=right, kind="JSON")


def _kserve(random: Random) -> Ask:
    instances = [{"b64": base64.b64encode(_picture(random)).decode()} for _ in range(random.randint(0, 9))]
    body = json.dumps({"instances": instances, "parameters": {"explain": random.choice(VALUES)}}).encode()
    return Ask("/v1/models/tiny:predict", _broken(body, random), check=right, kind="KServe")


def _form(random: Random) -> Ask:
    head = b'--b\r\nContent-Disposition: form-data; name="data"; filename="p"\r\nContent-Type: image/png\r\n\r\n'
    option = f'\r\n--b\r\nContent-Disposition: form-data; name="{random.choice(NAMES)}"\r\n\r\n'.encode()
    value = random.choice(VALUES).encode("utf-8", "replace")
    body = head + _picture(random) + option + value + b"\r\n--b--\r\n"
    kind = {"Content-Type": random.choice(("multipart/form-data; boundary=b",) * 6 + ("multipart/form-data",))}
    return Ask("/predictions/tiny", _broken(body, random), kind, right, "multipart")


def _headers(random: Random) -> Ask:
    given = {
        "X-Camserve-Layer": "caf\xe9",
        "X-Camserve-Topk": "9" * 30,
        "Accept": "image/jpeg, text/html",
        "X-Request-Start": "t=-1",
        "X-Request-Method": "GET",
        "describe": "True",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    chosen = random.sample(sorted(given), random.randint(1, 4))
    sent = {name: given[name].encode("latin-1") for name in chosen}
    return Ask("/predictions/tiny" + _query(random), _picture(random), sent, right, "headers")  # type: ignore[arg-type]


def _honest(_: Random) -> Ask:
    return Ask("/predictions/tiny", encoded(quarters()), check=good, kind="honest")


FORMS: tuple[Callable[[Random], Ask], ...] = (_raw, _raw, _json, _kserve, _form, _headers, _honest)


def _broken(body: bytes, random: Random) -> bytes:
    """One in three: a byte changed, or the end missing."""
    if random.random() < 0.67:
        return body
    at = random.randrange(len(body))
    return body[:at] if random.random() < 0.5 else body[:at] + random.randbytes(1) + body[at + 1 :]


# --- the tests ----------------------------------------------------------------------------------------------


def test_no_request_is_answered_with_5xx_or_stops_the_worker(tiny, long):
    random = Random(11)
    GOOD[:] = [entry["class_id"] for entry in tiny.ask(data=encoded(quarters())).json["predictions"]]
    before = workers(tiny)
    asks = [random.choice(FORMS)(random) for _ in range(LONG if long else SHORT)]
    with Traffic(tiny.gateway, asks, 8) as traffic:
        traffic.join()
    print(f"\nhostile HTTP: {dict(traffic.outcomes)}")
    wrong = [(one.ask.kind, one.fault, one.ask.headers, one.ask.body[-300:]) for one in traffic.seen if one.fault]
    assert not wrong, wrong[:3]
    assert len(traffic.seen) == len(asks)
    assert {"200", "400", "415", "422"} <= set(traffic.outcomes)
    assert workers(tiny) == before


def test_files_made_to_cost_do_not_stop_the_worker(tiny):
    before = workers(tiny)
    for name in ("a JPEG of 2,000 scans", "a BMP of runs", "a TIFF with a tile of 400 MB", "a PNG of 65535 x 65535"):
        made, status = costly()[name]
        assert tiny.ask(data=made()).status == status, name
    assert workers(tiny) == before


# --- the limit of a body ------------------------------------------------------------------------------------


def padded(size: int) -> bytes:
    """A picture of exactly so many bytes; what stands behind its end is not looked at."""
    picture = encoded(quarters())
    return picture + bytes(size - len(picture))


def pieces(body: bytes) -> Iterator[bytes]:
    """For a chunked upload."""
    return (body[at : at + 60_000] for at in range(0, len(body), 60_000))


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "chunked"])
def test_a_body_at_the_gateways_limit_and_one_past_it(tiny, chunked):
    fits, passes = padded(BODY), padded(BODY + 1)
    assert tiny.ask(data=pieces(fits) if chunked else fits).status == 200
    assert tiny.ask(data=pieces(passes) if chunked else passes).error == (
        413,
        "BodyTooLarge",
        "The body is larger than the limit of 1m: send a smaller picture.",
    )


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "chunked"])
def test_a_body_at_torchserves_limit_and_one_past_it(tiny, chunked):
    before = workers(tiny)
    fits, passes = padded(BODY + SLACK), padded(BODY + SLACK + 1)
    assert tiny.ask(data=pieces(fits) if chunked else fits, native=True).status == 200
    with suppress(requests.ConnectionError):  # it closes while the rest is on its way
        assert tiny.ask(data=pieces(passes) if chunked else passes, native=True).status == 413
    assert workers(tiny) == before


def test_the_documented_limits_of_a_body_fit_each_other():
    """TorchServe's own limit lies above the gateway's, so that the answer with a text comes first."""
    config = Path(__file__).parents[2] / "config"
    stated = dict(line.split("=", 1) for line in (config / "config.properties").read_text().splitlines() if "=" in line)
    assert int(stated["max_request_size"]) == 20 * 1024 * 1024 + SLACK

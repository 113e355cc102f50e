"""Every answer belongs to its own request, and an explanation leaves nothing behind.

Each picture carries a number of its own, which comes back from its predictions and from its maps (watermark.py).
"""

from __future__ import annotations

import io
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import requests
import watermark
from PIL import Image
from requests.models import RequestEncodingMixin
from service import Reply, Service, b64, grid
from traffic import Ask, Traffic
from watermark_network import BITS, GRADIENTS, HOOKS, TRAINING, WORKER

LONG, SHORT = 10_000, 320
"""Requests of the mixed traffic, for each number of workers."""

CLIENTS = 24
PATH = "/predictions/watermark"

READABLE = (
    *("method=cam", "method=gradcam", "method=hirescam", "method=xgradcam", "method=layercam", "method=gradcam%2B%2B"),
    *("method=ablationcam", "method=saliency", "method=guided_backprop", "method=scorecam&layer=cells"),
    *("method=gradcam&layer=cells", "method=hirescam&layer=cells", "method=layercam&layer=cells.1"),
    *("method=eigengradcam&layer=cells", "method=guided_gradcam&layer=cells", "polarity=both", "polarity=negative"),
    *("verify=true", "channels=3", "explain=auto"),
)
"""Options whose maps show the whole number."""

OTHERS = ("method=eigencam", "method=deconvnet", "method=scorecam", f"contrast={BITS}", "contrast=runner_up")
"""Options whose maps do not; they are there for what they might do to their neighbours."""


# --- what is asked, and what has to come back --------------------------------------------------------------------


class Told:
    """What the answers said of themselves: status and whether explained, by the request's id."""

    def __init__(self) -> None:
        self.by_id: dict[str, tuple[int, bool]] = {}
        self.batches: set[int] = set()
        self._lock = threading.Lock()

    def note(self, reply: Reply, explained: bool) -> None:
        """An answer; its id is new."""
        own = reply.headers["x-request-id"]
        with self._lock:
            assert own not in self.by_id, f"two answers have the id {own}"
            self.by_id[own] = reply.status, explained


def check_single(told: Told, reply: Reply, number: int, maps: Callable[[Mapping[str, Any]], None] | None) -> None:
    """The prediction is the number's, and so is what `maps` reads from each explained class."""
    assert reply.status == 200, reply.body[:300]
    answer = reply.json
    told.note(reply, maps is not None)
    told.batches.add(answer["batch_size"])
    assert answer["request_id"] == reply.headers["x-request-id"]
    check_answer(answer, answer.get("explanation"), number, maps)


def check_answer(
    answer: Mapping[str, Any], explanation: Any, number: int, maps: Callable[[Mapping[str, Any]], None] | None
) -> None:
    read = watermark.read(answer["predictions"])
    assert read == number, f"asked for {number}, predicted {read}"
    assert (explanation is not None) == (maps is not None), "explained, or not, other than asked"
    if maps:
        assert explanation["status"] == "ok"
        for entry in explanation["classes"]:
            maps(entry)


def in_grid(number: int) -> Callable[[Mapping[str, Any]], None]:
    def check(entry: Mapping[str, Any]) -> None:
        read = watermark.read_map(entry)
        assert read == number, f"asked for {number}, the map shows {read}"

    return check


def exact(number: int, class_ids: tuple[int, ...]) -> Callable[[Mapping[str, Any]], None]:
    """The very numbers of the map, of the classes asked for and in their order."""
    due = iter(class_ids)

    def check(entry: Mapping[str, Any]) -> None:
        assert entry["class_id"] == next(due)
        expected = watermark.weights(number, entry["class_id"])
        np.testing.assert_array_equal(grid(entry), expected * expected.size)

    return check


def in_pictures(number: int, class_id: int) -> Callable[[Mapping[str, Any]], None]:
    """Heatmap, overlay and regions; the strongest region is the class's own cell."""

    def check(entry: Mapping[str, Any]) -> None:
        for name in ("heatmap", "overlay"):
            read = watermark.read_picture(entry[name])
            assert read == number, f"asked for {number}, the {name} shows {read}"
        row, column = watermark.own_cell(number, class_id)
        assert entry["regions"][0]["box"] == [8 * column, 8 * row, 8 * column + 8, 8 * row + 8]

    return check


def nothing(_: Mapping[str, Any]) -> None:
    """A map that shows no number."""


Kind = Callable[[Told, int, Iterator[int]], Ask]


def single(
    name: str, query: str, told: Told, number: int, picture: bytes, maps: Callable[[Mapping[str, Any]], None] | None
) -> Ask:
    """A picture as the raw body."""
    path = f"{PATH}?topk=20{query and '&'}{query}"
    return Ask(path, picture, {}, lambda reply: check_single(told, reply, number, maps), name)


def plain(told: Told, number: int, _: Iterator[int]) -> Ask:
    formats = ("PNG", "BMP", "WEBP", "TIFF", "GIF")
    return single("plain", "", told, number, watermark.encoded(watermark.drawn(number), formats[number % 5]), None)


def larger(told: Told, number: int, _: Iterator[int]) -> Ask:
    return single("plain", "", told, number, watermark.encoded(watermark.drawn(number, 12 + number % 13)), None)


def form(told: Told, number: int, _: Iterator[int]) -> Ask:
    fields = {"topk": "20", "explain": "true", "maps": "grid", "classes": str(number % BITS)}
    picture = {"data": ("picture.png", watermark.encoded(watermark.drawn(number)), "image/png")}
    body, kind = RequestEncodingMixin._encode_files(picture, fields)
    maps = exact(number, (number % BITS,))
    return Ask(PATH, body, {"Content-Type": kind}, lambda reply: check_single(told, reply, number, maps), "form")


def as_json(told: Told, number: int, _: Iterator[int]) -> Ask:
    body = {"data": b64(watermark.encoded(watermark.drawn(number))), "topk": 20}
    head = {"Content-Type": "application/json"}
    return Ask(PATH, json.dumps(body).encode(), head, lambda reply: check_single(told, reply, number, None), "json")


def classes(told: Told, number: int, _: Iterator[int]) -> Ask:
    ids = tuple((number + step) % BITS for step in (3, 0, 7))
    query = f"explain=true&maps=grid&classes={','.join(map(str, ids))}"
    picture = watermark.encoded(watermark.drawn(number))
    return single("explained", query, told, number, picture, exact(number, ids))


def method(told: Told, number: int, _: Iterator[int]) -> Ask:
    options = READABLE[number % len(READABLE)]
    query = f"explain=true&maps=grid&{options}".replace("explain=true&maps=grid&explain", "maps=grid&explain")
    return single("method", query, told, number, watermark.encoded(watermark.drawn(number)), in_grid(number))


def other(told: Told, number: int, _: Iterator[int]) -> Ask:
    query = f"explain=true&maps=grid,overlay&{OTHERS[number % len(OTHERS)]}"
    query = query.replace("runner_up", f"runner_up&classes={BITS}")
    return single("method", query, told, number, watermark.encoded(watermark.drawn(number)), nothing)


def pictures(told: Told, number: int, _: Iterator[int]) -> Ask:
    class_id = number % BITS
    query = f"explain=true&maps=heatmap,overlay,regions&colormap=bone&opacity=1&classes={class_id}"
    maps = in_pictures(number, class_id)
    return single("pictures", query, told, number, watermark.encoded(watermark.drawn(number)), maps)


def crop(told: Told, number: int, more: Iterator[int]) -> Ask:
    picture = watermark.encoded(watermark.among(number, list(itertools.islice(more, 8))))
    query = f"explain=true&maps=grid&crop={watermark.MIDDLE}&classes={number % BITS}"
    return single("crop", query, told, number, picture, exact(number, (number % BITS,)))


def bare(told: Told, number: int, _: Iterator[int]) -> Ask:
    """A picture as the answer."""

    def check(reply: Reply) -> None:
        assert reply.status == 200, reply.body[:300]
        told.note(reply, True)
        read = watermark.read_shown(np.asarray(Image.open(io.BytesIO(reply.body))))
        assert read == number, f"asked for {number}, the picture shows {read}"

    picture = watermark.encoded(watermark.drawn(number))
    return Ask(f"{PATH}?colormap=bone&opacity=1&classes=0", picture, {"Accept": "image/png"}, check, "picture")


def instances(told: Told, number: int, more: Iterator[int]) -> Ask:
    """KServe: plain, explained, broken, and explained on a layer of its own."""
    second, third = next(more), next(more)
    first, *rest = [b64(watermark.encoded(watermark.drawn(n))) for n in (number, second, third)]
    maps = {"explain": True, "maps": "grid"}
    body = {
        "instances": [
            {"b64": first},
            {"b64": rest[0], **maps, "classes": [second % BITS]},
            {"b64": first[: len(first) // 2], **maps},
            {"b64": rest[1], **maps, "method": "layercam", "layer": "cells"},
        ],
        "parameters": {"topk": 20},
    }

    def check(reply: Reply) -> None:
        assert reply.status == 200, reply.body[:300]
        told.note(reply, True)
        own, explained = reply.json["predictions"], reply.json["explanations"]
        check_answer(own[0], explained[0], number, None)
        check_answer(own[1], explained[1], second, exact(second, (second % BITS,)))
        assert own[2]["error"]["type"] in ("Undecodable", "InvalidRequest")
        check_answer(own[3], explained[3], third, in_grid(third))
        assert {one["request_id"] for one in (own[0], own[1], own[3])} == {reply.headers["x-request-id"]}

    head = {"Content-Type": "application/json"}
    return Ask("/v1/models/watermark:predict", json.dumps(body).encode(), head, check, "kserve")


def refused(told: Told, query: str, body: bytes, status: int, type: str, word: str) -> Ask:
    def check(reply: Reply) -> None:
        code, name, message = reply.error
        assert (code, name) == (status, type)
        assert word in message, f"expected {word!r} in {message!r}"
        told.note(reply, False)

    return Ask(PATH + query, body, {}, check, "error")


def unknown(told: Told, number: int, _: Iterator[int]) -> Ask:
    """The message repeats what was asked, so it has the number too."""
    picture = watermark.encoded(watermark.drawn(number))
    return refused(told, f"?explain=true&n{number}=1", picture, 400, "InvalidOption", f"n{number}")


def outside(told: Told, number: int, _: Iterator[int]) -> Ask:
    picture = watermark.encoded(watermark.drawn(number))
    box = f"{number},0,16,16" if number > watermark.SIDE else "0,65,16,16"
    return refused(told, f"?explain=true&crop={box}", picture, 400, "InvalidOption", box)


def broken(told: Told, number: int, _: Iterator[int]) -> Ask:
    picture = watermark.encoded(watermark.drawn(number))
    return refused(told, "?explain=true", picture[: len(picture) // 2], 422, "Undecodable", "")


KINDS: tuple[Kind, ...] = (
    *(plain, classes, plain, method, form, pictures, plain, larger, method, as_json, crop, unknown),
    *(instances, plain, other, bare, broken, method, outside),
)


def asks(count: int, told: Told) -> Iterator[Ask]:
    """Requests of every kind, all with numbers of their own."""
    numbers = (step * 40_503 % 2**BITS for step in itertools.count(1))  # odd: no number comes twice
    for kind in itertools.islice(itertools.cycle(KINDS), count):
        yield kind(told, next(numbers), numbers)


# --- through the gateway, with one worker and with two -----------------------------------------------------------


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[Service]:
    with watermark.served(tmp_path_factory.mktemp("watermark"), workers=1) as stack:
        yield Service(stack)


@pytest.fixture(scope="module", params=[1, 2])
def crew(request, service) -> tuple[Service, int]:
    """The service, and how many workers it now has."""
    scale = {"min_worker": request.param, "max_worker": request.param, "synchronous": "true"}
    place = f"http://127.0.0.1:{service.stack.ports.management}/models/watermark"
    requests.put(place, params=scale, timeout=120).raise_for_status()
    return service, request.param


def white(service: Service) -> dict[int, float]:
    """What the network tells of itself."""
    reply = service.ask("?topk=20", data=watermark.encoded(watermark.WHITE))
    return {one["class_id"]: one["logit"] for one in reply.json["predictions"]}


def left_behind(service: Service, workers: int) -> dict[int, tuple[float, float, float]]:
    """Hooks, gradients and training flags of each worker, while none is explaining."""
    lit = 2 * BITS  # the white picture's own part of these logits
    found: dict[int, tuple[float, float, float]] = {}
    deadline = time.monotonic() + 60
    with ThreadPoolExecutor(4 * workers) as pool:
        while len(found) < workers:
            assert time.monotonic() < deadline, f"expected {workers} workers to answer, got {sorted(found)}"
            for told in pool.map(lambda _: white(service), range(4 * workers)):
                found[int(told[WORKER]) - lit] = (told[HOOKS] - lit, told[GRADIENTS] - lit, told[TRAINING] - lit)
    return found


def journal(service: Service) -> dict[str, tuple[int, bool]]:
    """Status and whether explained, by the request's id, as the workers logged them a moment after the answers."""
    time.sleep(0.5)
    lines: list[str] = []
    for file in sorted((service.stack.state / "logs").glob("request_log*.log")):
        lines += file.read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert len({line["request_id"] for line in found}) == len(found)
    return {line["request_id"]: (line["status"], line["explained"]) for line in found}


@pytest.mark.live
def test_every_answer_belongs_to_its_own_request(crew, long):
    service, workers = crew
    told = Told()
    with Traffic(service.gateway, asks(LONG if long else SHORT, told), CLIENTS) as traffic:
        traffic.join()
    faults = [f"{one.ask.kind}: {one.fault}" for one in traffic.seen if one.fault]
    assert not faults, f"{len(faults)} of {len(traffic.seen)}: {faults[:5]}"
    assert len(traffic.seen) == len(told.by_id) == (LONG if long else SHORT)
    assert max(told.batches) > 1, "no two requests shared a batch: nothing was tried"
    logged = journal(service)
    assert {own: logged.get(own) for own in told.by_id} == told.by_id
    assert set(left_behind(service, workers).values()) == {(0, 0, 0)}
    if long:
        print(
            f"\n{workers} workers: {len(traffic.seen)} requests, batches of {min(told.batches)} to {max(told.batches)}"
        )

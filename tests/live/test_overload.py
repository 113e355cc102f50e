"""Five times too many requests for the real TorchServe: predictions are answered, and explanations come back.

Six seconds of five times what it can explain; in `make chaos` a minute of five times what it can predict.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import requests
import slow_network
from footprint import Watch, processes
from prometheus_client.parser import text_string_to_metric_families
from service import Reply, Service, grid, serving

from camserve.archive import Recipe, build
from camserve.settings import Preprocessing
from pictures import encoded, noise

pytestmark = pytest.mark.live

BATCH, CLASSES, QUEUE = 2, 3, 32
PLAIN = "?topk=3"
EXPLAINED = f"{PLAIN}&explain=true&method=saliency&classes=top:{CLASSES}&maps=grid"
"""Saliency runs the network once more for each class."""

CAPACITY = BATCH / (slow_network.FORWARD * (1 + BATCH / 2 * CLASSES))
"""Requests a second that the one worker answers at most if half of each batch is explained."""

SECONDS, LONG = 6, 60
PLAIN_CAPACITY = BATCH / slow_network.FORWARD
"""The same if nothing is explained. It is less than five times the other: the queue becomes full."""

LONGEST_WAIT = (QUEUE + 2 * BATCH) / PLAIN_CAPACITY
"""Seconds that a prediction takes behind a full queue and a batch at work where nothing is explained; else four times
as many."""

GROWTH = {"workers": 300, "Java": 600, "gateway": 64}
"""MiB that these may take more under load than at rest; Java has a heap of 512."""

PICTURE = encoded(noise(40, 40))


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """One worker with the slow network, which sheds as it does unless it is told otherwise."""
    folder = tmp_path_factory.mktemp("slow")
    labels = folder / "labels.txt"
    labels.write_text("one\ntwo\nthree\n")
    server = {"minWorkers": 1, "maxWorkers": 1, "batchSize": BATCH, "maxBatchDelay": 1, "jobQueueSize": QUEUE}
    recipe = Recipe(
        "slow",
        f"{slow_network.__file__}:Slow",
        "none",
        labels,
        Preprocessing(resize=36, crop=32),
        server={**server, "responseTimeout": 20, "startupTimeout": 120},
        settings={"tape": False},  # which would not sleep
    )
    build(recipe, folder / "store")
    with serving(folder, "slow", CAMSERVE_SHED_AFTER_MS="200") as stack:
        yield Service(stack)


def ask(service: Service, path: str, **more: Any) -> Reply:
    return service.ask(path, data=PICTURE, **more)


def status(reply: Reply) -> str | None:
    return reply.json.get("explanation", {}).get("status")


def at_last_explained(request: Callable[[], Reply]) -> Reply:
    """The first answer that is explained; a machine that stands still for a moment may make one wait."""
    deadline = time.monotonic() + 60
    while status(reply := request()) != "ok":
        assert status(reply) == "shed"
        assert time.monotonic() < deadline, "explanations do not come back"
    return reply


def median_wait(service: Service) -> float:
    """Seconds that a plain request takes while no other is there."""

    def timed() -> float:
        began = time.perf_counter()
        assert ask(service, PLAIN).status == 200
        return time.perf_counter() - began

    return statistics.median(timed() for _ in range(9))


def overloaded(service: Service, rate: float, seconds: float) -> tuple[list[tuple[str, Reply]], list[float]]:
    """Path and answer of every request, in the order of the answers, and how many seconds each answer with 200 took.

    Nobody waits for an answer before sending the next.
    """
    answered: list[tuple[str, Reply]] = []
    waits: list[float] = []

    def client(path: str) -> None:
        began = time.perf_counter()
        reply = ask(service, path)
        if reply.status == 200:
            waits.append(time.perf_counter() - began)
        answered.append((path, reply))

    with ThreadPoolExecutor(96) as pool:  # more than the queue and a batch hold
        sent, began = [], time.perf_counter()
        for number in range(round(rate * seconds)):
            sent.append(pool.submit(client, (PLAIN, EXPLAINED)[number % 2]))
            time.sleep(max(0, began + number / rate - time.perf_counter()))
        for one in sent:
            one.result()
    return answered, waits


def shed_classes(service: Service) -> float:
    """What the metrics count as shed; the last batch is counted while its answers travel."""
    time.sleep(0.2)
    text = requests.get(f"http://127.0.0.1:{service.stack.ports.scrape}/metrics", timeout=10).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(
        sample.value
        for sample in samples
        if sample.name == "camserve_explanations_total" and sample.labels["status"] == "shed"
    )


def test_fivefold_overload_sheds_explanations_and_answers_predictions(slow, long):
    at_rest = at_last_explained(lambda: ask(slow, EXPLAINED))
    expected = {one["class_id"]: one["probability"] for one in at_rest.json["predictions"]}
    wait, before = median_wait(slow), shed_classes(slow)

    began = time.perf_counter()
    with Watch(processes(slow.stack)) as memory:
        answered, waits = overloaded(slow, *((5 * PLAIN_CAPACITY, LONG) if long else (5 * CAPACITY, SECONDS)))
    took = time.perf_counter() - began

    assert {reply.status for _, reply in answered} == {200, 503}
    for _, reply in answered:
        if reply.status == 503:
            assert reply.error[1] == "Unavailable"
            assert reply.headers["Retry-After"] == "1"
    assert {name: growth for name, growth in memory.growth.items() if growth > GROWTH[name]} == {}
    good = [(path, reply) for path, reply in answered if reply.status == 200]
    for _, reply in good:
        found = {one["class_id"]: one["probability"] for one in reply.json["predictions"]}
        assert found == pytest.approx(expected, abs=1e-5)
    became = [(path, status(reply)) for path, reply in good]
    assert {what for path, what in became if path == PLAIN} == {None}
    shed = sum(what == "shed" for path, what in became if path == EXPLAINED)
    explained = sum(what == "ok" for path, what in became if path == EXPLAINED)
    assert shed + explained == sum(path == EXPLAINED for path, _ in became)
    assert shed > explained, "of five times too many, most have to be given up"
    assert (PLAIN, None) in became[became.index((EXPLAINED, "shed")) :], "predictions go on while explanations are shed"
    assert statistics.median(waits) < 3 * LONGEST_WAIT, "predictions wait for predictions only"
    assert shed_classes(slow) - before == CLASSES * shed
    assert len(good) > PLAIN_CAPACITY * took / 4, "what is refused does not keep the worker from answering"

    again = at_last_explained(lambda: ask(slow, EXPLAINED))
    for one, other in zip(again.json["explanation"]["classes"], at_rest.json["explanation"]["classes"], strict=True):
        np.testing.assert_allclose(grid(one), grid(other), atol=1e-5)
    assert median_wait(slow) < 3 * wait + 0.2
    print(
        f"\n{len(answered)} requests in {took:.0f} s: {len(good)} answered, {explained} explained, {shed} shed,", end=""
    )
    print(f" median {statistics.median(waits):.2f} s;", end="")
    print(f" MiB more: { {name: round(growth) for name, growth in memory.growth.items()} }")


LATE = {"X-Request-Start": "t=" + str(int((time.time() - 600) * 1e3))}
"""A request that began ten minutes ago."""


def test_a_shed_picture_says_so_in_a_header(slow):
    path = "/models/slow/invoke"
    reply = ask(slow, path, native=True, headers={**LATE, "Accept": "image/jpeg"})
    assert reply.status == 200
    assert reply.headers["X-Camserve-Status"] == "shed"
    assert reply.json["explanation"] == {"status": "shed"}


def test_the_gateway_believes_no_client_about_the_wait(slow):
    assert status(at_last_explained(lambda: ask(slow, EXPLAINED, headers=LATE))) == "ok"


def test_past_the_gateway_nothing_is_shed(slow):
    path = f"/models/slow/invoke{EXPLAINED}"
    assert status(ask(slow, path, native=True, headers=LATE)) == "shed"
    assert status(ask(slow, path, native=True)) == "ok"

"""Five times too many requests for the real TorchServe: predictions are answered, and explanations come back."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import requests
import slow_network
from prometheus_client.parser import text_string_to_metric_families
from service import Reply, Service, grid, serving

from camserve.archive import Recipe, build
from camserve.settings import Preprocessing
from pictures import encoded, noise

pytestmark = pytest.mark.live

BATCH, CLASSES = 8, 3
PLAIN = "?topk=3"
EXPLAINED = f"{PLAIN}&explain=true&method=saliency&classes=top:{CLASSES}&maps=grid"
"""Saliency runs the network once more for each class."""

CAPACITY = BATCH / (slow_network.FORWARD * (1 + BATCH / 2 * CLASSES))
"""Requests a second that the one worker answers at most if half of each batch is explained."""

SECONDS = 6
PICTURE = encoded(noise(40, 40))


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """One worker with the slow network, which sheds as it does unless it is told otherwise."""
    folder = tmp_path_factory.mktemp("slow")
    labels = folder / "labels.txt"
    labels.write_text("one\ntwo\nthree\n")
    server = {"minWorkers": 1, "maxWorkers": 1, "batchSize": BATCH, "maxBatchDelay": 1, "jobQueueSize": 64}
    recipe = Recipe(
        "slow",
        f"{slow_network.__file__}:Slow",
        "none",
        labels,
        Preprocessing(resize=36, crop=32),
        server={**server, "responseTimeout": 20, "startupTimeout": 120},
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


def overloaded(service: Service) -> list[tuple[str, Reply]]:
    """Path and answer of every request, in the order of the answers; nobody waits for one before sending the next."""
    answered: list[tuple[str, Reply]] = []

    def client(path: str) -> None:
        answered.append((path, ask(service, path)))

    rate = 5 * CAPACITY
    with ThreadPoolExecutor(96) as pool:  # more than the queue and a batch hold
        sent = []
        for number in range(round(rate * SECONDS)):
            sent.append(pool.submit(client, (PLAIN, EXPLAINED)[number % 2]))
            time.sleep(1 / rate)
        for one in sent:
            one.result()
    return answered


def shed_classes(service: Service) -> float:
    """What the metrics count as shed."""
    text = requests.get(f"http://127.0.0.1:{service.stack.ports.scrape}/metrics", timeout=10).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(
        sample.value
        for sample in samples
        if sample.name == "camserve_explanations_total" and sample.labels["status"] == "shed"
    )


def test_fivefold_overload_sheds_explanations_and_answers_predictions(slow):
    at_rest = at_last_explained(lambda: ask(slow, EXPLAINED))
    expected = {one["class_id"]: one["probability"] for one in at_rest.json["predictions"]}
    before = shed_classes(slow)

    answered = overloaded(slow)

    assert {reply.status for _, reply in answered} <= {200, 503}  # test_gateway.py fills a queue for certain
    for _, reply in answered:
        if reply.status == 503:
            assert reply.error[1] == "Unavailable"
            assert reply.headers["Retry-After"] == "1"
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
    assert shed_classes(slow) - before == CLASSES * shed

    again = at_last_explained(lambda: ask(slow, EXPLAINED))
    for one, other in zip(again.json["explanation"]["classes"], at_rest.json["explanation"]["classes"], strict=True):
        np.testing.assert_allclose(grid(one), grid(other), atol=1e-5)


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

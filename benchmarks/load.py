"""Clients that cost little: many in a closed loop, requests at given times, and one client alone.

Every answer is checked; one that is not as it should be ends the measurement.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from itertools import cycle, islice
from typing import NamedTuple

EXPLAINED = b'"explanation":{"status":"ok"'
"""Stands in an answer of ours whose maps are there."""

_BATCH, _HEAD = re.compile(rb'"batch_size":(\d+)'), 200  # where it stands: within so many bytes
_TIMEOUT = 120.0  # seconds
_HEADERS = {"Content-Type": "application/octet-stream"}
_AT_ONCE = 64  # requests of an open loop; as many as a server's queue takes


class Target(NamedTuple):
    """What is asked on this machine, and what shows that an answer is good."""

    port: int
    path: str
    proof: bytes = b""
    status: int = 200


class Answer(NamedTuple):
    """How long it took, in seconds; whether there was an explanation; how many shared its batch, if it says so."""

    seconds: float
    explained: bool
    batch: int


class Load(NamedTuple):
    """Answers a second, and every answer."""

    rate: float
    answers: list[Answer]


class Client:
    """A connection that is kept open."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)

    def ask(self, target: Target, picture: bytes) -> Answer:
        """One request.

        Raises:
            RuntimeError: the answer is not what the target should give.
        """
        start = time.perf_counter()
        self._connection.request("POST", target.path, picture, _HEADERS)
        answer = self._connection.getresponse()
        body = answer.read()
        taken = time.perf_counter() - start
        if answer.status != target.status or target.proof not in body:
            raise RuntimeError(f"{target.path} on port {target.port} answered {answer.status}: {body[:300]!r}")
        batch = _BATCH.search(body, 0, _HEAD)
        return Answer(taken, EXPLAINED in body, int(batch[1]) if batch else 0)


def closed(target: Target, pictures: Sequence[bytes], clients: int, seconds: float) -> Load:
    """So many clients, each asking again as soon as it is answered.

    The rate is the sum of the clients' own, each up to its last answer: a batch that is cut off does not distort it.
    """
    start = time.perf_counter()

    def client(number: int) -> tuple[float, list[Answer]]:
        connection, answers = Client(target.port), []
        turn = islice(cycle(pictures), number, None)
        while time.perf_counter() < start + seconds:
            answers.append(connection.ask(target, next(turn)))
        return time.perf_counter() - start, answers

    with ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(client, range(clients)))
    rate = sum(len(answers) / taken for taken, answers in found)
    return Load(rate, [answer for _, answers in found for answer in answers])


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Seconds from the start at which requests come, at random (Poisson) and the same for the same seed."""
    chance, times, now = random.Random(seed), [], 0.0
    while (now := now + chance.expovariate(rate)) < seconds:
        times.append(now)
    return times


def open_loop(requests: Sequence[tuple[float, Target]], pictures: Sequence[bytes]) -> list[Answer]:
    """Requests sent when they are due, whatever became of earlier ones; each time counts from when it was due."""
    own = threading.local()
    start = time.perf_counter()

    def one(request: tuple[float, Target], picture: bytes) -> Answer:
        (due, target), client = request, getattr(own, "client", None)
        if client is None:
            client = own.client = Client(target.port)
        time.sleep(max(0.0, start + due - time.perf_counter()))
        answer = client.ask(target, picture)
        return answer._replace(seconds=time.perf_counter() - start - due)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(one, requests, islice(cycle(pictures), len(requests))))


def paired(
    one: Target, other: Target, pictures: Sequence[bytes], pairs: int, warm: int = 3
) -> list[tuple[float, float]]:
    """One client alone, asking both in turn with the same picture; which comes first changes with every pair.

    The first `warm` pairs do not count.
    """
    clients = {target: Client(target.port) for target in (one, other)}
    found = []
    for number, picture in enumerate(islice(cycle(pictures), pairs + warm)):
        order = (one, other) if number % 2 else (other, one)
        taken = {target: clients[target].ask(target, picture).seconds for target in order}
        found.append((taken[one], taken[other]))
    return found[warm:]

"""Five times too many requests, with and without shedding: what becomes of predictions, explanations and refusals.

    python benchmarks/overload.py [--seconds 10] [--rounds 2]

Two stacks with the embedded model stand side by side, one that sheds explanations and one that does not; the one that
is not asked is idle. How much can be answered with all explanations is measured with clients in a closed loop. Five
times that is then sent to each stack in turn, every other request to be explained, at fixed times whether or not
earlier ones are answered. Clients and servers share two cores.
"""

from __future__ import annotations

import argparse
import http.client
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import yaml
from tqdm import tqdm

import report
from camserve.archive import Recipe, build
from camserve.model import embedded
from camserve.settings import Settings
from camserve.stack import Ports, Stack
from contenders import CORES, prepare

ROOT = Path(__file__).parents[1]
CAT = (ROOT / "handler" / "camserve" / "page" / "samples" / "cat.jpg").read_bytes()
LIMIT = float(Settings.model_fields["shed_after_ms"].default)
TIMES = 5
"""What is sent, over what can be answered."""

CLIENTS, THREADS = 16, 160
"""In the closed loop: both workers' batches are full. In the overload: more than the queue and both batches hold."""

KINDS = {
    "an overlay": "?explain=true",
    "saliency maps of 5 classes": "?explain=true&method=saliency&classes=top:5",
}
"""Explanations that cost next to nothing, and such as cost many times the prediction."""


class Sent(NamedTuple):
    """One request: whether maps were asked for, how long it took from the time it was due, and what became of it."""

    explained: bool
    seconds: float
    status: int
    shed: bool


class Round(NamedTuple):
    """Requests that were sent together, and the seconds until the last was answered."""

    sent: Sequence[Sent]
    seconds: float


class Client:
    """Requests of one kind to one stack, from many threads that each keep a connection."""

    def __init__(self, stack: Stack, kind: str) -> None:
        self.port, self.path = stack.ports.gateway, f"/predictions/{stack.model}"
        self.options = KINDS[kind]
        self.own = threading.local()

    def ask(self, explained: bool, due: float) -> Sent:
        """Send one now; its time counts from when it was due, for its thread may have been late."""
        if not hasattr(self.own, "connection"):
            self.own.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        self.own.connection.request("POST", self.path + self.options * explained, CAT)
        answer = self.own.connection.getresponse()
        body = answer.read()
        return Sent(explained, time.monotonic() - due, answer.status, b'"explanation":{"status":"shed"' in body)


@contextmanager
def running(folder: Path, shed_after_ms: float) -> Iterator[Stack]:
    """The embedded model as `make serve` runs it on two cores, with this limit in milliseconds."""
    server = yaml.safe_load((ROOT / "config" / "model-config.yaml").read_text())
    threads = max(1, CORES // server["maxWorkers"])  # by itself a worker counts all processors of the machine
    settings = {**server.pop("camserve"), "shed_after_ms": shed_after_ms, "threads": threads}
    build(Recipe("bench", embedded.ARCHITECTURE, server=server, settings=settings), folder)
    stack = Stack(folder, "bench", "bench.mar", Ports.free(), ROOT / "config", folder / "state", os.environ)
    with stack:
        stack.wait_ready()
        yield stack


def unpaused(client: Client, clients: int, seconds: float, mixed: bool = True) -> Round:
    """So many clients that each send the next request when they have an answer, every other one explained if mixed."""
    begin = time.monotonic()

    def one(number: int) -> list[Sent]:
        sent: list[Sent] = []
        while (now := time.monotonic()) < begin + seconds:
            sent.append(client.ask(mixed and (number + len(sent)) % 2 == 1, now))
        return sent

    with ThreadPoolExecutor(clients) as pool:
        sent = [answer for answers in pool.map(one, range(clients)) for answer in answers]
    return Round(sent, time.monotonic() - begin)


def overloaded(client: Client, rate: float, seconds: float) -> Round:
    """So many requests a second, every other one explained, whether or not earlier ones are answered."""
    begin = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        futures = []
        for number in range(int(rate * seconds)):
            due = begin + number / rate
            time.sleep(max(0.0, due - time.monotonic()))
            futures.append(pool.submit(client.ask, number % 2 == 1, due))
        return Round([future.result() for future in futures], time.monotonic() - begin)


def measured(kind: str, stacks: Mapping[float, Stack], seconds: float, rounds: int) -> list[list[str]]:
    """The rows of one kind of explanation: each stack's rounds, which take turns."""
    clients = {limit: Client(stack, kind) for limit, stack in stacks.items()}
    for client in clients.values():
        unpaused(client, CLIENTS, 2)  # warm
    sent, took = unpaused(clients[0], CLIENTS, seconds)
    rate = TIMES * len(sent) / took
    found: dict[float, list[Round]] = {limit: [] for limit in stacks}
    for turn in range(rounds):
        for limit in sorted(stacks, reverse=turn % 2 == 1):
            found[limit].append(overloaded(clients[limit], rate, seconds))
    return [row(kind, limit, rate, found[limit]) for limit in stacks]


def row(kind: str, limit: float, rate: float, rounds: Sequence[Round]) -> list[str]:
    """What became of the requests that were sent to one stack.

    Raises:
        ValueError: one was answered with an error other than 503.
    """
    sent = [one for part in rounds for one in part.sent]
    if others := {one.status for one in sent} - {200, 503}:
        raise ValueError(f"Expected answers of status 200 and 503 only, got {sorted(others)}.")
    good = [one for one in sent if one.status == 200]
    plain = [one.seconds for one in good if not one.explained]
    asked = [one for one in good if one.explained]
    seconds = sum(part.seconds for part in rounds)
    return [
        kind,
        f"{limit:.0f} ms" if limit else "off",
        f"{rate:.0f}",
        f"{len(good) / seconds:.1f}",
        f"{sum(not one.shed for one in asked) / seconds:.1f}",
        f"{sum(one.shed for one in asked) / len(asked):.0%}",
        f"{1 - len(good) / len(sent):.0%}",
        f"{median(plain) * 1e3:.0f} ms",
        f"{quantiles(plain, n=100)[-1] * 1e3:.0f} ms",
    ]


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="of each stack, in turn (default: %(default)s)")
    options = parser.parse_args()
    prepare()
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder) / "off", 0) as off,
        running(Path(folder) / "on", LIMIT) as on,
    ):
        stacks = {0.0: off, LIMIT: on}
        rows = [
            line
            for kind in tqdm(KINDS, unit="kind")
            for line in measured(kind, stacks, options.seconds, options.rounds)
        ]
        rest = unpaused(Client(on, next(iter(KINDS))), 1, options.seconds, mixed=False).sent
    alone = [one.seconds for one in rest]
    head = ["explained ask for", "shedding", "sent/s", "answered/s", "with maps/s", "shed", "refused (503)"]
    table = report.table([*head, "plain, median", "plain, p99"], rows)
    print(table)
    report.write(
        "Overload",
        f"`python benchmarks/overload.py`: {TIMES} times as many requests as the embedded model can answer with all "
        "explanations, half of them to be explained, through the gateway with its queue of 64, a 451x300 JPEG each, "
        f"{options.rounds} times {options.seconds:.0f} s. Times are those of plain requests that were answered; one "
        f"client alone waits {median(alone) * 1e3:.0f} ms. Clients and servers share two cores. What is more than "
        f"even plain requests get through fills the queue, whatever is shed.\n\n{table}",
    )


if __name__ == "__main__":
    main()

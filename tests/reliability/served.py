"""`camserve serve` as a process of its own, as `make serve` has it, and what tests do to its parts."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import faulty_network
import numpy as np
import psutil
import requests
from service import CONFIG, Reply
from traffic import Ask, Seen, Traffic

from camserve.archive import Recipe, build
from camserve.settings import Preprocessing
from camserve.stack import Ports
from pictures import encoded

MODEL = "faulty"
PATIENCE = 240
"""Seconds until something must have happened, on however slow a machine."""

PACE = 0.02
"""Seconds between two requests of steady traffic."""

RESPONSE_TIMEOUT = 6
"""Seconds, model-config.yaml's responseTimeout; the gateway takes what takes less for a death and tries again."""

COLOURS = [encoded(np.full((40, 40, 3), shade, np.uint8)) for shade in np.eye(3, dtype=np.uint8) * 160 + 40]
DARK = encoded(np.full((40, 40, 3), (16, 0, 0), np.uint8))
"""Red, which the network takes a second for."""
WHITE = encoded(np.full((40, 40, 3), 255, np.uint8))
"""What the network hangs at."""
GREY = encoded(np.full((40, 40, 3), 128, np.uint8))
"""At the first of these the network breaks, for whatever it is given then; the next one is a picture like any other."""


def archive(store: Path, workers: int, version: str = "1.0", patience: int = 60, **settings: object) -> Path:
    """store/faulty.mar; for so many seconds TorchServe tries to start a worker again before it gives up."""
    store.mkdir(parents=True, exist_ok=True)
    labels = store / "labels.txt"
    labels.write_text("red\ngreen\nblue\n")
    server = {
        **{"minWorkers": workers, "maxWorkers": workers, "batchSize": 8, "maxBatchDelay": 1, "jobQueueSize": 64},
        **{"responseTimeout": RESPONSE_TIMEOUT, "startupTimeout": 120, "maxRetryTimeoutInSec": patience},
    }
    recipe = Recipe(
        MODEL,
        f"{faulty_network.__file__}:Faulty",
        "none",
        labels,
        Preprocessing(resize=36, crop=32, mean=(0, 0, 0), std=(1, 1, 1)),
        version,
        server,
        {"threads": 1, "shed_after_ms": 0, **settings},
    )
    return build(recipe, store)


@dataclass(frozen=True)
class Served:
    """A running `camserve serve`."""

    process: subprocess.Popen[bytes]
    ports: Ports
    state: Path
    console: Path

    @property
    def url(self) -> str:
        """The gateway."""
        return f"http://127.0.0.1:{self.ports.gateway}"

    @property
    def said(self) -> str:
        """What stands on its console."""
        return self.console.read_text(errors="replace")

    @property
    def launcher(self) -> psutil.Process:
        """Python, which started Java."""
        return self._noted(1)

    @property
    def gateway(self) -> psutil.Process:
        """nginx's master."""
        return self._noted(2)

    @property
    def java(self) -> psutil.Process:
        """TorchServe itself."""
        return next(process for process in self.launcher.children() if process.name() == "java")

    @property
    def workers(self) -> list[psutil.Process]:
        """TorchServe's."""
        return [process for process in self.java.children() if "model_service_worker" in _command(process)]

    def ready_workers(self) -> int:
        """As many as answer; 0 while TorchServe does not."""
        try:
            url = f"http://127.0.0.1:{self.ports.management}/models/{MODEL}"
            return sum(one["status"] == "READY" for one in requests.get(url, timeout=10).json()[0]["workers"])
        except (requests.RequestException, KeyError):
            return 0

    def wait_for(self, workers: int) -> None:
        """Until so many workers answer."""
        until(lambda: self.ready_workers() == workers)

    def ask(self, body: bytes, query: str = "") -> Reply:
        """One request."""
        answer = requests.post(f"{self.url}/predictions/{MODEL}{query}", data=body, timeout=PATIENCE)
        return Reply(answer.status_code, answer.headers, answer.content)

    def scrape(self) -> str:
        """The workers' metrics; the last batch is counted while its answers travel."""
        time.sleep(0.2)
        return requests.get(f"http://127.0.0.1:{self.ports.scrape}/metrics", timeout=10).text

    def counted(self) -> float:
        """Good requests, as Prometheus sees them."""
        lines = [line for line in self.scrape().splitlines() if line.startswith("camserve_requests_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines if 'outcome="ok"' in line)

    def _noted(self, place: int) -> psutil.Process:
        return psutil.Process(json.loads((self.state / "processes.json").read_text())["processes"][place][0])


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""  # it ended just now


@contextmanager
def served(store: Path, state: Path, **environment: str) -> Iterator[Served]:
    """`camserve serve` of store/faulty.mar, once it is ready."""
    state.mkdir(parents=True, exist_ok=True)
    ports, console = Ports.free(), state.parent / f"{state.name}.console"
    process = begun(store, state, ports, console, **environment)
    try:
        until(lambda: (state / "ready").exists() or process.poll() is not None)
        assert process.poll() is None, console.read_text()
        yield Served(process, ports, state, console)
    finally:
        process.terminate()
        process.wait(PATIENCE)


def begun(store: Path, state: Path, ports: Ports, console: Path, **environment: str) -> subprocess.Popen[bytes]:
    """The process, whatever becomes of it."""
    variables = {f"CAMSERVE_{name.upper()}_PORT": str(number) for name, number in vars(ports).items()}
    command = [
        *(sys.executable, "-m", "camserve.cli", "serve", f"--name={MODEL}", f"--store={store}"),
        *(f"--config={CONFIG}", f"--state={state}", f"--overlay={console.parent / 'overlay.jpg'}"),
    ]
    with console.open("wb") as output:
        return subprocess.Popen(
            command, env={**os.environ, **variables, **environment}, stdout=output, stderr=subprocess.STDOUT
        )


def until(done: Callable[[], Any], pause: float = 0.1) -> None:
    """Wait for it, looking every `pause` seconds."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(pause)


def steady(*queries: str) -> Iterator[Ask]:
    """Colours, at a steady pace: plain, explained, and with these queries too; a wrong answer is a fault."""
    ways = ["?topk=3", "?topk=3&explain=true&maps=grid", *queries]
    for number in itertools.count():
        time.sleep(PACE)
        colour = number % len(COLOURS)
        way = ways[number // len(COLOURS) % len(ways)]
        yield Ask(f"/predictions/{MODEL}{way}", COLOURS[colour], check=_answers(colour))


def _answers(colour: int) -> Callable[[Reply], None]:
    def check(reply: Reply) -> None:
        if reply.status in (503, 504):
            assert reply.error[1] == {503: "Unavailable", 504: "Timeout"}[reply.status]
            assert reply.headers["Retry-After"] == "1"
        else:
            assert reply.top == colour

    return check


@dataclass(frozen=True)
class Try:
    """What clients saw of a fault."""

    at: float
    """time.monotonic() of the fault."""
    seen: Sequence[Seen]

    @property
    def failed(self) -> list[Seen]:
        """Everything but 200 with the right answer."""
        return [one for one in self.seen if one.status != 200 or one.fault]

    @property
    def recovery(self) -> float:
        """Seconds from the fault to the last answer that failed, or came late."""
        late = [
            one for one in self.seen if one in self.failed or (one.sent + one.seconds > self.at and one.seconds > 1)
        ]
        return max((one.sent + one.seconds for one in late), default=self.at) - self.at


def under_load(
    service: Served, fault: Callable[[], Any], recovered: Callable[[], Any], asks: Iterator[Ask] | None = None
) -> Try:
    """The fault amid steady traffic, which goes on for a second after it recovered."""
    with Traffic(service.url, steady() if asks is None else asks, clients=4) as traffic:
        time.sleep(1)
        at = time.monotonic()
        fault()
        recovered()
        time.sleep(1)
    return Try(at, traffic.seen)


def report(what: str, tries: Sequence[Try]) -> None:
    """A line for docs/reliability.md."""
    requests_made = sum(len(one.seen) for one in tries)
    became = [one.fault or one.status for each in tries for one in each.failed]
    kinds = {str(kind): became.count(kind) for kind in became}
    seconds = [one.recovery for one in tries]
    print(
        f"\n{what}: {len(tries)} tries, {requests_made} requests, not answered 200: {kinds or 'none'}, "
        f"recovery {median(seconds):.1f} s (longest {max(seconds):.1f} s), "
        f"slowest good answer {max((s.seconds for t in tries for s in t.seen if s.status == 200), default=0):.1f} s"
    )

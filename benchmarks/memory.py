"""Whether a worker's memory grows: its size after many mixed requests, over that after the first thousand.

    python benchmarks/memory.py [--requests 20000] [--first 1000]

Eight clients ask the embedded model for plain and explained answers of several classes, kinds and methods, with JPEGs
and PNGs from 100x100 to 1600x1200, and now and then for something that is refused. The worker is looked at while
nothing runs, every 50 requests, and the median of ten looks is taken.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tqdm import tqdm

import meter
import report
from camserve.stack import Stack
from contenders import LITE, camserve, ours, prepare
from load import Client, Target
from photographs import photographs, told

CLIENTS = 8
STEP = 50  # requests between two looks
LOOKS = 10
"""Of these looks the median is taken: what the last few pictures left behind goes up and down by some percent."""

SIZES = ((100, 100), (224, 224), (500, 375), (375, 500), (1024, 768), (1600, 1200))
FORMATS = ("JPEG", "PNG")
PLAIN = ("", "?topk=1", "?topk=20", "?explain=false")
EXPLAINED = (
    "?explain=true",
    "?explain=true&classes=top:5",
    "?explain=true&classes=285,281,967&maps=overlay,heatmap,grid,regions",
    "?explain=true&maps=grid",
    "?explain=true&method=layercam&polarity=both",
    "?explain=true&method=eigencam&image_format=png",
    "?explain=true&contrast=runner_up&max_side=1024",
    "?explain=true&crop=10,10,80,80",
)
REFUSED = 0.02
"""Share of requests that are an error."""


class Request(NamedTuple):
    """What is sent, and where to."""

    target: Target
    picture: bytes


class Sender:
    """Sends requests from several threads, each with a connection of its own."""

    def __init__(self) -> None:
        self._own = threading.local()

    def __call__(self, request: Request) -> None:
        """Send one and check the status of its answer."""
        if not hasattr(self._own, "client"):
            self._own.client = Client(request.target.port)
        self._own.client.ask(*request)


def mixed(stack: Stack, seed: int = 0) -> Iterator[Request]:
    """Requests without an end, the same for the same seed."""
    chance = random.Random(seed)
    pictures = [picture for size in SIZES for format in FORMATS for picture in photographs(size, format)]
    wrong = (("?explain=perhaps", pictures[0], 400), ("", b"no picture at all", 415), ("", pictures[0][:999], 422))
    while True:
        if chance.random() < REFUSED:
            query, picture, status = chance.choice(wrong)
        else:
            query, picture, status = chance.choice(chance.choice((PLAIN, EXPLAINED))), chance.choice(pictures), 200
        # Maps may be empty, so only the status is held against what is expected.
        yield Request(ours(stack, query)._replace(proof=b"", status=status), picture)


def looks(stack: Stack, requests: int) -> list[int]:
    """Bytes that the worker holds, after every step; it has to be the same worker from first to last."""
    found, coming, worker = [], mixed(stack), meter.worker()
    with ThreadPoolExecutor(CLIENTS) as pool, tqdm(total=requests, unit="request") as progress:
        sender = Sender()
        while progress.n < requests:
            list(pool.map(sender, islice(coming, STEP)))
            found.append(worker.memory_info().rss)
            progress.update(STEP)
            progress.set_postfix(memory=f"{found[-1] / 1e6:.0f} MB")
    return found


def lines(found: list[int], first: int) -> list[list[str]]:
    """The table: sizes after the first requests, and after ten equal parts of all."""

    def size(requests: int) -> float:
        steps = -(-requests // STEP)
        return median(found[max(0, steps - LOOKS) : steps])

    whole = len(found) * STEP
    marks = [first, *(whole * part // 10 for part in range(1, 11) if whole * part // 10 > first)]
    return [[f"{mark:,}", f"{size(mark) / 1e6:.0f} MB", f"{size(mark) / size(first):.3f}"] for mark in marks]


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000, help="default: %(default)s")
    parser.add_argument("--first", type=int, default=1_000, help="compared with the last (default: %(default)s)")
    options = parser.parse_args()
    prepare()
    with tempfile.TemporaryDirectory() as folder, camserve(LITE, Path(folder), "worker") as stack:
        found = looks(stack, options.requests)
    head = ["requests", "resident", f"over that after {options.first:,}"]
    table = report.table(head, lines(found, options.first))
    print(table)
    report.write(
        "Serving: memory",
        f"`python benchmarks/memory.py`: one worker with {LITE}, {CLIENTS} clients, plain and explained requests of "
        f"{len(PLAIN) + len(EXPLAINED)} kinds with JPEGs and PNGs from {told(SIZES[0])} to {told(SIZES[-1])}, "
        f"{REFUSED:.0%} refused. Each size is the median of {LOOKS} looks, {STEP} requests apart, while nothing ran. "
        f"Asked: 0.98 to 1.02 at the end.\n\n{table}",
    )


if __name__ == "__main__":
    main()

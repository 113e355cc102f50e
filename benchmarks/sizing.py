"""Workers, threads, batch size and delay: requests a second and latency of the embedded model, through the gateway.

    python benchmarks/sizing.py [--seconds 8]

For each setting the real stack is started; clients in a closed loop ask for the sample picture, plain and explained in
turn, and then one client alone. The figures compare settings on one machine; set the defaults by your own.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import requests
from tqdm import tqdm

import report
from camserve.archive import Recipe, build
from camserve.model import embedded
from camserve.stack import Ports, Stack

ROOT = Path(__file__).parents[1]
CAT = (ROOT / "handler" / "camserve" / "page" / "samples" / "cat.jpg").read_bytes()
CLIENTS = 8


class Setting(NamedTuple):
    """One row of the table."""

    workers: int
    threads: int
    batch: int
    delay: int


SETTINGS = (
    Setting(2, 1, 8, 1),
    Setting(1, 2, 8, 1),
    Setting(2, 2, 8, 1),
    Setting(2, 1, 1, 1),
    Setting(2, 1, 8, 20),
)


@contextmanager
def running(setting: Setting, folder: Path) -> Iterator[str]:
    """The stack with a setting; gives the URL to ask."""
    server = {
        "minWorkers": setting.workers,
        "maxWorkers": setting.workers,
        "batchSize": setting.batch,
        "maxBatchDelay": setting.delay,
        "responseTimeout": 60,
        "jobQueueSize": 64,
    }
    recipe = Recipe(
        "bench", embedded.ARCHITECTURE, server=server, settings={"threads": setting.threads, "shed_after_ms": 0}
    )
    build(recipe, folder)
    stack = Stack(folder, "bench", "bench.mar", Ports.free(), ROOT / "config", folder / "state", os.environ)
    with stack:
        stack.wait_ready()
        yield f"{stack.url}/predictions/bench"


def latencies(url: str, clients: int, seconds: float) -> list[float]:
    """Seconds each answer took while so many clients asked without a pause."""
    end = time.monotonic() + seconds

    def client(_: int) -> list[float]:
        taken = []
        with requests.Session() as session:
            while (start := time.monotonic()) < end:
                session.post(url, CAT, timeout=60).raise_for_status()
                taken.append(time.monotonic() - start)
        return taken

    with ThreadPoolExecutor(clients) as pool:
        return [one for taken in pool.map(client, range(clients)) for one in taken]


def measured(setting: Setting, seconds: float) -> list[str]:
    """One row: rates with many clients, their 99th percentile, and the latency of one client alone."""
    with tempfile.TemporaryDirectory() as folder, running(setting, Path(folder)) as url:
        latencies(url, CLIENTS, seconds / 2)  # warm
        plain, explained = latencies(url, CLIENTS, seconds), latencies(f"{url}?explain=true", CLIENTS, seconds)
        alone = latencies(url, 1, seconds / 2)
    return [
        *map(str, setting),
        f"{len(plain) / seconds:.0f}",
        f"{len(explained) / seconds:.0f}",
        f"{quantiles(plain, n=100)[-1] * 1e3:.0f} ms",
        f"{median(alone) * 1e3:.0f} ms",
    ]


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement (default: %(default)s)")
    options = parser.parse_args()
    rows = [measured(setting, options.seconds) for setting in tqdm(SETTINGS, unit="setting")]
    head = ["workers", "threads", "batch", "delay (ms)", "plain/s", "explained/s", "plain p99", "one client, median"]
    print(report.table(head, rows))
    report.write(
        "Workers, threads, batches",
        f"`python benchmarks/sizing.py`: the embedded model behind the gateway, {CLIENTS} clients in a closed loop "
        f"with a 451x300 JPEG, {options.seconds:.0f} s each; clients and servers share the machine.\n\n"
        f"{report.table(head, rows)}",
    )


if __name__ == "__main__":
    main()

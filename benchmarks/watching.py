"""What metrics and the log cost, as a share of the time of the requests they tell of.

    python benchmarks/watching.py [--batches 30]

The embedded model answers batches of plain, and of explained, requests; the time spent recording them is taken in the
same run and set against the time of the answer. Metrics go to files, as in a worker, which writes them when the answers
have left.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tqdm import tqdm

import report
from camserve.archive import Recipe, opened
from camserve.model import embedded
from camserve.monitor import prepare, watch
from camserve.pipeline import Pipeline, Watcher
from camserve.records import Row
from camserve.response import Served

ROOT = Path(__file__).parents[1]
CAT = (ROOT / "handler" / "camserve" / "page" / "samples" / "cat.jpg").read_bytes()


class Timed:
    """Adds up what the watchers of a pipeline take."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self.watchers = watchers
        self.spent = 0.0

    def __call__(self, served: Sequence[Served], seconds: float) -> None:
        """Let all of them know, and count the time."""
        start = time.perf_counter()
        for one in self.watchers:
            one(served, seconds)
        self.spent += time.perf_counter() - start


def share(pipeline: Pipeline, timed: Timed, rows: Sequence[Row], batches: int) -> tuple[float, float]:
    """Microseconds a row, and the median share of the time of an answer, spent recording."""
    shares, spent = [], []
    pipeline.answer(rows)
    for _ in range(batches):
        timed.spent, start = 0.0, time.perf_counter()
        pipeline.answer(rows)
        whole = time.perf_counter() - start
        shares.append(timed.spent / whole)
        spent.append(timed.spent / len(rows) * 1e6)
    return median(spent), median(shares)


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=30, help="default: %(default)s")
    options = parser.parse_args()
    logging.basicConfig(stream=open(os.devnull, "w"), level=logging.INFO)  # noqa: SIM115  # open as long as we run
    lines = []
    with tempfile.TemporaryDirectory() as folder, opened(Recipe("classifier", embedded.ARCHITECTURE)) as pipeline:
        os.environ["PROMETHEUS_MULTIPROC_DIR"], os.environ["CAMSERVE_SCRAPE_PORT"] = folder, "0"
        pipeline.settings = pipeline.settings.model_copy(update={"scrape_port": 0})
        watch(pipeline, Path(folder), 1, prepare())
        log, metrics = pipeline.watchers
        pipeline.tell = lambda work: work()  # a worker has it done while the answers travel; here it is timed
        for watcher, name in ((metrics, "metrics"), (log, "log")):
            timed = Timed([watcher])
            pipeline.watchers[:] = [timed]
            for kind, fields in tqdm({"plain": {}, "explained": {"explain": b"true"}}.items(), unit="kind"):
                for size in (1, 8):
                    rows = [Row("bench", {"data": CAT, **fields}, {})] * size
                    spent, part = share(pipeline, timed, rows, options.batches)
                    lines.append([name, kind, str(size), f"{spent:.0f} µs", f"{part:.2%}"])
    table = report.table(["what", "requests", "batch", "a request", "of its time"], lines)
    print(table)
    report.write(
        "Metrics and log",
        "`python benchmarks/watching.py`: time spent recording requests to the embedded model, a 451x300 JPEG each, "
        f"medians of {options.batches} batches. A worker spends it when the answers have left.\n\n{table}",
    )


if __name__ == "__main__":
    main()

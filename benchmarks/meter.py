"""What a running camserve tells of itself: its metrics, and the memory of its workers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.request import urlopen

import psutil

from camserve.stack import Stack

STAGES = ("decode", "preprocess", "forward", "explain", "render", "encode", "total")
_SAMPLE = re.compile(r"^camserve_(stage_seconds|batch_rows)_(sum|count)\{(.*?)\} (\S+)$", re.MULTILINE)
_WORKER = "model_service_worker.py"

Sums = Mapping[tuple[str, str], float]
"""By stage (`rows` for the pictures of batches), and `sum` or `count`."""


def sums(stack: Stack) -> Sums:
    """Everything summed up since the start, in seconds or pictures."""
    with urlopen(f"http://127.0.0.1:{stack.ports.scrape}/metrics") as answer:
        text = answer.read().decode()
    found = {}
    for name, kind, labels, value in _SAMPLE.findall(text):
        stage = re.search(r'stage="(\w+)"', labels)
        found["rows" if name == "batch_rows" or stage is None else stage[1], kind] = float(value)
    return found


def added(before: Sums, after: Sums, total: Sums) -> Sums:
    """The total, and what came between two looks."""
    return {key: total.get(key, 0.0) + value - before.get(key, 0.0) for key, value in after.items()}


def average(total: Sums, stage: str) -> float:
    """The mean; zero where nothing was counted."""
    count = total.get((stage, "count"), 0.0)
    return total[stage, "sum"] / count if count else 0.0


def resident() -> int:
    """Bytes of memory that the workers, started by this process, hold."""
    started = psutil.Process().children(recursive=True)
    workers = [process for process in started if any(_WORKER in word for word in process.cmdline())]
    return sum(worker.memory_info().rss for worker in workers)

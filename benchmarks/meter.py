"""What a running camserve tells of itself: its metrics, and its worker's process."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.request import urlopen

import psutil

from camserve.stack import Stack

STAGES = ("decode", "preprocess", "forward", "explain", "render", "encode", "total")
SHARED = ("forward", "explain", "total")
"""Stages whose time, counted with each picture, is that of its whole batch."""

_SAMPLE = re.compile(r'^camserve_stage_seconds_(sum|count)\{.*stage="(\w+)".*\} (\S+)$', re.MULTILINE)
_WORKER = "model_service_worker.py"

Sums = Mapping[tuple[str, str], float]
"""Seconds by stage, each with `sum` and `count`."""


def sums(stack: Stack) -> Sums:
    """What all stages took since the start."""
    with urlopen(f"http://127.0.0.1:{stack.ports.scrape}/metrics") as answer:
        text = answer.read().decode()
    return {(stage, kind): float(value) for kind, stage, value in _SAMPLE.findall(text)}


def added(before: Sums, after: Sums, total: Sums) -> Sums:
    """The total, and what came between two looks."""
    return {key: total.get(key, 0.0) + value - before.get(key, 0.0) for key, value in after.items()}


def milliseconds(total: Sums, stage: str, batch: float) -> float:
    """The mean of a picture, or its share of a batch of that size; zero where nothing was counted."""
    count = total.get((stage, "count"), 0.0)
    mean = 1e3 * total[stage, "sum"] / count if count else 0.0
    return mean / batch if stage in SHARED else mean


def worker() -> psutil.Process:
    """The one worker of what this process started."""
    started = psutil.Process().children(recursive=True)
    (found,) = [process for process in started if any(_WORKER in word for word in process.cmdline())]
    return found

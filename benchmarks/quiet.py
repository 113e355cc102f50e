"""Turns that the host of a virtual machine leaves alone: what it takes away is no one's merit or fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import psutil

MOST_STOLEN = 0.01
"""Of the processors' time."""

TRIES = 6
TOLD = (
    f"A turn during which a virtual machine's host took more than {MOST_STOLEN:.0%} of the processors' time away was "
    f"repeated, up to {TRIES} times; then the least disturbed counts."
)
"""The same, for the text of a section."""

_Result = TypeVar("_Result")


def undisturbed(turn: Callable[[], _Result]) -> _Result:
    """What a turn gives that was left alone."""
    found = []
    for _ in range(TRIES):
        stolen, whole = _times()
        result = turn()
        after, end = _times()
        found.append(((after - stolen) / (end - whole), result))
        if found[-1][0] <= MOST_STOLEN:
            break
    return min(found, key=lambda one: one[0])[1]


def _times() -> tuple[float, float]:
    """Seconds that were stolen from all processors, and all their seconds; other systems tell of no theft."""
    times = psutil.cpu_times()
    return getattr(times, "steal", 0.0), sum(times)

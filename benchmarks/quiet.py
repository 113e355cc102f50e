"""Turns that the host of a virtual machine leaves alone: what it takes away is no one's merit or fault."""

from __future__ import annotations

import argparse
import time
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


class Quiet:
    """Runs turns when the host leaves the machine alone; waits for that, all turns together, so many minutes."""

    def __init__(self, patience: float) -> None:
        self.seconds = patience * 60

    @staticmethod
    def add_option(parser: argparse.ArgumentParser) -> None:
        """The option that says how many minutes."""
        parser.add_argument(
            "--patience",
            type=float,
            default=10,
            metavar="MINUTES",
            help="to wait, all in all, for the host of a virtual machine to leave it alone (default: %(default)s)",
        )

    def undisturbed(self, turn: Callable[[], _Result]) -> _Result:
        """What a turn gives that was left alone."""
        found = [_watched(turn)]
        while found[-1][0] > MOST_STOLEN and len(found) < TRIES:
            self._wait()
            found.append(_watched(turn))
        return min(found, key=lambda one: one[0])[1]

    def _wait(self) -> None:
        """Until a second passes of which the host takes nothing."""
        while self.seconds > 0 and _watched(lambda: time.sleep(1))[0] > MOST_STOLEN:
            self.seconds -= 1


def _watched(turn: Callable[[], _Result]) -> tuple[float, _Result]:
    """The share of the processors' time that the host took, and the turn's result."""
    stolen, whole = _times()
    result = turn()
    after, end = _times()
    return (after - stolen) / (end - whole), result


def _times() -> tuple[float, float]:
    """Seconds that were stolen from all processors, and all their seconds; other systems tell of no theft."""
    times = psutil.cpu_times()
    return getattr(times, "steal", 0.0), sum(times)

"""How long each stage of a row took, and when a batch has taken long enough."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Clock:
    """Milliseconds by stage, in the order of the stages; None where a stage's time is not known."""

    def __init__(self, milliseconds: Mapping[str, float | None] | None = None) -> None:
        self.milliseconds: dict[str, float | None] = dict(milliseconds or {})

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the block's wall time to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, (time.perf_counter() - start) * 1e3)

    def add(self, name: str, milliseconds: float) -> None:
        """Add time to a stage."""
        self.milliseconds[name] = (self.milliseconds.get(name) or 0.0) + milliseconds


class Deadline:
    """The time after which a batch's explanations are given up, so that they do not hold back its predictions."""

    def __init__(self, milliseconds: float = 0) -> None:
        """So many milliseconds from now; 0 is never."""
        self._end = time.perf_counter() + milliseconds / 1e3 if milliseconds else math.inf

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return time.perf_counter() >= self._end

"""Whether a batch comes too late to be explained: under load explanations are given up, predictions are not."""

from __future__ import annotations


class Shedding:
    """Told of every batch's oldest wait, it says whether the batch sheds its explanations.

    It begins when a wait passes the limit and ends when one falls below half of it. Were there one bound, a wait near
    it would have every other batch explained, each of which makes the next one late.
    """

    def __init__(self, limit_ms: float) -> None:
        """`limit_ms` is in milliseconds; 0 never sheds."""
        self._limit_ms = limit_ms
        self._late = False

    def sheds(self, oldest_ms: float | None) -> bool:
        """Whether a batch whose oldest row waited so many milliseconds is only predicted.

        None is a wait that is not known: the batch is explained. It tells nothing about the queue, so what was known
        of that stays.
        """
        if oldest_ms is None or not self._limit_ms:
            return False
        self._late = oldest_ms > self._limit_ms or (self._late and oldest_ms >= self._limit_ms / 2)
        return self._late

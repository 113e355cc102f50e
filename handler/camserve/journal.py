"""One line of JSON for each request, in the worker's log: what was asked, what came of it, where the time went.

Never a picture, a label or a text of a client's.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import Any

import orjson

from camserve.errors import RequestError
from camserve.response import Card, Outcome, Served, class_statuses

_log = logging.getLogger("camserve.requests")


class Journal:
    """Writes the lines of one model."""

    def __init__(self, card: Card, sample: float) -> None:
        """`sample` is the share of good requests that get a line; every request that fails gets one."""
        self._card = card
        self._sample = sample

    def write(self, batch: Sequence[Served], seconds: float) -> None:
        """A batch that was answered within `seconds`."""
        rows = sum(isinstance(one, Outcome) for served in batch for one in served.outcomes)
        for served in batch:
            good = served.answer.status < 400
            if served.kind != "describe" and not (good and random.random() >= self._sample):  # noqa: S311
                _log.log(logging.INFO if good else logging.WARNING, "%s", self._line(served, rows, seconds))

    def _line(self, served: Served, rows: int, seconds: float) -> str:
        entry: dict[str, Any] = {
            "request_id": served.request_id,
            "model": self._card.name,
            "version": self._card.version,
            "status": served.answer.status,
            "explained": served.explained,
            "batch_size": rows,
            "total_ms": round((served.queue_ms or 0) + seconds * 1e3, 1),
            "response_bytes": len(served.answer.body),
            "pictures": [_picture(one) for one in served.outcomes],
        }
        return orjson.dumps(entry).decode()


def _picture(one: Outcome | RequestError) -> dict[str, Any]:
    if isinstance(one, RequestError):
        return {"error": one.type}
    entry: dict[str, Any] = {
        "width": one.prepared.width,
        "height": one.prepared.height,
        "ms": {stage: ms if ms is None else round(ms, 1) for stage, ms in one.timing.items()},
    }
    if one.verdict.trigger is not None:
        entry["trigger"] = one.verdict.trigger
        entry["method"] = one.task.method
        entry["classes"] = class_statuses(one)
    return entry

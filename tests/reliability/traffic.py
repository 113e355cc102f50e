"""Clients that keep asking while something is done to the service, and a record of every answer."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import requests
from service import TIMEOUT, Reply

_PAUSE = 0.05
"""Seconds a client waits after a connection that failed."""


@dataclass(frozen=True)
class Ask:
    """A request; `check` raises AssertionError where the answer is not the right one."""

    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[Reply], None] | None = None
    kind: str = ""
    """What it is counted as."""


@dataclass(frozen=True)
class Seen:
    """What became of a request."""

    ask: Ask
    sent: float
    """time.monotonic() of the sending."""
    seconds: float
    status: int | None
    """None: there was no answer."""
    fault: str | None
    """Why there was none, or what was wrong with it."""


class Traffic:
    """So many clients in a closed loop, from entering the block to leaving it or until the asks are used up.

    `asks` is shared: each is sent once. Leaving the block waits for the answers still due.
    """

    def __init__(self, url: str, asks: Iterable[Ask], clients: int) -> None:
        self.url = url
        self.seen: list[Seen] = []
        self._asks, self._lock, self._over = iter(asks), threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self.join()

    def join(self) -> None:
        """Wait until all asks are used up and answered."""
        for thread in self._threads:
            thread.join()

    @property
    def outcomes(self) -> Counter[str]:
        """How often each fault, or else status, came."""
        return Counter(one.fault or str(one.status) for one in list(self.seen))

    def _client(self) -> None:
        session = requests.Session()
        while not self._over.is_set() and (ask := self._next()) is not None:
            one = _asked(session, self.url, ask)
            self.seen.append(one)
            if one.status is None:
                time.sleep(_PAUSE)

    def _next(self) -> Ask | None:
        with self._lock:
            return next(self._asks, None)


def _asked(session: requests.Session, url: str, ask: Ask) -> Seen:
    sent, start, status, fault = time.monotonic(), time.perf_counter(), None, None
    try:
        answer = session.post(url + ask.path, data=ask.body, headers=dict(ask.headers), timeout=TIMEOUT)
        status = answer.status_code
        if ask.check:
            ask.check(Reply(status, answer.headers, answer.content))
    except requests.RequestException as error:
        fault = type(error).__name__
    except AssertionError as error:
        fault = f"wrong answer: {error}"[:300]
    return Seen(ask, sent, time.perf_counter() - start, status, fault)

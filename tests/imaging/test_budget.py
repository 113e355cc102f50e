"""The budget of decoded bytes: waits, serves the oversized alone, and gives back whatever happens."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from camserve.imaging.budget import Budget

SOON = 0.1
"""Seconds in which a waiting thread would have got its way."""
TIMEOUT = 10


class Holder:
    """A thread that holds bytes until it is told to let go."""

    def __init__(self, budget: Budget, wish: int) -> None:
        self._release = threading.Event()
        self.holds = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(budget, wish), daemon=True)
        self._thread.start()

    def _run(self, budget: Budget, wish: int) -> None:
        with budget.hold(wish):
            self.holds.set()
            self._release.wait(TIMEOUT)

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()

    def let_go(self) -> None:
        self._release.set()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()


def test_wishes_that_fit_together_are_held_together():
    budget = Budget(100)
    with Holder(budget, 60) as first, Holder(budget, 40) as second:
        assert first.holds.wait(TIMEOUT)
        assert second.holds.wait(TIMEOUT)


def test_a_wish_that_passes_the_total_by_one_byte_waits_for_its_turn():
    budget = Budget(100)
    with Holder(budget, 60) as first:
        assert first.holds.wait(TIMEOUT)
        with Holder(budget, 41) as second:
            assert not second.holds.wait(SOON)
            first.let_go()
            assert second.holds.wait(TIMEOUT)


def test_a_wish_larger_than_the_total_is_held_alone():
    budget = Budget(100)
    with Holder(budget, 1) as small:
        assert small.holds.wait(TIMEOUT)
        with Holder(budget, 1_000_000) as large:
            assert not large.holds.wait(SOON)
            small.let_go()
            assert large.holds.wait(TIMEOUT)
            with Holder(budget, 1) as late:
                assert not late.holds.wait(SOON)
                large.let_go()
                assert late.holds.wait(TIMEOUT)


def test_an_exception_gives_the_bytes_back():
    budget = Budget(100)
    with pytest.raises(ZeroDivisionError), budget.hold(100):
        raise ZeroDivisionError
    with Holder(budget, 100) as next_one:
        assert next_one.holds.wait(TIMEOUT)


def test_many_threads_never_hold_more_than_the_total():
    budget = Budget(10)
    lock = threading.Lock()
    held, most = 0, 0

    def work(wish: int) -> None:
        nonlocal held, most
        with budget.hold(wish):
            with lock:
                held += wish
                most = max(most, held)
            time.sleep(0.001)
            with lock:
                held -= wish

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [1, 3, 5, 7, 10] * 12))
    assert held == 0
    assert 0 < most <= 10

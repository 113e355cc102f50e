"""When explanations are given up, and when not any more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from camserve.shedding import Shedding

LIMIT = 200.0
WAITS = st.lists(st.none() | st.sampled_from([0.0, 99.9, 100.0, 150.0, 200.0, 200.1]) | st.floats(0, 1_000))


def told(limit: float, *waits: float | None) -> list[bool]:
    """What one batch after the other is told."""
    shedding = Shedding(limit)
    return [shedding.sheds(wait) for wait in waits]


def test_it_begins_past_the_limit():
    assert told(LIMIT, 0, 199, 200, 200.001) == [False, False, False, True]


def test_it_ends_below_half_the_limit():
    assert told(LIMIT, 201, 200, 150, 100, 99.999) == [True, True, True, True, False]


def test_between_the_bounds_it_stays_as_it_was():
    assert told(LIMIT, 150, 300, 150, 50, 150) == [False, True, True, False, False]


def test_an_unknown_wait_sheds_nothing_and_changes_nothing():
    assert told(LIMIT, None, 300, None, 150, 50, None, 150) == [False, True, False, True, False, False, False]


def test_a_limit_of_zero_never_sheds():
    assert told(0, 0, 1, 3_600_000) == [False, False, False]


@given(st.floats(1, 500), WAITS)
def test_the_last_wait_outside_the_bounds_decides(limit, waits):
    """The rule said in another way, without a state."""
    for end, answer in enumerate(told(limit, *waits), start=1):
        seen = [wait for wait in waits[:end] if wait is not None]
        decisive = [wait for wait in seen if not limit / 2 <= wait <= limit]
        expected = waits[end - 1] is not None and bool(decisive) and decisive[-1] > limit
        assert answer == expected

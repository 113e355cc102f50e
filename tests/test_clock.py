"""Time by stage, and deadlines."""

from __future__ import annotations

import time

import pytest

from camserve.clock import Clock, Deadline


def test_a_stage_takes_its_wall_time_in_milliseconds():
    clock = Clock()
    with clock.stage("decode"):
        time.sleep(0.02)
    assert 20 <= clock.milliseconds["decode"] < 500


def test_the_blocks_of_a_stage_add_up():
    clock = Clock()
    clock.add("render", 2.0)
    clock.add("render", 3.0)
    with clock.stage("render"):
        pass
    assert clock.milliseconds["render"] == pytest.approx(5.0, abs=1.0)
    assert clock.milliseconds["render"] > 5.0


def test_stages_keep_their_order():
    clock = Clock({"queue": None})
    for name in ("decode", "forward", "decode"):
        clock.add(name, 1.0)
    assert list(clock.milliseconds) == ["queue", "decode", "forward"]


def test_an_unknown_time_stays_unknown_until_time_is_added():
    clock = Clock({"queue": None})
    assert clock.milliseconds == {"queue": None}
    clock.add("queue", 4.0)
    assert clock.milliseconds == {"queue": 4.0}


def test_a_block_that_fails_is_counted():
    clock = Clock()
    with pytest.raises(ZeroDivisionError), clock.stage("encode"):
        raise ZeroDivisionError
    assert clock.milliseconds["encode"] >= 0


def test_the_values_given_are_copied():
    given = {"queue": 1.0}
    Clock(given).add("queue", 1.0)
    assert given == {"queue": 1.0}


def test_a_deadline_passes_once_its_time_is_over():
    deadline = Deadline(30)
    assert not deadline.passed
    time.sleep(0.03)
    assert deadline.passed


def test_a_deadline_of_zero_never_passes():
    assert not Deadline(0).passed
    assert not Deadline().passed

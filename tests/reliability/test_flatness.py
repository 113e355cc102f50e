"""The judge of the soak: what grows is named, and what only looks like growth is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from flatness import FAMILIES, MORE_FILES, MORE_HANDLES, Holding, Sample, Tolerance, growth, table

HELD = Holding((1,), 1000.0, 10, 20, 0.0)
FLAT = Sample(0.0, 10, 100.0, 200.0, 30.0, dict.fromkeys(FAMILIES, HELD), 100, 20.0)
COUNT = 40
ALLOWED = Tolerance(0.02, dict.fromkeys(FAMILIES, 10), 1.4)


def judged(change) -> list[str]:
    """The complaints about samples that `change` makes of a flat one and of the time from 0 to 1."""
    samples = [change(FLAT, number / (COUNT - 1)) for number in range(COUNT)]
    return growth(samples, ALLOWED)


def holding(one: Sample, **more: Any) -> Sample:
    return replace(one, holding={**one.holding, "workers": replace(HELD, **more)})


def test_what_is_flat_is_not_complained_about():
    assert judged(lambda one, _: one) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda one, t: holding(one, megabytes=1000 + 100 * t), "megabytes of the workers grew from 1024 to 1086"),
        (lambda one, t: holding(one, threads=10 + round(20 * t)), "threads of the workers grew from 18 to 30"),
        (lambda one, t: holding(one, descriptors=20 + round(20 * t)), "file descriptors of the workers grew"),
        (lambda one, t: replace(one, files=100 + round(20 * t)), "temporary files grew from 102 to 114"),
        (lambda one, t: replace(one, file_megabytes=20 + 9 * t), "megabytes of temporary files grew from 21 to 26"),
        (lambda one, t: replace(one, median=100 * (1 + t)), "latency grew from 124 to 186 ms"),
        (lambda one, t: holding(one, pids=(1 if t < 0.5 else 2,)), "processes of the workers changed: [(1,), (2,)]"),
    ],
    ids=["memory", "threads", "descriptors", "files", "bytes", "latency", "restart"],
)
def test_growth_is_named(change, complaint):
    (found,) = judged(change)
    assert found.startswith(complaint)


@pytest.mark.parametrize(
    "change",
    [
        lambda one, t: holding(one, megabytes=500 if t < 0.1 else 1000),
        lambda one, t: holding(one, megabytes=1000 + 29 * t),
        lambda one, t: holding(one, descriptors=20 + MORE_HANDLES * (t > 0.8)),
        lambda one, t: replace(one, files=100 + MORE_FILES * (t > 0.8)),
        lambda one, t: replace(one, files=100 + 50 * (round(t * COUNT) % 2)),
        lambda one, t: replace(one, median=100 * (1 + 2 * t), pace=30 * (1 + 2 * t)),
        lambda one, t: replace(one, median=400 if 0.2 < t < 0.3 else 150),
        lambda one, t: replace(one, median=100 if t < 0.9 else 300),
        lambda one, t: replace(one, worst=1000 * t),
    ],
    ids=["warm-up", "little", "connection", "few files", "files that go", "machine", "quicker", "neighbour", "worst"],
)
def test_what_only_looks_like_growth_is_not(change):
    assert judged(change) == []


def test_too_short_a_time_is_not_judged():
    with pytest.raises(AssertionError, match="expected at least three samples after the warm-up, got 2"):
        growth([FLAT] * 2, ALLOWED)


def test_the_table_has_the_last_sample():
    lines = table([replace(FLAT, at=60.0 * minute) for minute in range(30)], rows=5).splitlines()
    assert len(lines) == 2 + 5
    assert lines[-1].startswith("| 29.0 min | 10 | 100, 200 | 30 | 1000 MB |")

"""Options and bodies of every kind, right, odd and absurd: checked or refused, and never more than that."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hostile import parsed_options, read_row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judge import Judge
from rows import options, rows

from camserve.records import Row

quick = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
seen: Counter[str] = Counter()


@pytest.fixture(scope="module")
def judge(seeded) -> Judge:
    return Judge(seeded)


@settings(quick, max_examples=300)
@given(options())
def test_options_are_checked_or_refused(values: dict[str, Any]):
    seen.update(parsed_options(values))


@settings(quick, max_examples=300)
@given(rows())
def test_requests_are_read_or_refused(row: Row):
    seen.update(read_row(row))


def test_requests_are_answered(judge):
    @settings(quick, max_examples=120)
    @given(st.tuples(rows(), rows(), rows()))
    def answered(batch: tuple[Row, ...]):
        judge(batch)

    answered()
    kinds = {"200", "400 InvalidOption", "400 InvalidRequest", "400 MissingImage", "415 UnsupportedFormat"}
    assert kinds <= set(judge.outcomes), judge.outcomes
    assert judge.outcomes["200"] > 20

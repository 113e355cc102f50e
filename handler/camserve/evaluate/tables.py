"""The report's tables as lines of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from camserve.evaluate.bootstrap import Estimate
from camserve.evaluate.metrics import METRICS
from camserve.evaluate.recommendation import FAITHFUL, best, passes, shortcomings, verdict
from camserve.evaluate.study import Measured, Study
from camserve.evaluate.subjects import CONTROLS, place

_NONE = "–"
_INTERVALS = ("energy", "correlation")
"""Metrics whose intervals stand in the main table; those of all are in results.json."""

_COMPARED = ("energy", *FAITHFUL)
_TO_BEST = ("energy", "pointing", *FAITHFUL)


def escaped(text: str) -> str:
    """Text as it is, in one line, whatever Markdown would make of it."""
    return re.sub(r"([\\`*_{}\[\]<>#|&~$])", r"\\\1", " ".join(text.split()))


def number(found: Estimate) -> Mapping[str, float]:
    """An estimate for JSON; null where nothing was measured."""
    return {name: float(getattr(found, name)) for name in ("mean", "low", "high")} | {"pictures": found.pictures}


def results(study: Study, ranking: Sequence[Measured]) -> Iterator[str]:
    """The main table: a row a group, a column a metric."""
    heads = ["method", "layer", "grid", *(metric.heading for metric in METRICS.values()), "passes"]
    yield from _table(heads, (_result(study, one) for one in ranking))


def against_controls(study: Study, ranking: Sequence[Measured]) -> Iterator[str]:
    """Differences to both controls, with their verdicts."""
    columns = [(metric, name) for metric in _COMPARED for name in CONTROLS]
    heads = ["method", "layer", *(f"{METRICS[metric].title} − {name}" for metric, name in columns), "against it"]
    methods = (one for one in ranking if not one.first.control)
    yield from _table(
        heads,
        (
            [
                *_names(one),
                *(_compared(study, one, study.control(one, name), metric) for metric, name in columns),
                ", ".join(shortcomings(study, one)) or "nothing",
            ]
            for one in methods
        ),
    )


def against_best(study: Study, ranking: Sequence[Measured]) -> Iterator[str]:
    """Differences of all others to the recommended one; nothing where there is none, or no other."""
    first = best(study)
    others = [one for one in ranking if one is not first and not one.first.control]
    if first is None or not others:
        return
    yield f"\n## Against `{first.first.method}` at `{place(first.first)}`\n"
    yield "Each method less the recommended one. An order between two is stated only where the interval allows it.\n"
    heads = ["method", "layer", *(METRICS[metric].title for metric in _TO_BEST)]
    yield from _table(
        heads, ([*_names(one), *(_compared(study, one, first, metric) for metric in _TO_BEST)] for one in others)
    )


def _result(study: Study, one: Measured) -> list[str]:
    cells = [_mean(study.estimate(one, name), name) for name in METRICS]
    return [*_names(one), "x".join(map(str, one.first.grid)), *cells, _passed(study, one)]


def _names(one: Measured) -> list[str]:
    """Method and layer; the other names of the same maps follow the first."""
    if one.first.control:
        return [f"*{one.first.method}*", _NONE]
    methods = dict.fromkeys(each.method for each in one.group.subjects)
    return [" = ".join(f"`{method}`" for method in methods), f"`{place(one.first)}`"]


def _passed(study: Study, one: Measured) -> str:
    if one.first.control:
        return _NONE
    return passes(study, one) if one.first.discriminative else "no: class-blind by design"


def _mean(found: Estimate, metric: str) -> str:
    if np.isnan(found.mean):
        return _NONE
    decimals = METRICS[metric].decimals
    mean = f"{found.mean:.{decimals}f}"
    return f"{mean} [{found.low:.{decimals}f}, {found.high:.{decimals}f}]" if metric in _INTERVALS else mean


def _compared(study: Study, one: Measured, other: Measured, metric: str) -> str:
    """A difference with its interval and what it says."""
    found = study.difference(one, other, metric)
    if np.isnan(found.mean):
        return _NONE
    decimals = METRICS[metric].decimals
    mean, low, high = (f"{value:+.{decimals}f}" for value in (found.mean, found.low, found.high))
    return f"{mean} [{low}, {high}] {verdict(found, metric)}"


def _table(heads: Sequence[str], rows: Iterator[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)

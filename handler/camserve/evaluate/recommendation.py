"""The method and layer to use, or that nothing can be said. Nothing is claimed that the intervals do not show."""

from __future__ import annotations

from typing import Literal

from camserve.cam.methods import METHODS as KNOWN
from camserve.evaluate.bootstrap import Estimate
from camserve.evaluate.metrics import METRICS
from camserve.evaluate.randomisation import THRESHOLD
from camserve.evaluate.study import Measured, Study
from camserve.evaluate.subjects import CONTROLS, place

Verdict = Literal["better", "worse", "inconclusive"]

FAITHFUL = ("deletion", "road")
"""A method must beat both controls at one of these."""


def verdict(difference: Estimate, metric: str) -> Verdict:
    """Which of two is better, if the interval of their difference excludes zero."""
    if not (difference.low > 0 or difference.high < 0):
        return "inconclusive"
    return "better" if (difference.low > 0) == (METRICS[metric].better == "higher") else "worse"


def passes(study: Study, one: Measured) -> Literal["yes", "no", "unclear"]:
    """Whether the map changes when the head is random."""
    found = study.estimate(one, "correlation")
    if not one.first.discriminative:
        return "no"
    return "yes" if found.high < THRESHOLD else "no" if found.low > THRESHOLD else "unclear"


def shortcomings(study: Study, one: Measured) -> list[str]:
    """What speaks against recommending a method; nothing if it qualifies.

    A map of pixels is measured as means of cells, which tells nothing of the picture a person would look at.
    """
    lost = []
    if not one.first.discriminative:
        lost.append("class-blind")
    elif passes(study, one) != "yes":
        lost.append("random head")
    if KNOWN[one.first.method].needs == "input gradient":
        lost.append("not measured as it is drawn")
    if not _beats_controls(study, one, "energy"):
        lost.append("mosaic energy")
    if not any(_beats_controls(study, one, metric) for metric in FAITHFUL):
        lost.append("deletion and ROAD")
    return lost


def best(study: Study) -> Measured | None:
    """Of the methods that qualify the one with the highest mosaic energy; None if there is none.

    Of those that cannot be told from the highest the best known is taken.
    """
    fit = [one for one in study.methods if not shortcomings(study, one)]
    if not fit:
        return None
    highest = max(fit, key=lambda one: study.estimate(one, "energy").mean)
    return next(one for one in fit if verdict(study.difference(one, highest, "energy"), "energy") == "inconclusive")


def sentence(study: Study) -> str:
    """The recommendation as Markdown, in one sentence."""
    one = best(study)
    if one is None:
        return (
            "Inconclusive: on these pictures no method passes the random head and beats both controls on mosaics "
            "and on deletion or ROAD."
        )
    found = study.estimate(one, "energy")
    mean, low, high = (f"{100 * value:.0f}" for value in (found.mean, found.low, found.high))
    return (
        f"Use `{one.first.method}` at `{place(one.first)}`: {mean} % of its evidence lies on the right picture of four "
        f"(95 % interval {low} to {high} %, chance is 25 %), and it passes every check below."
    )


def _beats_controls(study: Study, one: Measured, metric: str) -> bool:
    return all(
        verdict(study.difference(one, study.control(one, name), metric), metric) == "better" for name in CONTROLS
    )

"""What is recommended, and when nothing is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from camserve.evaluate.bootstrap import Estimate
from camserve.evaluate.recommendation import best, passes, sentence, shortcomings, verdict


def named(study, method):
    return next(one for one in study.measured if one.first.method == method)


def altered(study, method, **values):
    """The study with other values of one method, spread a little around a mean."""
    spread = np.linspace(-0.01, 0.01, len(study.sample.pictures), dtype=np.float32)
    changed = [
        replace(one, values=one.values | {name: mean + spread for name, mean in values.items()})
        if one.first.method == method
        else one
        for one in study.measured
    ]
    return replace(study, measured=tuple(changed))


@pytest.mark.parametrize(
    ("low", "high", "higher", "lower"),
    [(0.1, 0.2, "better", "worse"), (-0.2, -0.1, "worse", "better"), (-0.1, 0.1, "inconclusive", "inconclusive")],
)
def test_an_order_is_stated_where_the_interval_excludes_zero(low, high, higher, lower):
    found = Estimate((low + high) / 2, low, high, 12)
    assert verdict(found, "energy") == higher
    assert verdict(found, "deletion") == lower


def test_what_was_not_measured_is_inconclusive():
    assert verdict(Estimate(np.nan, np.nan, np.nan, 0), "energy") == "inconclusive"


def test_gradcam_is_recommended_where_it_is_among_the_best(study):
    first = best(study)
    assert first.first.method == "gradcam"
    assert sentence(study).startswith(
        "Use `gradcam` at `act`: 75 % of its evidence lies on the right picture of four ("
    )


def test_a_method_that_is_shown_to_be_better_is_recommended(study):
    better = altered(study, "gradcam++", energy=0.95, correlation=0.1)
    assert best(better).first.method == "gradcam++"


def test_a_map_of_pixels_is_compared_and_not_recommended(study):
    better = altered(study, "guided_backprop", energy=0.99, correlation=0.0)
    assert shortcomings(better, named(better, "guided_backprop"))[0] == "not measured as it is drawn"
    assert best(better).first.method == "gradcam"


def test_a_method_that_only_seems_better_is_not(study):
    own = named(study, "gradcam").values["energy"]
    noise = np.where(np.arange(len(own)) % 2, 0.3, -0.28).astype(np.float32)
    changed = [
        replace(one, values=one.values | {"energy": own + noise, "correlation": 0 * own})
        if one.first.method == "gradcam++"
        else one
        for one in study.measured
    ]
    assert best(replace(study, measured=tuple(changed))).first.method == "gradcam"


@pytest.mark.parametrize(("correlation", "expected"), [(0.45, "yes"), (0.5, "unclear"), (0.55, "no")])
def test_the_random_head_is_passed_below_one_half(study, correlation, expected):
    changed = altered(study, "gradcam", correlation=correlation)
    assert passes(changed, named(changed, "gradcam")) == expected


@pytest.mark.parametrize(
    ("values", "lost"),
    [
        ({"correlation": 0.9}, ["random head"]),
        ({"energy": 0.25}, ["mosaic energy"]),
        ({"deletion": 2, "road": -2}, ["deletion and ROAD"]),
        ({"deletion": 2, "road": 2}, []),
        ({"deletion": -2, "road": -2}, []),
    ],
)
def test_what_speaks_against_a_method_is_told(study, values, lost):
    changed = altered(study, "gradcam", **{"energy": 0.7, "correlation": 0.1} | values)
    assert shortcomings(changed, named(changed, "gradcam")) == lost


def test_nothing_is_recommended_where_no_method_qualifies(study):
    changed = study
    for one in study.methods:
        changed = altered(changed, one.first.method, energy=0.25)
    assert best(changed) is None
    assert sentence(changed).startswith("Inconclusive: ")

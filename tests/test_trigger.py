"""Why a row is explained."""

from __future__ import annotations

import random

import numpy as np
import pytest

from camserve.settings import ExplainWhen
from camserve.trigger import trigger

SURE = np.array([0.05, 0.9, 0.05], np.float32)
UNSURE = np.array([0.25, 0.5, 0.25], np.float32)
ALWAYS = ExplainWhen(sample=1.0)


@pytest.mark.parametrize("rule", [ExplainWhen(), ALWAYS], ids=["no rule", "a rule that holds"])
@pytest.mark.parametrize(("explain", "expected"), [(True, "request"), (False, None)])
def test_what_a_request_says_needs_no_rule(explain, expected, rule):
    assert trigger(explain, rule, UNSURE) == expected


@pytest.mark.parametrize(
    ("rule", "probabilities", "expected"),
    [
        pytest.param(ExplainWhen(), UNSURE, None, id="no rule"),
        pytest.param(ExplainWhen(probability_below=0.6), UNSURE, "probability_below", id="an unlikely class"),
        pytest.param(ExplainWhen(probability_below=0.5), UNSURE, None, id="exactly the probability"),
        pytest.param(ExplainWhen(probability_below=0.6), SURE, None, id="a likely class"),
        pytest.param(ExplainWhen(margin_below=0.3), UNSURE, "margin_below", id="two close classes"),
        pytest.param(ExplainWhen(margin_below=0.25), UNSURE, None, id="exactly the margin"),
        pytest.param(ExplainWhen(classes=(1,)), SURE, "classes", id="a watched class"),
        pytest.param(ExplainWhen(classes=(0, 2)), SURE, None, id="a watched class that is not the likeliest"),
        pytest.param(ALWAYS, SURE, "sample", id="every request"),
        pytest.param(ExplainWhen(sample=0.0), SURE, None, id="no request"),
        pytest.param(ExplainWhen(probability_below=0.1, classes=(1,)), SURE, "classes", id="one rule of two holds"),
        pytest.param(
            ExplainWhen(probability_below=1, margin_below=1, classes=(1,), sample=1),
            UNSURE,
            "probability_below",
            id="the first that holds is named",
        ),
    ],
)
def test_auto(rule, probabilities, expected):
    assert trigger("auto", rule, probabilities) == expected


def test_a_model_of_one_class_has_its_whole_probability_as_margin():
    only = np.array([1.0], np.float32)
    assert trigger("auto", ExplainWhen(margin_below=1.0), only) is None


def test_sampling_takes_its_share():
    random.seed(0)
    taken = sum(trigger("auto", ExplainWhen(sample=0.2), SURE) == "sample" for _ in range(5_000))
    assert 900 < taken < 1_100

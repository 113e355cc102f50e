"""Why a row is explained: because it asks, or because a rule of the model holds."""

from __future__ import annotations

import random
from typing import Literal

import numpy as np

from camserve.records import Floats
from camserve.settings import ExplainWhen


def trigger(explain: bool | Literal["auto"], rule: ExplainWhen, probabilities: Floats) -> str | None:
    """The reason to explain a prediction, or None.

    `probabilities` holds one value a class (K). The rule's conditions are joined by OR; the name of the
    first that holds is the reason.
    """
    if explain != "auto":
        return "request" if explain else None
    order = np.argsort(-probabilities, kind="stable")
    best = float(probabilities[order[0]])
    second = float(probabilities[order[1]]) if len(order) > 1 else 0.0
    if rule.probability_below is not None and best < rule.probability_below:
        return "probability_below"
    if rule.margin_below is not None and best - second < rule.margin_below:
        return "margin_below"
    if int(order[0]) in rule.classes:
        return "classes"
    # Sampling traffic needs no cryptographic randomness.
    return "sample" if random.random() < rule.sample else None  # noqa: S311

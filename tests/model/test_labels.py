"""Ids and names."""

from __future__ import annotations

import pytest

from camserve.errors import InvalidOption
from camserve.model import embedded
from camserve.model.labels import Labels

LABELS = Labels(["Tabby", "crane", "Crane ", "tiger cat", "7"])


@pytest.mark.parametrize(("selector", "class_id"), [(0, 0), (4, 4), ("tabby", 0), (" TIGER CAT ", 3), ("7", 4)])
def test_find(selector, class_id):
    assert LABELS.find(selector) == class_id


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        (5, "Expected a class index from 0 to 4, got 5."),
        (-1, "Expected a class index from 0 to 4, got -1."),
        ("dog", "No class is named 'dog'; a GET of the model lists its 5 classes."),
        ("crane", "Several classes are named 'crane': choose one of the ids [1, 2]."),
    ],
)
def test_what_is_not_found(selector, message):
    with pytest.raises(InvalidOption) as refused:
        LABELS.find(selector)
    assert str(refused.value) == message


def test_imagenet_has_a_thousand_names():
    names = embedded.imagenet_labels()
    assert len(names) == 1000
    assert (names[281], names[386], names[967]) == ("tabby", "African elephant", "espresso")

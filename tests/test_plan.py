"""Options against the model: classes become ids, what the model lacks is refused before any work."""

from __future__ import annotations

import pytest

from camserve.cam.methods import METHODS
from camserve.errors import InvalidOption
from camserve.options import parse
from camserve.plan import plan
from camserve.records import Task
from toynets import LABELS, loaded


def planned(pipeline, most: int = 20, forwards: int = 0, **options) -> Task:
    return plan(parse(options), pipeline.engine, pipeline.labels, most, forwards)


def test_a_plain_request_has_a_valid_task_too(seeded):
    assert planned(seeded) == Task("gradcam", "features", 1, None, "positive")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("top:3", 3),
        ("top:20", 10),
        ("7,0", (7, 0)),
        ("label 4", (4,)),
        ("LABEL 4 , 4, 5", (4, 5)),
        ("label:label 2", (2,)),
    ],
    ids=["the likeliest", "more than there are", "ids in order", "a name", "a class twice", "a name by force"],
)
def test_classes(seeded, asked, expected):
    assert planned(seeded, classes=asked).classes == expected


@pytest.mark.parametrize(
    ("asked", "expected"), [("3", 3), ("label 3", 3), ("runner_up", "runner_up")], ids=["id", "name", "runner-up"]
)
def test_contrast(seeded, asked, expected):
    assert planned(seeded, contrast=asked).contrast == expected


@pytest.mark.parametrize("polarity", ["positive", "negative", "both"])
def test_polarity_is_handed_on(seeded, polarity):
    assert planned(seeded, polarity=polarity).polarity == polarity


def test_any_layer_with_a_grid_can_be_named(seeded):
    assert planned(seeded, layer="early.0").layer == "early.0"
    assert planned(seeded, method="cam").method == "cam"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(
            {"classes": "10"},
            "Option 'classes': expected a class index from 0 to 9, got 10.",
            id="an index past the last class",
        ),
        pytest.param(
            {"classes": "tusker"},
            "Option 'classes': no class is named 'tusker'; a GET of the model lists its 10 classes.",
            id="a name that is none",
        ),
        pytest.param(
            {"contrast": 10},
            "Option 'contrast': expected a class index from 0 to 9, got 10.",
            id="a contrast past the last",
        ),
        pytest.param(
            {"classes": "2,3", "contrast": "label 3"},
            "Option 'contrast': class 3 is explained itself; choose another class.",
            id="the contrast is explained itself",
        ),
        pytest.param(
            {"layer": "head"},
            "Option 'layer': 'head' is no layer that can be explained; the default here is features, "
            "and a GET of the model lists all.",
            id="a layer without a grid",
        ),
        pytest.param(
            {"layer": "é\n"},
            r"Option 'layer': '\xe9\n' is no layer that can be explained; the default here is features, "
            "and a GET of the model lists all.",
            id="a layer that is none",
        ),
        pytest.param(
            {"method": "magic"},
            f"Option 'method': expected one of {', '.join(METHODS)}, got 'magic'.",
            id="a method that is none",
        ),
        pytest.param(
            {"method": "scorecam"},
            "Option 'method': scorecam needs 16 forwards at 'features' and this model's setting max_forwards allows 0; "
            "use gradcam.",
            id="a method of many forwards",
        ),
        pytest.param(
            {"method": "eigencam", "classes": "2"},
            "Option 'classes': eigencam does not take it; leave it out.",
            id="classes for a method that looks at none",
        ),
        pytest.param(
            {"method": "eigengradcam", "polarity": "both"},
            "Option 'polarity': eigengradcam does not take it; leave it out.",
            id="a polarity where the sign is arbitrary",
        ),
        pytest.param(
            {"method": "saliency", "layer": "features"},
            "Option 'layer': saliency does not take it; leave it out.",
            id="a layer for a method of the input",
        ),
        pytest.param(
            {"method": "guided_backprop", "channels": "2"},
            "Option 'channels': guided_backprop does not take it; leave it out.",
            id="channels of a method that has none",
        ),
        pytest.param(
            {"method": "cam", "layer": "early.1"},
            "Option 'method': cam needs a global average pool and a linear head right behind the layer, "
            "which is not so for 'early.1' of this model; use gradcam.",
            id="a method that the layer does not allow",
        ),
    ],
)
def test_refused(seeded, options, message):
    with pytest.raises(InvalidOption) as caught:
        planned(seeded, **options)
    assert str(caught.value) == message


def test_the_models_own_limit_of_classes(seeded):
    assert planned(seeded, most=2, classes="top:9").classes == 2
    assert planned(seeded, most=2, classes="1,2").classes == (1, 2)
    with pytest.raises(InvalidOption) as caught:
        planned(seeded, most=2, classes="1,2,3")
    assert str(caught.value) == "Option 'classes': expected at most 2, got 3."


def test_a_name_that_several_classes_share_lists_their_ids(tmp_path):
    shared = loaded(tmp_path, labels=(*LABELS[:8], "Crane", "crane"))
    with pytest.raises(InvalidOption) as caught:
        planned(shared, classes="CRANE")
    assert str(caught.value) == "Option 'classes': several classes are named 'CRANE': choose one of the ids [8, 9]."

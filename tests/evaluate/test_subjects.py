"""What is compared, and what is refused before anything is measured."""

from __future__ import annotations

import pytest

import toynets
from camserve.cam.methods import METHODS
from camserve.errors import SetupError
from camserve.evaluate.subjects import Subject, chosen, controls

MANY = {"scorecam", "ablationcam"}


def methods(subjects) -> set[str]:
    return {one.method for one in subjects}


def test_by_default_all_methods_that_need_no_forwards_at_the_default_layer(colours):
    found = chosen(colours, (), ())
    assert methods(found) == set(METHODS) - MANY
    assert {one.layer for one in found} == {colours.engine.default, "input"}


def test_methods_of_many_forwards_take_part_where_the_settings_admit_them(tmp_path):
    admitted = toynets.bright(tmp_path, max_forwards=4)
    assert methods(chosen(admitted, (), ())) >= MANY


def test_every_layer_is_compared_where_the_method_allows_it(seeded):
    found = chosen(seeded, (), ("early", "features"))
    assert Subject("gradcam", "early", (16, 16)) in found
    assert Subject("gradcam", "features", (8, 8)) in found
    assert [one.layer for one in found if one.method == "cam"] == ["features"]
    assert [one.grid for one in found if one.method == "saliency"] == [(8, 8)]  # once, on the default layer's grid


def test_a_method_is_named_as_in_a_request(colours):
    assert methods(chosen(colours, (" GradCAM++ ",), ())) == {"gradcam++"}


def test_both_controls_stand_on_every_grid(seeded):
    found = controls(chosen(seeded, ("gradcam", "layercam"), ("early", "features")))
    assert {(one.method, one.grid) for one in found} == {
        (name, grid) for name in ("random", "centre") for grid in ((16, 16), (8, 8))
    }


@pytest.mark.parametrize(
    ("asked", "layers", "sentence"),
    [
        (("gradcam", "gradcat"), (), "Option 'method': expected one of cam, gradcam"),
        (("gradcam",), ("nowhere",), "Option 'layer': 'nowhere' is no layer that can be explained"),
        ((), ("nowhere",), "Option 'layer': 'nowhere' is no layer that can be explained"),
        (("saliency",), ("nowhere",), "Option 'layer': 'nowhere' is no layer that can be explained"),
        (("cam",), ("early",), "Option 'method': cam needs a global average pool"),
        (("scorecam",), (), "Option 'method': scorecam needs 16 forwards"),
        ((), ("",), "Option 'layer': expected the name of a layer"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_sentence(seeded, asked, layers, sentence):
    with pytest.raises(SetupError) as refused:
        chosen(seeded, asked, layers)
    assert str(refused.value).startswith(sentence)
    assert str(refused.value).endswith(".")


def test_rules_of_rectifiers_are_left_out_where_the_network_has_others(tmp_path):
    source = toynets.BRIGHT.replace("nn.ReLU()", "nn.SiLU()")
    smooth = toynets.loaded(tmp_path, source, "Bright", ("bright", "dark", "neither"))
    assert not {"guided_backprop", "guided_gradcam", "deconvnet"} & methods(chosen(smooth, (), ()))
    with pytest.raises(SetupError, match="this network uses silu"):
        chosen(smooth, ("guided_backprop",), ())

"""Every option: its default, each spelling it takes, and the sentence each other value earns."""

from __future__ import annotations

import math

import pytest

from camserve.errors import InvalidOption
from camserve.options import Options, parse
from camserve.render.colormaps import COLORMAPS

NAMES = (
    "explain, topk, classes, method, layer, contrast, polarity, channels, maps, colormap, opacity, image_format, "
    "max_side, crop, verify"
)
TWENTY = list(range(20))


def test_the_defaults():
    assert parse({}).model_dump() == {
        "explain": False,
        "topk": 5,
        "classes": 1,
        "method": "gradcam",
        "layer": None,
        "contrast": None,
        "polarity": "positive",
        "channels": 0,
        "maps": ("overlay",),
        "colormap": "jet",
        "opacity": 0.4,
        "image_format": "jpeg",
        "max_side": 512,
        "crop": None,
        "verify": False,
    }


ACCEPTED = [
    ("explain", "true", True),
    ("explain", "False", False),
    ("explain", " AUTO ", "auto"),
    ("explain", True, True),
    ("explain", False, False),
    ("explain", "auto", "auto"),
    ("topk", "1", 1),
    ("topk", " 20 ", 20),
    ("topk", "+3", 3),
    ("topk", 7, 7),
    ("classes", "top:1", 1),
    ("classes", "TOP:20", 20),
    ("classes", "386", (386,)),
    ("classes", 386, (386,)),
    ("classes", "386,tusker, Indian elephant", (386, "tusker", "Indian elephant")),
    ("classes", [386, "tusker"], (386, "tusker")),
    ("classes", '[386, "a label, with comma"]', (386, "a label, with comma")),
    ("classes", "label:7", ("7",)),
    ("classes", ["7"], (7,)),
    ("classes", "3,3,03,4", (3, 4)),
    ("classes", TWENTY, tuple(TWENTY)),
    ("method", " HiResCAM ", "hirescam"),
    ("method", "anything", "anything"),
    ("layer", "features.35", "features.35"),
    ("contrast", "runner_up", "runner_up"),
    ("contrast", "RUNNER_UP", "runner_up"),
    ("contrast", "5", 5),
    ("contrast", 5, 5),
    ("contrast", "tusker", "tusker"),
    ("contrast", "label:5", "5"),
    ("contrast", None, None),
    ("polarity", "positive", "positive"),
    ("polarity", "Negative", "negative"),
    ("polarity", "both", "both"),
    ("channels", "0", 0),
    ("channels", 0, 0),
    ("channels", "16", 16),
    ("maps", "overlay,heatmap, grid ,regions", ("overlay", "heatmap", "grid", "regions")),
    ("maps", ["grid", "grid"], ("grid",)),
    ("maps", '["Regions"]', ("regions",)),
    ("colormap", "VIRIDIS", "viridis"),
    ("opacity", "0", 0.0),
    ("opacity", 1, 1.0),
    ("opacity", "5e-1", 0.5),
    ("opacity", 0.25, 0.25),
    ("image_format", "PNG", "png"),
    ("image_format", "webp", "webp"),
    ("image_format", "jpeg", "jpeg"),
    ("max_side", "64", 64),
    ("max_side", 2048, 2048),
    ("crop", "1,2,16,30", (1, 2, 17, 32)),
    ("crop", [0, 0, 100, 16], (0, 0, 100, 16)),
    ("crop", "[0,0,16,16]", (0, 0, 16, 16)),
    ("crop", None, None),
    ("verify", "false", False),
    ("verify", False, False),
    ("verify", "True", True),
]


@pytest.mark.parametrize(("name", "value", "expected"), ACCEPTED, ids=[f"{n}={v!r}"[:60] for n, v, _ in ACCEPTED])
def test_accepted(name, value, expected):
    found = getattr(parse({name: value}), name)
    assert found == expected
    assert type(found) is type(expected)


EXPECTED = {
    "explain": "true, false or auto",
    "topk": "a number of predictions from 1 to 20",
    "classes": "top:N with N from 1 to 20, or at most 20 class indices or labels",
    "method": "a row of the methods table",
    "layer": "the name of a layer",
    "contrast": "a class index, a label or runner_up",
    "polarity": "positive, negative or both",
    "channels": "a number of the most influential channels from 0 to 16",
    "maps": "any of overlay, heatmap, grid, regions",
    "colormap": f"one of {', '.join(COLORMAPS)}",
    "opacity": "a number from 0 to 1",
    "image_format": "jpeg, png or webp",
    "max_side": "a number of pixels from 64 to 2048",
    "crop": "x,y,width,height in whole pixels, at least 16x16",
    "verify": "true or false",
}

REFUSED = {
    "explain": ["yes", "", "1", 1, 0, None, [True], "autos"],
    "topk": ["0", "21", 0, 21, "-1", "", "5.0", 5.5, 5.0, True, None, "five", "1e1", "٣", [5], {"a": 1}, 10**18],
    "classes": ["", "top:0", "top:21", "1,,2", [], "[]", "[1,", {"a": 1}, [[1]], True, 1.5, None, "label:", [1.0]],
    "method": [None, 3, ["gradcam"]],
    "layer": ["", 3, "x" * 201, ["a"]],
    "contrast": ["", "label:", True, 1.5, [1]],
    "polarity": ["", "up", None, 1],
    "channels": ["17", -1, "", True, None, 1.5],
    "maps": ["", "overlay,,grid", "saliency", [], None, 1, [["grid"]], {"grid": 1}],
    "colormap": ["", "rainbows", "colormap_jet", 2, None],
    "opacity": ["-0.1", 1.01, "nan", math.nan, math.inf, "", "half", True, None, "0_1", "٠", [0.5], 10**400],
    "image_format": ["gif", "jpg", "", None, 1],
    "max_side": ["63", 63, 2049, "", 512.0, None, "512px"],
    "crop": ["1,2,3", "1,2,16,15", "-1,0,20,20", "0,0,16.5,20", "0,0,20,20,20", [], {"x": 1}, "a,b,c,d", 7],
    "verify": ["yes", 1, "", None],
}
CASES = [(name, value) for name, values in REFUSED.items() for value in values]


@pytest.mark.parametrize(("name", "value"), CASES, ids=[ascii(f"{n}={v!r}")[1:50] for n, v in CASES])
def test_refused(name, value):
    with pytest.raises(InvalidOption) as caught:
        parse({name: value})
    came = ascii(value)
    came = came if len(came) <= 60 else came[:57] + "..."
    assert str(caught.value) == f"Option '{name}': expected {EXPECTED[name]}, got {came}."
    assert caught.value.status == 400


def test_twenty_one_classes_are_one_too_many():
    with pytest.raises(InvalidOption, match=r"^Option 'classes': expected top:N .* got \[0, 1, 2, .*\.\.\.\.$"):
        parse({"classes": list(range(21))})


def test_every_option_is_tested_here():
    assert list(Options.model_fields) == list(EXPECTED) == list(REFUSED)
    assert {name for name, *_ in ACCEPTED} == set(EXPECTED)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("explian", "'explian'"),
        ("", "''"),
        ("Explain", "'Explain'"),
        ("a\nb\x1b", r"'a\nb\x1b'"),
        ("\ud800", r"'\ud800'"),
        ("é" * 100, "'" + r"\xe9" * 14 + "..."),
    ],
    ids=["misspelt", "empty", "in capitals", "control characters", "a lone surrogate", "long"],
)
def test_an_unknown_name_is_refused_with_the_known_ones(name, shown):
    with pytest.raises(InvalidOption) as caught:
        parse({"topk": 3, name: "1"})
    assert str(caught.value) == f"Unknown option {shown}; expected one of {NAMES}."


def test_options_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        parse({}).topk = 3


@pytest.mark.parametrize("write", [int, str], ids=["JSON", "text"])
def test_a_number_has_at_most_nine_digits(write):
    assert parse({"classes": write(999_999_999)}).classes == (999_999_999,)
    for value in (10**9, 2**70):
        with pytest.raises(InvalidOption):
            parse({"classes": write(value)})

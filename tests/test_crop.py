"""Crop and run again: a distractor is seen on the map, cut away, and the prediction is repaired."""

from __future__ import annotations

import io
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

import camserve
from camserve.archive import Recipe, opened
from camserve.model import embedded
from toynets import good, row

ROOT = Path(camserve.__file__).parents[2]
SIDE = 224
PICTURES = {
    "cat": skimage.data.chelsea()[:, 75:375],
    "coffee": skimage.data.coffee()[:, 100:500],
    "rocket": skimage.data.rocket()[:, 100:527],
}


@pytest.fixture(scope="module")
def pipeline():
    with opened(Recipe("classifier", embedded.ARCHITECTURE)) as loaded:
        yield loaded


def asked(pipeline, image, **options):
    return good(pipeline.answer([row(image, explain="true", maps="regions,grid", topk=20, **options)])[0])


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "png")
    return out.getvalue()


def probability(answer, class_id):
    return next((one["probability"] for one in answer["predictions"] if one["class_id"] == class_id), 0.0)


def mosaic(left, right):
    """Two pictures side by side, each 224 x 224."""
    cells = [np.asarray(Image.fromarray(PICTURES[name]).resize((SIDE, SIDE))) for name in (left, right)]
    return png(np.concatenate(cells, axis=1))


def test_the_documented_story(pipeline):
    image = (ROOT / "docs" / "pictures" / "cat-and-coffee.jpg").read_bytes()
    before = asked(pipeline, image)
    assert before["predictions"][0]["label"] == "espresso"
    (entry,) = before["explanation"]["classes"]
    _, y0, _, y1 = entry["regions"][0]["box"]
    assert (y0 + y1) / 2 > 224, "the evidence is on the cup"

    after = asked(pipeline, image, crop="0,0,448,224")
    assert after["predictions"][0]["label"] == "Egyptian cat"
    assert probability(after, 285) > 0.5 > 0.2 > probability(before, 285)
    assert after["image"]["model_box"][3] <= 224
    assert all(box["box"][3] <= 224 for box in after["explanation"]["classes"][0]["regions"])


@pytest.mark.parametrize(("target", "distractor"), list(permutations(PICTURES, 2)))
def test_without_the_distractors_cell_the_target_is_likelier(pipeline, target, distractor):
    image = mosaic(target, distractor)
    alone = {name: asked(pipeline, png(PICTURES[name]))["predictions"][0]["class_id"] for name in (target, distractor)}
    whole = asked(pipeline, image)
    cut = asked(pipeline, image, crop=f"0,0,{SIDE},{SIDE}")
    assert probability(cut, alone[target]) > probability(whole, alone[target]) + 0.1

    (entry,) = asked(pipeline, image, classes=alone[distractor])["explanation"]["classes"]
    in_cell = sum(r["share"] for r in entry["regions"] if (r["box"][0] + r["box"][2]) / 2 > SIDE)
    elsewhere = sum(r["share"] for r in entry["regions"] if (r["box"][0] + r["box"][2]) / 2 <= SIDE)
    assert in_cell > elsewhere, "the map shows where the distractor is"

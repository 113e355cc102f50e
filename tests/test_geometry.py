"""Heat lies where the evidence is: for every shape, orientation and crop, in upright original pixels."""

from __future__ import annotations

import io
from base64 import b64decode

import numpy as np
import pytest
from PIL import Image

from camserve.pipeline import Pipeline
from pictures import square, turned
from toynets import BRIGHT, PLAIN, good, grid, loaded, pixels, row

CELLS = 8
SHAPES = {"square": (160, 160), "portrait": (120, 200), "landscape": (210, 130), "very wide": (400, 70)}
PLACES = {"top left": (0.2, 0.3), "centre": (0.5, 0.5), "bottom right": (0.83, 0.71), "top right": (0.77, 0.16)}


def seen(width: int, height: int) -> tuple[float, float, float, float]:
    """The centre square that the network sees."""
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def within(box: tuple[float, ...], place: tuple[float, float]) -> tuple[float, float]:
    x0, y0, x1, y1 = box
    return x0 + place[0] * (x1 - x0), y0 + place[1] * (y1 - y0)


def peak(heat: np.ndarray) -> tuple[float, float]:
    """The middle of the hottest pixels, as (x, y)."""
    rows, columns = np.nonzero(heat >= heat.max() - 1)
    return float(columns.mean() + 0.5), float(rows.mean() + 0.5)


def heat_of_overlay(entry: dict, plain: np.ndarray) -> np.ndarray:
    """The heat that was blended over the picture; the colour map `hot` grows brighter all the way."""
    return (pixels(entry["overlay"]) - 0.6 * plain).sum(2)


def check(pipeline: Pipeline, image: bytes, centre: tuple[float, float], cell: float, **options: object) -> dict:
    """Heatmap, grid and regions all point at the square within half a cell."""
    asked = row(image, explain="true", classes="bright", maps="heatmap,grid,regions", **options)
    answer = good(pipeline.answer([asked])[0])
    (entry,) = answer["explanation"]["classes"]
    assert entry["status"] == "ok"
    assert answer["explanation"]["grid_shape"] == [CELLS, CELLS]
    close = 0.5 * cell + 1

    scale = entry["heatmap"]["width"] / answer["image"]["width"]
    hot = np.array(peak(pixels(entry["heatmap"]).astype(int))) / scale
    assert np.abs(hot - centre).max() <= close, (hot, centre)

    x0, y0, x1, y1 = answer["image"]["model_box"]
    r, c = np.unravel_index(grid(entry).argmax(), (CELLS, CELLS))
    of_cell = np.array([x0 + (c + 0.5) * (x1 - x0) / CELLS, y0 + (r + 0.5) * (y1 - y0) / CELLS])
    assert np.abs(of_cell - centre).max() <= close

    left, top, right, bottom = entry["regions"][0]["box"]
    middle = np.array([(left + right) / 2, (top + bottom) / 2])
    assert np.abs(middle - centre).max() <= close
    assert left - 1e-3 <= centre[0] <= right + 1e-3
    assert top - 1e-3 <= centre[1] <= bottom + 1e-3
    return answer


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("shape", SHAPES)
def test_heat_is_at_the_square(bright, shape, place, orientation):
    width, height = SHAPES[shape]
    box = seen(width, height)
    cell = (box[2] - box[0]) / CELLS
    centre = within(box, PLACES[place])
    image = turned(square(width, height, centre, round(cell)), orientation, "JPEG", quality=95)
    answer = check(bright, image, centre, cell)
    assert (answer["image"]["width"], answer["image"]["height"]) == (width, height)
    assert answer["image"]["model_box"] == pytest.approx(box, abs=width / 64)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize(
    ("crop", "place"),
    [
        ((20, 10, 96, 96), (0.3, 0.6)),
        ((100, 40, 64, 128), (0.7, 0.4)),
        ((7, 90, 160, 80), (0.2, 0.8)),
        ((0, 0, 240, 180), (0.5, 0.2)),
    ],
    ids=["square", "upright", "lying", "the whole picture"],
)
def test_heat_is_at_the_square_inside_a_crop(bright, crop, place, orientation):
    x, y, width, height = crop
    box = tuple(edge + offset for edge, offset in zip(seen(width, height), (x, y, x, y), strict=True))
    cell = (box[2] - box[0]) / CELLS
    centre = within(box, place)
    image = turned(square(240, 180, centre, round(cell)), orientation, "JPEG", quality=95)
    answer = check(bright, image, centre, cell, crop=",".join(map(str, crop)))
    assert answer["image"]["crop"] == [x, y, x + width, y + height]
    assert answer["image"]["model_box"] == pytest.approx(box, abs=3)


def test_a_square_outside_the_crop_is_not_seen(bright):
    image = turned(square(240, 180, (200, 150), 20), 1, "PNG")
    asked = row(image, explain="true", classes="bright", crop="0,0,120,120")
    assert good(bright.answer([asked])[0])["explanation"]["classes"][0]["status"] == "empty_map"


def test_a_large_picture_is_shown_smaller_and_the_heat_stays_in_place(bright):
    centre = (900.0, 620.0)
    image = turned(square(1200, 900, centre, 112), 6, "JPEG", quality=95)
    answer = check(bright, image, centre, 900 / CELLS, max_side=256)
    heatmap = answer["explanation"]["classes"][0]["heatmap"]
    assert (heatmap["width"], heatmap["height"]) == (256, 192)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("orientation", [1, 5, 6])
def test_the_overlay_is_hottest_at_the_square_and_plain_outside_the_box(bright, shape, orientation):
    width, height = SHAPES[shape]
    box = seen(width, height)
    cell = (box[2] - box[0]) / CELLS
    centre = within(box, PLACES["top right"])
    plain = square(width, height, centre, round(cell))
    image = turned(plain, orientation, "PNG")
    asked = row(image, explain="true", classes="bright", image_format="png", colormap="hot", max_side=2048)
    answer = good(bright.answer([asked])[0])
    (entry,) = answer["explanation"]["classes"]
    hot = np.array(peak(heat_of_overlay(entry, plain)))
    assert np.abs(hot - centre).max() <= 0.5 * cell + 1
    x0, y0, x1, y1 = answer["image"]["model_box"]
    outside = np.ones((height, width), bool)
    outside[int(np.floor(y0)) : int(np.ceil(y1)), int(np.floor(x0)) : int(np.ceil(x1))] = False
    np.testing.assert_array_equal(pixels(entry["overlay"])[outside], plain[outside])


def test_a_centre_crop_of_the_preprocessing_moves_nothing(tmp_path):
    cropped = loaded(tmp_path, BRIGHT, "Bright", ("bright", "dark", "neither"), PLAIN | {"resize": 80})
    box = (20.0, 20.0, 180.0, 180.0)
    image = turned(square(200, 200, (130.0, 90.0), 20), 1, "PNG")
    answer = check(cropped, image, (130.0, 90.0), 20)
    assert answer["image"]["model_box"] == list(box)


def test_dark_is_where_the_square_is_not(bright):
    """The grid of the other class is lowest at the square."""
    image = turned(square(160, 160, (50, 70), 20), 7, "PNG")
    asked = row(image, explain="true", classes="dark", maps="grid,overlay")
    (entry,) = good(bright.answer([asked])[0])["explanation"]["classes"]
    assert np.unravel_index(grid(entry).argmin(), (CELLS, CELLS)) == (3, 2)
    assert Image.open(io.BytesIO(b64decode(entry["overlay"]["data"]))).size == (160, 160)

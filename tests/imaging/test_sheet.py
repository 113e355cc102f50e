"""Sheets: every picture in its place, captions that fit."""

from __future__ import annotations

import numpy as np
import pytest

from camserve.imaging.sheet import Tile, sheet

RED, GREEN, BLUE = (np.full((30, 60, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))


def test_pictures_stand_row_by_row():
    drawn = sheet([Tile(RED, "one"), Tile(GREEN, "two"), Tile(BLUE, "three")], columns=2, width=60)
    assert drawn[20, 30].tolist() == [255, 0, 0]
    assert drawn[20, 100].tolist() == [0, 255, 0]
    assert drawn[20 + 30 + 18 + 8, 30].tolist() == [0, 0, 255]
    assert drawn[20 + 30 + 18 + 8, 100].tolist() == [255, 255, 255]


def test_pictures_of_other_shapes_share_a_width():
    tall = np.zeros((90, 30, 3), np.uint8)
    drawn = sheet([Tile(RED, ""), Tile(tall, "")], columns=2, width=60)
    assert (drawn[:, 68 + 8 : 68 + 68] == 0).all(2).any(1).sum() == 180
    assert (drawn[:, 8:68] == (255, 0, 0)).all(2).all(1).sum() == 30


def test_more_columns_than_pictures_leave_no_room():
    assert sheet([Tile(RED, "")], columns=9, width=60).shape == (30 + 18 + 8 + 8, 60 + 2 * 8, 3)


@pytest.mark.parametrize("caption", ["a label that is far too long for its picture", "two\nlines", "日本語"])
def test_a_caption_stays_under_its_picture(caption):
    drawn = sheet([Tile(RED, caption), Tile(RED, "")], columns=2, width=60)
    assert (drawn[8 + 30 : 8 + 30 + 18, 8:68] != 255).any(), "nothing was written"
    assert (drawn[8 + 30 :, 69:] == 255).all(), "the caption runs into its neighbour"


def test_a_note_stands_below():
    with_note, without = (sheet([Tile(RED, "")], 1, 60, note) for note in ("gradcam", ""))
    assert (with_note[: len(without)] == without).all()
    assert (with_note[len(without) - 8 :] != 255).any()

"""The example sheet: a few pictures, and what every method draws on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from camserve.evaluate.plots import several_layers, short
from camserve.evaluate.study import Measured, Study
from camserve.imaging.encode import encode
from camserve.imaging.sheet import Tile, sheet
from camserve.options import Options
from camserve.render.overlay import overlay

PICTURES = 6
_WIDEST = 240
_SHEET = 2_000


def draw(study: Study, ranking: Sequence[Measured], output: Path) -> Path:
    """Write sheet.png: a row a picture, a column a method."""
    methods = [one for one in ranking if not one.first.control]
    columns = 1 + len(methods)
    chosen = np.linspace(0, len(study.sample.pictures) - 1, PICTURES).round().astype(int).tolist()
    tiles = [tile for at in chosen for tile in _row(study, methods, at)]
    path = output / "sheet.png"
    path.write_bytes(encode(sheet(tiles, columns, min(_WIDEST, _SHEET // columns))[:, :, ::-1], "png").data)
    return path


def _row(study: Study, methods: Sequence[Measured], at: int) -> Iterator[Tile]:
    """One picture with its label, then with each method's map."""
    usual = Options()
    picture, layers = study.sample.pictures[at], several_layers(study)
    side = picture.view.shape[0]
    yield Tile(picture.view, f"{study.pipeline.labels.names[picture.class_id]} {picture.probability:.0%}")
    for one in methods:
        drawn = overlay(picture.view, (0, 0, side, side), one.group.maps[at], False, usual.colormap, usual.opacity)
        yield Tile(drawn[:, :, ::-1], short(one.first, layers))

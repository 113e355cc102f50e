"""Pictures side by side, each with a caption: what tutorials show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from camserve.records import Bytes

_GAP = 8
_TEXT = 13
_LINE = 18
_INK = (32, 33, 36)
_PAPER = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture (uint8 RGB, H x W x 3) and the line under it."""

    pixels: Bytes
    caption: str


def sheet(tiles: Sequence[Tile], columns: int, width: int = 240, note: str = "") -> Bytes:
    """Tiles row by row on white, each `width` pixels wide; `note` stands below them all."""
    columns = min(columns, len(tiles))
    pictures = [_scaled(tile.pixels, width) for tile in tiles]
    height = max(picture.height for picture in pictures)
    rows = math.ceil(len(tiles) / columns)
    across, down = width + _GAP, height + _LINE + _GAP
    foot = _LINE + _GAP if note else 0
    paper = Image.new("RGB", (columns * across + _GAP, rows * down + _GAP + foot), _PAPER)
    pen, font = ImageDraw.Draw(paper), ImageFont.load_default(_TEXT)
    for place, (tile, picture) in enumerate(zip(tiles, pictures, strict=True)):
        x, y = _GAP + place % columns * across, _GAP + place // columns * down
        paper.paste(picture, (x, y + height - picture.height))
        pen.text((x, y + height + 2), _cut(tile.caption, width, font), _INK, font)
    if note:
        pen.text((_GAP, paper.height - foot), _cut(note, paper.width - 2 * _GAP, font), _INK, font)
    return np.asarray(paper)


def _scaled(pixels: Bytes, width: int) -> Image.Image:
    picture = Image.fromarray(pixels)
    height = max(1, round(picture.height * width / picture.width))
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _cut(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text in one line, shortened until it fits."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."

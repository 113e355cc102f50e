"""A network of colours whose maps are known, a folder of drawn pictures for it, and one study of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import toynets
from camserve.evaluate.sample import read
from camserve.evaluate.stages import measure
from camserve.evaluate.study import Study
from camserve.evaluate.subjects import chosen
from camserve.pipeline import Pipeline
from pictures import encoded

COLOURS = '''
import torch
from torch import nn


class Colours(nn.Module):
    """8 x 8 cells, one channel a colour: how much of it a cell holds. Each class is for its colour, against others.

    A fifth channel is bright wherever there is any colour, and no class listens to it.
    """

    def __init__(self):
        super().__init__()
        self.cells = nn.Conv2d(3, 5, 8, stride=8)
        self.act = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(5, 4)
        mixes = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1], [1, 1, 1]])
        with torch.no_grad():
            self.cells.weight.copy_(mixes[:, :, None, None].expand(-1, -1, 8, 8) / 64)
            self.cells.bias.copy_(torch.tensor([0.0, 0, 0, -2, 0]))
            self.head.weight.zero_()
            self.head.weight[:, :4] = 48 * torch.eye(4) - 8
            self.head.bias.zero_()

    def forward(self, x):
        return self.head(self.pool(self.act(self.cells(x))).flatten(1))
'''

PAINTS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))
LABELS = ("red", "green | lime", "blue", "white")
SIDE = 64


def drawn(class_id: int, random: np.random.Generator) -> np.ndarray:
    """A dark picture with nine cells of its class's colour in a square, and one of each other colour: H x W x 3."""
    pixels = random.integers(0, 40, (SIDE, SIDE, 3), dtype=np.uint8)
    y, x = random.integers(0, 6, 2)
    free = [(j, i) for j in range(8) for i in range(8) if not (y <= j < y + 3 and x <= i < x + 3)]
    places = random.choice(free, 3, replace=False)
    for (j, i), paint in zip(places, [p for at, p in enumerate(PAINTS) if at != class_id], strict=True):
        pixels[8 * j : 8 * j + 8, 8 * i : 8 * i + 8] = paint
    pixels[8 * y : 8 * y + 24, 8 * x : 8 * x + 24] = PAINTS[class_id]
    return pixels


def paint(folder: Path, count: int) -> Path:
    """Write so many pictures, of each class in turn."""
    random = np.random.default_rng(7)
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:02}.png").write_bytes(encoded(drawn(number % 4, random)))
    return folder


@pytest.fixture(scope="session")
def painter():
    """What paints folders."""
    return paint


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A network that answers to colours."""
    return toynets.loaded(tmp_path_factory.mktemp("colours"), COLOURS, "Colours", LABELS)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures, three of each colour."""
    return paint(tmp_path_factory.mktemp("painted") / "photos", 12)


@pytest.fixture(scope="session")
def study(colours: Pipeline, photos: Path) -> Study:
    """All methods on the painted pictures."""
    return measure(colours, read(colours, photos), chosen(colours, (), ()), 0)

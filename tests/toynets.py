"""Networks small enough to reason about, written out as an unpacked archive and loaded as a worker would."""

from __future__ import annotations

import io
import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from camserve.pipeline import Pipeline
from camserve.records import Answer, Row
from camserve.settings import Settings
from pictures import cat

SIDE = 64
PLAIN = {"resize": SIDE, "crop": SIDE, "mean": [0, 0, 0], "std": [1, 1, 1]}
"""The picture's own values in [0, 1]."""

BRIGHT = '''
import torch
from torch import nn


class Bright(nn.Module):
    """8 x 8 cells; one channel holds the mean brightness of a cell, another its darkness.

    Logits: bright, dark, neither.
    """

    def __init__(self):
        super().__init__()
        self.cells = nn.Conv2d(3, 4, 8, stride=8)
        self.act = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4, 3)
        with torch.no_grad():
            self.cells.weight.zero_()
            self.cells.bias.zero_()
            self.cells.weight[0] = 1 / 192
            self.cells.weight[1] = -1 / 192
            self.cells.bias[1] = 1
            self.head.weight.zero_()
            self.head.bias.zero_()
            self.head.weight[0, 0] = 8
            self.head.weight[1, 1] = 1

    def forward(self, x):
        return self.head(self.pool(self.act(self.cells(x))).flatten(1))
'''

SEEDED = '''
import torch
from torch import nn


class Seeded(nn.Module):
    """Random weights from a seed. Explained in closed form at `features`, by gradients before it."""

    def __init__(self, classes=10):
        super().__init__()
        torch.manual_seed(3)
        self.early = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4, padding=2), nn.ReLU())
        self.features = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Linear(16, classes)
        with torch.no_grad():
            self.head.weight.mul_(20)

    def forward(self, x):
        return self.head(self.features(self.early(x)).mean((2, 3)))


class Named(Seeded):
    """Passes everything by its name."""

    def forward(self, x):
        for module in (*self.early, *self.features):
            x = module(input=x)
        return self.head(input=x.mean((2, 3)))


class Bursting(Seeded):
    """Not finite for a picture that is white all over."""

    def forward(self, x):
        white = (x > 0.99).flatten(1).all(1)
        return super().forward(x).masked_fill(white[:, None], float("inf"))


class Picky(Seeded):
    """Fails at a picture without contrast, and at the batch that it is in."""

    def forward(self, x):
        if (x.amax((1, 2, 3)) == x.amin((1, 2, 3))).any():
            raise RuntimeError("a picture without contrast")
        return super().forward(x)


class Cramped(Seeded):
    """Has no room for more than `room` pictures at once, as a GPU that is full; the proofs are made before."""

    room = 8

    def forward(self, x):
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().forward(x)
'''

LABELS = tuple(f"label {index}" for index in range(10))


def archive(folder: Path, source: str, name: str, labels: Sequence[str]) -> str:
    """Write a network as its archive unpacks; returns its architecture."""
    (folder / "net.py").write_text(source)
    namespace: dict[str, Any] = {"__name__": "net"}
    exec(source, namespace)
    torch.save(namespace[name]().state_dict(), folder / "weights.pt")
    (folder / "labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
    return f"net.py:{name}"


def loaded(
    folder: Path,
    source: str = SEEDED,
    name: str = "Seeded",
    labels: Sequence[str] = LABELS,
    preprocessing: Mapping[str, Any] = PLAIN,
    **settings: Any,
) -> Pipeline:
    """The pipeline of a network."""
    section = {"architecture": archive(folder, source, name, labels), "preprocessing": preprocessing, **settings}
    return Pipeline.load(folder, Settings.read(section, {}), "toy", "1.0", threads=2)


def bright(folder: Path, **settings: Any) -> Pipeline:
    """The network that answers to brightness."""
    return loaded(folder, BRIGHT, "Bright", ("bright", "dark", "neither"), **settings)


def row(image: bytes | None = None, headers: Mapping[str, str] | None = None, **options: Any) -> Row:
    """A row with a picture (the cat if None) and options as form fields."""
    fields = {name: str(value).encode() for name, value in options.items()}
    return Row("toy", {"data": cat() if image is None else image, **fields}, headers or {})


def parsed(answer: Answer) -> Any:
    """The JSON of an answer, free of NaN."""
    assert answer.mime == "application/json"

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(answer.body, parse_constant=refuse)


def good(answer: Answer) -> Any:
    """The JSON of a good answer."""
    assert answer.status == 200, answer.body[:500]
    return parsed(answer)


def grid(entry: Mapping[str, Any]) -> np.ndarray:
    """The map of an explained class in its own unit."""
    given = entry["grid"]
    return np.frombuffer(b64decode(given["data"]), "<f4").reshape(given["shape"]) * given["scale"]


def pixels(picture: Mapping[str, Any]) -> np.ndarray:
    """The pixels of a picture in an answer."""
    image = Image.open(io.BytesIO(b64decode(picture["data"], validate=True)))
    assert image.size == (picture["width"], picture["height"])
    assert Image.MIME[image.format] == picture["mime"]
    return np.asarray(image)

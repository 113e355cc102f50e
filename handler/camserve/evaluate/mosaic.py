"""The mosaic game: four pictures of different classes in one input; does the map of a class lie on its picture?

The truth is known without any annotation. A map that does not know where its class is has a quarter of its evidence
on the right picture.

Böhle, Fritz and Schiele, Convolutional Dynamic Alignment Networks for Interpretable Classifications, CVPR 2021
(grid pointing game); Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016 (pointing game).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from camserve.evaluate.maps import positive
from camserve.imaging.picture import Picture
from camserve.imaging.resize import fitted
from camserve.records import Bytes, Floats

FEWEST = 60
"""Mosaics, at least; more where there are more pictures, so that each is asked for about twice."""

_ROUNDS = 2
CHANCE = 0.25


@dataclass(frozen=True, slots=True)
class Mosaic:
    """Four pictures by their places in the sample: top left, top right, bottom left, bottom right.

    `targets` are the quadrants (0 to 3) whose class no other quadrant has: only they can be asked for.
    """

    members: tuple[int, ...]
    targets: tuple[int, ...]


def mosaics(class_ids: Sequence[int], seed: int) -> list[Mosaic]:
    """Mosaics in which all pictures are asked for about equally often; none where there is only one class."""
    if len(set(class_ids)) < 2:
        return []
    random, asked = np.random.default_rng(seed), Counter[int]()
    drawn = []
    for _ in range(max(FEWEST, math.ceil(len(class_ids) * _ROUNDS / 4))):
        # Those asked for least first, in random order among equals.
        queue = sorted(random.permutation(len(class_ids)).tolist(), key=lambda at: asked[at])
        drawn.append(_mosaic(queue, class_ids, random))
        asked.update(drawn[-1].members[quadrant] for quadrant in drawn[-1].targets)
    return drawn


def composed(mosaic: Mosaic, views: Sequence[Bytes], side: int) -> Bytes:
    """The mosaic as one view of `side` x `side` pixels."""
    a, b, c, d = (views[member] for member in mosaic.members)
    whole = np.concatenate([np.concatenate([a, b], 1), np.concatenate([c, d], 1)])
    return fitted(Picture.of(whole), side)


def enlargement(network: nn.Module, one: Tensor) -> int:
    """2 where the network takes inputs of twice the side (1 x 3 x S x S is one it takes), else 1."""
    with torch.inference_mode():
        usual = network(one)
        try:
            large = network(one.repeat(1, 1, 2, 2))
        except Exception:  # networks refuse a size in many ways
            return 1
    return 2 if isinstance(large, Tensor) and large.shape == usual.shape else 1


def energy(signed: Floats, quadrant: int) -> float:
    """The share of what is drawn that lies in the quadrant; 0 where nothing is drawn."""
    shown = positive(signed).astype(np.float64)
    return float((shown * _inside(shown.shape, quadrant)).sum() / shown.sum()) if shown.any() else 0.0


def pointing(signed: Floats, quadrant: int) -> float:
    """1 if the highest cell lies in the quadrant, else 0; of several that are equal, their mean."""
    if signed.max() <= 0:
        return 0.0
    return float(_inside(signed.shape, quadrant)[signed == signed.max()].mean())


def _mosaic(queue: Sequence[int], class_ids: Sequence[int], random: np.random.Generator) -> Mosaic:
    """The first picture of the queue with three others: of new classes if there are any, else not of its own."""
    members = [queue[0]]
    for _ in range(3):
        seen = {class_ids[member] for member in members}
        rest = [at for at in queue if at not in members and class_ids[at] != class_ids[queue[0]]]
        members.append(next((at for at in rest if class_ids[at] not in seen), rest[0] if rest else members[-1]))
    members = [members[at] for at in random.permutation(4)]
    count = Counter(class_ids[member] for member in members)
    return Mosaic(tuple(members), tuple(q for q, member in enumerate(members) if count[class_ids[member]] == 1))


def _inside(shape: tuple[int, ...], quadrant: int) -> np.ndarray:
    """How much of each cell lies in the quadrant, 0 to 1; h x w."""
    down, right = divmod(quadrant, 2)
    return np.outer(_half(shape[0], down), _half(shape[1], right))


def _half(cells: int, second: int) -> np.ndarray:
    """How much of each cell in a row of cells lies in the first half, or in the second."""
    first: np.ndarray = np.clip(cells / 2 - np.arange(cells), 0, 1)
    return 1 - first if second else first

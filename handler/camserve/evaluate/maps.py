"""Maps of every subject for a batch of inputs, on the grids on which they are measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from torch import Tensor

from camserve.cam.engine import Engine, Trace
from camserve.cam.methods import METHODS
from camserve.evaluate.subjects import Subject
from camserve.plan import INPUT
from camserve.records import ClassMap, Floats, Task

Classes = Sequence[tuple[int, ...]]
"""The classes explained, for each input."""

Found = Mapping[Subject, list[list[Floats]]]
"""For each subject, input and class a signed map, h x w."""

_CENTRE = 0.25
"""Standard deviation of the centre control, of the side."""


def maps(engine: Engine, subjects: Sequence[Subject], inputs: Tensor, classes: Classes, times: int = 1) -> Found:
    """The maps as the service would compute them; one that fails is empty.

    Args:
        engine: the network and what is proven about it.
        subjects: methods at layers, no controls.
        inputs: N x 3 x H x W.
        classes: for each input.
        times: how much larger the inputs' sides are than usual, and so the grids of pooled maps.
    """
    shared: dict[str, Trace] = {}
    found: dict[Subject, list[list[Floats]]] = {}
    for one in subjects:
        tasks = [Task(one.method, one.layer, ids, None, "positive") for ids in classes]
        trace = _trace(engine, inputs, tasks, shared)
        grid = (one.grid[0] * times, one.grid[1] * times)
        found[one] = [[_cells(one, each, grid) for each in row] for row in engine.maps(trace, tasks)]
    return found


def control(subject: Subject, times: int, seed: Sequence[int]) -> Floats:
    """A map that knows nothing: independent noise, or a Gaussian in the middle."""
    height, width = (cells * times for cells in subject.grid)
    if subject.method == "random":
        return np.random.default_rng(seed).random((height, width), np.float32)
    return np.outer(_bell(height), _bell(width)).astype(np.float32)


def positive(signed: Floats) -> Floats:
    """What of a map is drawn."""
    return np.maximum(signed, 0)


def _bell(cells: int) -> np.ndarray:
    """A Gaussian around the middle of so many cells."""
    distance = (np.arange(cells) + 0.5) / cells - 0.5
    return np.asarray(np.exp(-0.5 * (distance / _CENTRE) ** 2))


def _trace(engine: Engine, inputs: Tensor, tasks: Sequence[Task], shared: dict[str, Trace]) -> Trace:
    """One forward for all methods where none needs a backward through the network's end, else one each."""
    layer = engine.default if tasks[0].layer == INPUT else tasks[0].layer
    if not engine.is_exact("gradcam", layer):
        return engine.forward(inputs, tasks)
    if layer not in shared:
        shared[layer] = engine.forward(
            inputs, [Task("gradcam", layer, task.classes, None, "positive") for task in tasks]
        )
    return shared[layer]


def _cells(subject: Subject, one: ClassMap, grid: tuple[int, int]) -> Floats:
    """The map on its grid; of one of the input's size the means of what is drawn."""
    if one.map is None:
        return np.zeros(grid, np.float32)
    if METHODS[subject.method].needs != "input gradient":
        return one.map
    return np.asarray(cv2.resize(positive(one.map), grid[::-1], interpolation=cv2.INTER_AREA), np.float32)

"""What is compared: methods at layers, and two controls that know nothing of the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from camserve.cam.methods import METHODS
from camserve.errors import InvalidOption, SetupError
from camserve.options import parse
from camserve.pipeline import Pipeline
from camserve.plan import INPUT, plan

CONTROLS = ("random", "centre")


@dataclass(frozen=True, slots=True)
class Subject:
    """A method at a layer, or a control; `grid` is the height and width of its maps in cells.

    Maps of the input's size are averaged to the default layer's grid, so that all are measured alike.
    """

    method: str
    layer: str
    grid: tuple[int, int]

    @property
    def control(self) -> bool:
        """Whether it is a control."""
        return self.method in CONTROLS

    @property
    def discriminative(self) -> bool:
        """Whether its map depends on the class at all."""
        return not self.control and METHODS[self.method].discriminative


def chosen(pipeline: Pipeline, methods: Sequence[str], layers: Sequence[str]) -> tuple[Subject, ...]:
    """Every named method at every named layer that allows it.

    Raises:
        SetupError: there is no such method or layer, or a named method fits none of the layers.
    """
    for layer in layers:
        _subject(pipeline, "gradcam", layer)
    subjects: dict[Subject, None] = {}
    for method in methods or METHODS:
        found, faults = _at_layers(pipeline, method, layers or (pipeline.engine.default,))
        if methods and not found:
            raise faults[0]
        subjects.update(dict.fromkeys(found))
    return tuple(subjects)


def controls(subjects: Sequence[Subject]) -> tuple[Subject, ...]:
    """Both controls on every grid that occurs."""
    return tuple(Subject(name, "", grid) for grid in dict.fromkeys(one.grid for one in subjects) for name in CONTROLS)


def _at_layers(pipeline: Pipeline, method: str, layers: Sequence[str]) -> tuple[list[Subject], list[SetupError]]:
    """The method at each layer that allows it, and the refusals of the others."""
    found: list[Subject] = []
    faults: list[SetupError] = []
    for layer in layers:
        try:
            found.append(_subject(pipeline, method, layer))
        except SetupError as error:
            faults.append(error)
    return found, faults


def _subject(pipeline: Pipeline, method: str, layer: str) -> Subject:
    """One method at one layer, if the service would explain so."""
    engine, settings = pipeline.engine, pipeline.settings
    known = METHODS.get(method.strip().lower())
    asked = {"method": method, "layer": layer} if known is None or known.has_layer else {"method": method}
    try:
        task = plan(parse(asked), engine, pipeline.labels, settings.max_classes, settings.max_forwards)
    except InvalidOption as error:
        raise SetupError(str(error)) from error
    pooled = METHODS[task.method].needs == "input gradient"
    return Subject(task.method, task.layer, engine.layers[engine.default if pooled else task.layer].grid)


def place(subject: Subject) -> str:
    """Where a subject's maps come from, for people."""
    return {"": "–", INPUT: "input"}.get(subject.layer, subject.layer)

"""Options to a Task for this model: classes become ids, layer and method are checked before any work."""

from __future__ import annotations

from typing import Literal

from camserve.cam.engine import Engine
from camserve.cam.methods import METHODS
from camserve.errors import InvalidOption, quoted
from camserve.model.labels import Labels
from camserve.options import Options
from camserve.records import Task

INPUT = "input"
"""What the answer names as layer where the map is one of input pixels."""


def plan(
    options: Options, engine: Engine, labels: Labels, max_classes: int, max_forwards: int, max_channels: int = 16
) -> Task:
    """The task of one row, valid whether or not the row ends up explained.

    Raises:
        InvalidOption: no such method, layer or class here, or a method the layer does not allow.
    """
    layer = INPUT if _on_input(options.method) else _layer(options, engine)
    classes = _classes(options, labels, max_classes)
    contrast = _contrast(options, labels)
    if contrast is not None and isinstance(classes, tuple) and contrast in classes:
        raise InvalidOption(f"Option 'contrast': class {contrast} is explained itself; choose another class.")
    if options.channels > max_channels:
        raise InvalidOption(f"Option 'channels': expected at most {max_channels}, got {options.channels}.")
    return Task(
        _method(options, engine, layer, max_forwards),
        layer,
        classes,
        contrast,
        options.polarity,
        options.channels,
        options.verify,
    )


def _method(options: Options, engine: Engine, layer: str, max_forwards: int) -> str:
    method = METHODS.get(options.method)
    if method is None:
        raise InvalidOption(f"Option 'method': expected one of {', '.join(METHODS)}, got {quoted(options.method)}.")
    if method.needs == "closed form" and not engine.is_exact(options.method, layer):
        raise InvalidOption(
            f"Option 'method': {options.method} needs a global average pool and a linear head right behind the "
            f"layer, which is not so for {quoted(layer)} of this model; use gradcam."
        )
    if method.rule != "plain" and engine.foreign_activation:
        raise InvalidOption(
            f"Option 'method': {options.method} knows ReLU and ReLU6 only, and this network uses "
            f"{engine.foreign_activation}; use gradcam or saliency."
        )
    if method.needs == "forwards" and engine.layers[layer].channels > max_forwards:
        raise InvalidOption(
            f"Option 'method': {options.method} needs {engine.layers[layer].channels} forwards at {quoted(layer)} and "
            f"this model's setting max_forwards allows {max_forwards}; use gradcam."
        )
    takes = method.takes
    names = ("classes", "contrast", "polarity", "channels") + (() if method.has_layer else ("layer",))
    for name in names:
        if getattr(options, name) != Options.model_fields[name].default and not takes[name]:
            raise InvalidOption(f"Option '{name}': {options.method} does not take it; leave it out.")
    return options.method


def _on_input(name: str) -> bool:
    return name in METHODS and not METHODS[name].has_layer


def _layer(options: Options, engine: Engine) -> str:
    layer = options.layer or engine.default
    if layer not in engine.layers:
        raise InvalidOption(
            f"Option 'layer': {quoted(layer)} is no layer that can be explained; the default here is "
            f"{engine.default}, and a GET of the model lists all."
        )
    return layer


def _classes(options: Options, labels: Labels, max_classes: int) -> int | tuple[int, ...]:
    if isinstance(options.classes, int):
        return min(options.classes, len(labels), max_classes)
    if len(options.classes) > max_classes:
        raise InvalidOption(f"Option 'classes': expected at most {max_classes}, got {len(options.classes)}.")
    return tuple(dict.fromkeys(_find("classes", selector, labels) for selector in options.classes))


def _contrast(options: Options, labels: Labels) -> int | Literal["runner_up"] | None:
    if options.contrast is None:
        return None
    return "runner_up" if options.contrast == "runner_up" else _find("contrast", options.contrast, labels)


def _find(option: str, selector: int | str, labels: Labels) -> int:
    """A class id; the error names the option."""
    try:
        return labels.find(selector)
    except InvalidOption as error:
        raise InvalidOption(f"Option '{option}': {str(error)[0].lower()}{str(error)[1:]}") from None

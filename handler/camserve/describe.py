"""What a GET of the model answers: its classes, layers, methods, options, limits and preprocessing."""

from __future__ import annotations

from typing import Any

from camserve.cam.engine import Engine
from camserve.cam.methods import METHODS
from camserve.options import Options
from camserve.response import Card
from camserve.settings import Settings

_LIMITS = (
    "max_pixels",
    "max_request_pixels",
    "max_picture_side",
    "max_aspect_ratio",
    "max_answer_bytes",
    "max_forwards",
    "max_instances",
    "max_classes",
    "max_channels",
    "max_option_bytes",
)


def describe(card: Card, engine: Engine, settings: Settings) -> dict[str, Any]:
    """The description as a JSON-ready object."""
    assert settings.preprocessing is not None
    return {
        "model": {"name": card.name, "version": card.version, "architecture": card.architecture},
        "classes": list(card.labels),
        "default_layer": engine.default,
        "layers": [
            {"name": layer.name, "channels": layer.channels, "grid_shape": list(layer.grid)}
            for layer in engine.layers.values()
        ],
        "methods": _methods(engine, settings),
        "options": _options(),
        "limits": {name: getattr(settings, name) for name in _LIMITS},
        "preprocessing": settings.preprocessing.model_dump(mode="json"),
    }


def _methods(engine: Engine, settings: Settings) -> list[dict[str, Any]]:
    """Every method; `available` and `exact` speak of the default layer."""
    return [
        {
            "name": name,
            "title": method.title,
            "paper": method.paper,
            "takes": method.takes,
            "class_discriminative": method.discriminative,
            "available": _available(name, engine, settings),
            "forwards": _forwards(name, engine),
            "exact": engine.is_exact(name, engine.default),
        }
        for name, method in METHODS.items()
    ]


def _available(name: str, engine: Engine, settings: Settings) -> bool:
    """Whether this network allows the method at its default layer."""
    method = METHODS[name]
    if method.needs == "closed form":
        return engine.is_exact(name, engine.default)
    if method.needs == "forwards":
        return _forwards(name, engine) <= settings.max_forwards
    return method.rule == "plain" or engine.foreign_activation is None


def _forwards(name: str, engine: Engine) -> int:
    """Forwards a class costs beyond the prediction's own, at the default layer; many are made once for all classes."""
    extra = {"forwards": engine.layers[engine.default].channels, "input gradient": 1}
    return extra.get(METHODS[name].needs, 0)


def _options() -> list[dict[str, Any]]:
    """Every option with its default and what is allowed."""
    plain = Options().model_dump(mode="json") | {"classes": "top:1"}  # as a client writes it
    return [
        {"name": name, "default": plain[name], "expected": field.description}
        for name, field in Options.model_fields.items()
    ]

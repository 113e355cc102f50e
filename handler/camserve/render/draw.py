"""The evidence for one class as the pictures and regions its options ask for."""

from __future__ import annotations

from camserve.clock import Clock
from camserve.imaging.encode import encode
from camserve.options import Options
from camserve.records import Box, Drawing, Floats, Image, Prepared
from camserve.render.overlay import heatmap, overlay
from camserve.render.regions import regions


def draw(signed: Floats, options: Options, prepared: Prepared, max_bytes: int, clock: Clock) -> Drawing:
    """Draw a signed map (h x w); `max_bytes` is what a lossy picture should stay under."""
    shown = -signed if options.polarity == "negative" else signed
    return Drawing(
        _overlay(shown, options, prepared, max_bytes, clock) if "overlay" in options.maps else None,
        _heatmap(shown, options, prepared, clock) if "heatmap" in options.maps else None,
        _regions(shown, prepared.model_box) if "regions" in options.maps else None,
    )


def _overlay(shown: Floats, options: Options, prepared: Prepared, max_bytes: int, clock: Clock) -> Image:
    assert prepared.canvas is not None
    both = options.polarity == "both"
    with clock.stage("render"):
        blended = overlay(prepared.canvas, _canvas_box(prepared), shown, both, options.colormap, options.opacity)
    with clock.stage("encode"):
        return encode(blended, options.image_format, max_bytes)


def _heatmap(shown: Floats, options: Options, prepared: Prepared, clock: Clock) -> Image:
    assert prepared.canvas is not None
    height, width = prepared.canvas.shape[:2]
    with clock.stage("render"):
        grey = heatmap(width, height, _canvas_box(prepared), shown, options.polarity == "both")
    with clock.stage("encode"):
        return encode(grey, "png")


def _regions(shown: Floats, model_box: Box) -> tuple[tuple[Box, float], ...]:
    """Regions with their boxes in picture pixels."""
    h, w = shown.shape
    x0, y0, x1, y1 = model_box
    cell = ((x1 - x0) / w, (y1 - y0) / h)
    return tuple((_moved(_scaled(one.box, *cell), x0, y0), one.share) for one in regions(shown))


def _canvas_box(prepared: Prepared) -> Box:
    """The model's box in pixels of the canvas."""
    assert prepared.canvas is not None
    height, width = prepared.canvas.shape[:2]
    return _scaled(prepared.model_box, width / prepared.width, height / prepared.height)


def _scaled(box: Box, x: float, y: float) -> Box:
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y


def _moved(box: Box, x: float, y: float) -> Box:
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y

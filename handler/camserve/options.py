"""The options of one picture: every field, its bounds and its default.

Values arrive as text (query, form, header, gRPC) or as JSON; either way they become the same checked Options.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from camserve.errors import InvalidOption, quoted
from camserve.records import Polarity
from camserve.render.colormaps import COLORMAPS

MAPS = ("overlay", "heatmap", "grid", "regions")
MOST_CLASSES = 20


def _word(value: Any) -> Any:
    """Text without surrounding blanks, in lower case; anything else as it is."""
    return value.strip().lower() if isinstance(value, str) else value


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}[_word(value)]


def _explain(value: Any) -> bool | str:
    return "auto" if _word(value) == "auto" else _boolean(value)


def _integer(value: Any) -> int:
    """A number of at most nine digits, as JSON or as text."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**9:
        return value
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,9}\s*", value, re.ASCII):
        return int(value)
    raise ValueError


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError
    if isinstance(value, str) and ("_" in value or not value.isascii()):  # float() reads 0_5 and other scripts
        raise ValueError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _items(value: Any) -> list[Any]:
    """A JSON list, its text, or words separated by commas."""
    if isinstance(value, str):
        text = value.strip()
        value = orjson.loads(text) if text.startswith("[") else [part.strip() for part in text.split(",")]
    if not isinstance(value, list):
        value = [value]
    if not value or "" in value:
        raise ValueError
    return list(value)


def _selector(value: Any) -> int | str:
    """A class: digits are an index, `label:7` is the name "7", other text a name."""
    if isinstance(value, str) and not value.strip().isdecimal():
        name = value.strip().removeprefix("label:")
        if not name:
            raise ValueError
        return name
    return _integer(value)


def _classes(value: Any) -> int | tuple[int | str, ...]:
    """`top:N` as the number N, else the selectors in order, each once."""
    if isinstance(value, str) and _word(value).startswith("top:"):
        count = _integer(_word(value).removeprefix("top:"))
        if not 1 <= count <= MOST_CLASSES:
            raise ValueError
        return count
    selectors = tuple(dict.fromkeys(_selector(item) for item in _items(value)))
    if len(selectors) > MOST_CLASSES:
        raise ValueError
    return selectors


def _contrast(value: Any) -> int | str | None:
    if value is None:
        return None
    return "runner_up" if _word(value) == "runner_up" else _selector(value)


def _maps(value: Any) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(_word(item) for item in _items(value)))
    if not set(names) <= set(MAPS):
        raise ValueError
    return names


def _crop(value: Any) -> tuple[int, int, int, int] | None:
    """`x,y,width,height` as x0, y0, x1, y1; JSON's null is no crop."""
    if value is None:
        return None
    x, y, width, height = (_integer(item) for item in _items(value))
    if min(x, y) < 0 or min(width, height) < 16:
        raise ValueError
    return x, y, x + width, y + height


def _colormap(value: Any) -> str:
    name = str(_word(value))
    if name not in COLORMAPS:
        raise ValueError
    return name


def _checked(parse: Callable[[Any], Any]) -> BeforeValidator:
    """Any fault of a parser as the ValueError that pydantic expects."""

    def run(value: Any) -> Any:
        try:
            return parse(value)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(str(error)) from error

    return BeforeValidator(run)


class Options(BaseModel):
    """The checked options of one picture. A field's description says what is allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    explain: Annotated[bool | Literal["auto"], _checked(_explain)] = Field(False, description="true, false or auto")
    topk: Annotated[int, _checked(_integer)] = Field(5, ge=1, le=20, description="a number of predictions from 1 to 20")
    classes: Annotated[int | tuple[int | str, ...], _checked(_classes)] = Field(
        1,
        description=f"top:N with N from 1 to {MOST_CLASSES}, or at most {MOST_CLASSES} class indices or labels",
    )
    method: Annotated[str, _checked(_word)] = Field("gradcam", description="a row of the methods table")
    layer: str | None = Field(None, min_length=1, max_length=200, description="the name of a layer")
    contrast: Annotated[int | str | None, _checked(_contrast)] = Field(
        None, description="a class index, a label or runner_up"
    )
    polarity: Annotated[Polarity, _checked(_word)] = Field("positive", description="positive, negative or both")
    channels: Annotated[int, _checked(_integer)] = Field(
        0, ge=0, le=16, description="a number of the most influential channels from 0 to 16"
    )
    maps: Annotated[tuple[str, ...], _checked(_maps)] = Field(("overlay",), description=f"any of {', '.join(MAPS)}")
    colormap: Annotated[str, _checked(_colormap)] = Field("jet", description=f"one of {', '.join(COLORMAPS)}")
    opacity: Annotated[float, _checked(_number)] = Field(0.4, ge=0, le=1, description="a number from 0 to 1")
    image_format: Annotated[Literal["jpeg", "png", "webp"], _checked(_word)] = Field(
        "jpeg", description="jpeg, png or webp"
    )
    max_side: Annotated[int, _checked(_integer)] = Field(
        512, ge=64, le=2048, description="a number of pixels from 64 to 2048"
    )
    crop: Annotated[tuple[int, int, int, int] | None, _checked(_crop)] = Field(
        None, description="x,y,width,height in whole pixels, at least 16x16"
    )
    verify: Annotated[bool, _checked(_boolean)] = Field(False, description="true or false")


def parse(values: Mapping[str, Any]) -> Options:
    """Options from values by name.

    Raises:
        InvalidOption: names the option, what is allowed and what came.
    """
    known = Options.model_fields
    for name in values:
        if name not in known:
            raise InvalidOption(f"Unknown option {quoted(name)}; expected one of {', '.join(known)}.")
    try:
        return Options.model_validate(values)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise InvalidOption(
            f"Option '{name}': expected {known[name].description}, got {quoted(values[name])}."
        ) from None

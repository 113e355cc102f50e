"""The frozen records that travel between the stages. Boxes are (x0, y0, x1, y1) in picture pixels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Polarity = Literal["positive", "negative", "both"]


@dataclass(frozen=True, slots=True)
class Row:
    """What the server hands over: fields as bytes, headers with lower-case names."""

    request_id: str
    fields: Mapping[str, bytes]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Task:
    """What one row asks of the engine, checked against the model.

    `classes` is a number N for the N likeliest, or class ids; `contrast` a class id, "runner_up" or None;
    `channels` how many of the most influential channels to tell apart; `verify` whether to measure the map.
    """

    method: str
    layer: str
    classes: int | tuple[int, ...]
    contrast: int | Literal["runner_up"] | None
    polarity: Polarity
    channels: int = 0
    verify: bool = False

    @property
    def how_many(self) -> int:
        """How many classes are to be explained."""
        return self.classes if isinstance(self.classes, int) else len(self.classes)

    @property
    def kind(self) -> Hashable:
        """What maps that are computed together have in common."""
        return self.method, self.layer, self.polarity, self.channels


@dataclass(frozen=True, slots=True)
class Channel:
    """What one channel of the layer adds to a map: its share of all channels' (0 to 1), and its part (h x w)."""

    index: int
    share: float
    map: Floats


@dataclass(frozen=True, slots=True)
class Verification:
    """The explained class's probability: untouched, without the map's top `area`, and without as much elsewhere."""

    area: float
    probability: float
    without_top: float
    without_random: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ClassMap:
    """The evidence for one class.

    `map` is float32, h x w, signed: positive speaks for the class. `bias` is set where the map is exact:
    mean(map) + bias = logit (or the difference of logits under a contrast). `failure` says why there is no map.
    """

    class_id: int
    contrast: int | None
    map: Floats | None
    bias: float | None = None
    channels: tuple[Channel, ...] = ()
    verification: Verification | None = None
    failure: str | None = None


def shown(signed: Floats, polarity: Polarity) -> Floats:
    """What of a signed map a polarity shows, where it is above zero: for, against, or the size of either."""
    if polarity == "both":
        return np.abs(signed)
    return -signed if polarity == "negative" else signed


@dataclass(frozen=True, slots=True)
class Quality:
    """How a map's evidence is spread; P is its positive part, and a number is None where it is not defined.

    positive_share = sum P / sum |map|;  entropy = -sum p ln p / ln(cells) with p = P / sum P;
    border_share = P in the outer ring of cells / sum P, for grids of at least 5 x 5. All in [0, 1].
    """

    positive_share: float | None
    entropy: float | None
    border_share: float | None
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A decoded row on its way to the network.

    `view` is what the network sees (uint8, S x S x 3) and `model_box` where it lies in the upright picture.
    `canvas` is the picture as overlays show it (uint8, H x W x 4, red first, a byte without meaning last; not to be
    written to), or None where none is asked for.
    """

    width: int
    height: int
    crop: Box | None
    model_box: Box
    view: Bytes
    canvas: Bytes | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the network said of one row.

    `logits` and `probabilities` hold K values; `trigger` is the reason for explaining, None for a plain row. `shed` is
    set where there was a reason and no time.
    """

    logits: Floats
    probabilities: Floats
    trigger: str | None
    maps: tuple[ClassMap, ...]
    shed: bool = False

    @property
    def explained(self) -> bool:
        """Whether maps were made, or tried."""
        return self.trigger is not None and not self.shed

    @property
    def likeliest(self) -> int:
        """The class with the highest logit."""
        return int(self.logits.argmax())

    @property
    def best_two(self) -> tuple[float, float]:
        """The two highest probabilities; the second is 0 where there is one class only."""
        others = self.probabilities.copy()
        first = others.argmax()
        others[first] = 0
        return float(self.probabilities[first]), float(others.max())


@dataclass(frozen=True, slots=True)
class Image:
    """An encoded picture; `quality` is None where nothing was lost."""

    mime: str
    width: int
    height: int
    quality: int | None
    data: bytes


@dataclass(frozen=True, slots=True)
class Drawing:
    """The pictures and regions of one class; a picture is None where it was not asked for."""

    overlay: Image | None = None
    heatmap: Image | None = None
    regions: tuple[tuple[Box, float], ...] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back for one row."""

    status: int
    phrase: str
    mime: str
    body: bytes
    headers: Mapping[str, str]
    dropped: int = 0
    """Pictures and grids left out because it would have been too large."""


def highest(values: Floats, count: int) -> list[int]:
    """Where the `count` highest of many values stand, the highest first; of equal ones the first comes first."""
    if count == 1:
        return [int(values.argmax())]
    least = np.partition(values, -count)[-count] if count < len(values) else values.min()
    among = np.flatnonzero(values >= least)
    found: list[int] = among[np.argsort(-values[among], kind="stable")][:count].tolist()
    return found

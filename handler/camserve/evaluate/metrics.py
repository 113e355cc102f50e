"""METRICS: every number of the report, in the order of its columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of the metrics table: title, which way is better, decimals, and what the number means."""

    title: str
    better: Better
    decimals: int
    meaning: str

    @property
    def heading(self) -> str:
        """The title with an arrow to the better side."""
        return f"{self.title} {'↑' if self.better == 'higher' else '↓'}"


METRICS: Mapping[str, Metric] = {
    "energy": Metric(
        "mosaic energy",
        "higher",
        3,
        "Four pictures in one input: the share of the map's evidence that lies on the right one; chance is 0.25.",
    ),
    "pointing": Metric(
        "pointing", "higher", 3, "How often the map's highest cell lies on the right picture of four; chance is 0.25."
    ),
    "deletion": Metric(
        "deletion",
        "lower",
        3,
        "Area under the class's probability while the map's best cells are blurred first; a map of what matters "
        "makes it fall early.",
    ),
    "insertion": Metric(
        "insertion", "higher", 3, "The same while the best cells come back first into a picture that is all blurred."
    ),
    "drop": Metric(
        "average drop %",
        "lower",
        1,
        "How much of its probability the class loses when the picture is dimmed to what the map shows.",
    ),
    "increase": Metric("increase %", "higher", 1, "How often that makes the class more likely than the whole picture."),
    "road": Metric(
        "ROAD",
        "higher",
        3,
        "The class's probability with the worst cells removed, less that with the best removed, mean over 20, 40, 60 "
        "and 80 %; what is removed is imputed, so that no edge gives it away.",
    ),
    "correlation": Metric(
        "head randomised",
        "lower",
        2,
        "Rank correlation of the map with that of the same network with a random head; near 1, the map does not "
        "depend on what the network learnt of its classes.",
    ),
}

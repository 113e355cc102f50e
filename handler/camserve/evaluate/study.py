"""What an evaluation found: the numbers of every group, picture by picture, and how they compare."""

from __future__ import annotations

from dataclasses import dataclass, field

from camserve.evaluate.bootstrap import Estimate, estimate
from camserve.evaluate.faithfulness import Faithfulness
from camserve.evaluate.groups import Group
from camserve.evaluate.sample import Sample
from camserve.evaluate.subjects import Subject
from camserve.pipeline import Pipeline
from camserve.records import Floats


@dataclass(frozen=True, slots=True)
class Measured:
    """A group and its numbers: for each metric one a picture (N, nan where it was not measured), and its curves."""

    group: Group
    values: dict[str, Floats]
    curves: list[Faithfulness] = field(default_factory=list)

    @property
    def first(self) -> Subject:
        """The subject that speaks for the group."""
        return self.group.first


@dataclass(frozen=True, slots=True)
class Study:
    """What was measured, of what and how; `mosaic_side` is in pixels."""

    pipeline: Pipeline
    sample: Sample
    measured: tuple[Measured, ...]
    mosaics: int
    mosaic_side: int
    seed: int

    @property
    def methods(self) -> list[Measured]:
        """The groups that are no controls."""
        return [one for one in self.measured if not one.first.control]

    def estimate(self, one: Measured, metric: str) -> Estimate:
        """A mean with its interval."""
        return estimate(one.values[metric], self.seed)

    def difference(self, one: Measured, other: Measured, metric: str) -> Estimate:
        """One less the other, picture by picture."""
        return estimate(one.values[metric] - other.values[metric], self.seed)

    def control(self, one: Measured, name: str) -> Measured:
        """The control on the same grid."""
        return next(each for each in self.measured if each.first == Subject(name, "", one.first.grid))

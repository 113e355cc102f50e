"""The stages of a measurement: maps, mosaics, changes to the input, random heads. Each fills in its own numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from camserve.cam.gates import BATCHES
from camserve.evaluate.faithfulness import baseline, faithful
from camserve.evaluate.groups import Group, grouped
from camserve.evaluate.maps import control, maps
from camserve.evaluate.mosaic import Mosaic, composed, energy, enlargement, mosaics, pointing
from camserve.evaluate.predictor import Predictor
from camserve.evaluate.progress import batches, progress
from camserve.evaluate.randomisation import DRAWS, correlation, randomised
from camserve.evaluate.sample import Sample, tensor
from camserve.evaluate.study import Measured, Study
from camserve.evaluate.subjects import Subject, controls
from camserve.pipeline import Pipeline
from camserve.records import Floats

MOST_CHANGED = 48
"""Pictures that are changed cell by cell: each costs 26 forwards a map."""

MOST_RANDOMISED = 32
"""Pictures explained with random heads: each costs DRAWS maps a method."""

_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class _Work:
    """What every stage needs."""

    pipeline: Pipeline
    sample: Sample
    predict: Predictor
    seed: int

    def inputs(self, places: Sequence[int]) -> Tensor:
        """Pictures as the network's input; made when asked for, since all of them would fill the memory."""
        return tensor(self.pipeline, [self.sample.pictures[at].view for at in places])

    def some(self, most: int) -> list[int]:
        """The places of at most so many pictures, drawn by the seed, in order."""
        order = np.random.default_rng(self.seed).permutation(len(self.sample.pictures))
        return sorted(order[:most].tolist())

    def maps(self, subjects: Sequence[Subject], places: Sequence[int]) -> dict[Subject, list[Floats]]:
        """The map of each picture's class, controls included."""
        engine, classes = self.pipeline.engine, [(self.sample.pictures[at].class_id,) for at in places]
        methods = [one for one in subjects if not one.control]
        found = maps(engine, methods, self.inputs(places), classes)
        alone = {one: [row[0] for row in rows] for one, rows in found.items()}
        noise = {one: [control(one, 1, (self.seed, at)) for at in places] for one in subjects if one.control}
        return alone | noise


def measure(pipeline: Pipeline, sample: Sample, subjects: Sequence[Subject], seed: int) -> Study:
    """Measure the subjects and the controls on the sample. Subjects with the same maps are measured once."""
    one = tensor(pipeline, [sample.pictures[0].view])
    work = _Work(pipeline, sample, Predictor(pipeline.engine.network, one), seed)
    measured = tuple(Measured(group, {}) for group in _groups(work, (*subjects, *controls(subjects))))
    drawn = mosaics([one.class_id for one in sample.pictures], seed)
    times = enlargement(pipeline.engine.network, one)
    _play(work, measured, drawn, times)
    _change(work, measured)
    _randomise(work, measured)
    return Study(pipeline, sample, measured, len(drawn), times * pipeline.preprocessing.crop, seed)


def _groups(work: _Work, subjects: Sequence[Subject]) -> list[Group]:
    found: dict[Subject, list[Floats]] = {one: [] for one in subjects}
    for places in progress(batches(range(len(work.sample.pictures)), _AT_ONCE), "maps"):
        for one, rows in work.maps(subjects, places).items():
            found[one] += rows
    return grouped(found)


def _empty(work: _Work) -> Floats:
    """No value for any picture."""
    return np.full(len(work.sample.pictures), np.nan, np.float32)


def _play(work: _Work, measured: Sequence[Measured], drawn: Sequence[Mosaic], times: int) -> None:
    """Mosaic energy and pointing; a picture's value is the mean over the mosaics that ask for it."""
    sums = {one.first: np.zeros((2, len(work.sample.pictures))) for one in measured}
    asked = np.zeros(len(work.sample.pictures))
    for number, mosaic in enumerate(progress(drawn, "mosaics")):
        found = _mosaic_maps(work, measured, mosaic, times, number)
        for quadrant in mosaic.targets:
            asked[mosaic.members[quadrant]] += 1
        for subject, rows in found.items():
            for quadrant, row in zip(mosaic.targets, rows, strict=True):
                sums[subject][:, mosaic.members[quadrant]] += energy(row, quadrant), pointing(row, quadrant)
    for one in measured:
        means = np.where(asked > 0, sums[one.first] / np.maximum(asked, 1), np.nan).astype(np.float32)
        one.values["energy"], one.values["pointing"] = means


def _mosaic_maps(
    work: _Work, measured: Sequence[Measured], mosaic: Mosaic, times: int, number: int
) -> Mapping[Subject, list[Floats]]:
    """For each subject a map of each target's class."""
    pictures, side = work.sample.pictures, times * work.pipeline.preprocessing.crop
    whole = tensor(work.pipeline, [composed(mosaic, [one.view for one in pictures], side)])
    classes = tuple(pictures[mosaic.members[quadrant]].class_id for quadrant in mosaic.targets)
    methods = [one.first for one in measured if not one.first.control]
    found = maps(work.pipeline.engine, methods, whole, [classes], times)
    noise = {
        one.first: [control(one.first, times, (work.seed, number, quadrant)) for quadrant in mosaic.targets]
        for one in measured
        if one.first.control
    }
    return {one: rows[0] for one, rows in found.items()} | noise


def _change(work: _Work, measured: Sequence[Measured]) -> None:
    """Deletion, insertion, drop, increase and ROAD."""
    names = ("deletion", "insertion", "drop", "increase", "road")
    for one in measured:
        one.values.update({name: _empty(work) for name in names})
    black = tensor(work.pipeline, [np.zeros((1, 1, 3), np.uint8)])[0]
    for place in progress(work.some(MOST_CHANGED), "changes"):
        picture = work.sample.pictures[place]
        before = baseline(work.predict, work.inputs([place])[0], black, picture.class_id)
        for one in measured:
            after = faithful(work.predict, before, one.group.maps[place], work.seed + place)
            one.curves.append(after)
            for name, value in after.numbers(before.chance).items():
                one.values[name][place] = value


def _randomise(work: _Work, measured: Sequence[Measured]) -> None:
    """The correlation of each method's maps with those of random heads, mean over the heads."""
    methods = [one for one in measured if not one.first.control]
    places = work.some(MOST_RANDOMISED)
    for one in measured:
        one.values["correlation"] = _empty(work)
    for one in methods:
        one.values["correlation"][places] = 0
    steps = [(draw, part) for draw in range(DRAWS) for part in batches(places, _AT_ONCE)]
    for draw, part in progress(steps, "random heads"):
        with randomised(work.pipeline.engine, work.inputs(range(max(BATCHES))), work.seed + draw) as engine:
            classes = [(work.sample.pictures[at].class_id,) for at in part]
            found = maps(engine, [one.first for one in methods], work.inputs(part), classes)
        for one in methods:
            for place, rows in zip(part, found[one.first], strict=True):
                one.values["correlation"][place] += correlation(one.group.maps[place], rows[0]) / DRAWS

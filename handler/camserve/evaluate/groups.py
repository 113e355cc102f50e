"""Subjects whose maps are the same, up to a factor: measured once, told together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from camserve.cam.methods import METHODS
from camserve.evaluate.subjects import CONTROLS, Subject
from camserve.records import Floats

_TOLERANCE = 1e-3
"""Of a map's largest value. Float32 leaves far less, and methods that differ differ by far more."""

_ORDER = ("gradcam", *METHODS, *CONTROLS)
"""Of those that are the same the first speaks for all: the name that most people know."""


@dataclass(frozen=True, slots=True)
class Group:
    """Subjects with the same maps, the best known first, and those maps: N x h x w, signed."""

    subjects: tuple[Subject, ...]
    maps: Floats

    @property
    def first(self) -> Subject:
        """The subject that speaks for all."""
        return self.subjects[0]


def grouped(found: Mapping[Subject, Sequence[Floats]]) -> list[Group]:
    """The groups, in the order of their first subjects."""
    groups: list[Group] = []
    for subject in sorted(found, key=lambda one: _ORDER.index(one.method)):
        maps = np.stack(found[subject])
        same = next((at for at, group in enumerate(groups) if _same(group, subject, maps)), None)
        if same is None:
            groups.append(Group((subject,), maps))
        else:
            groups[same] = replace(groups[same], subjects=(*groups[same].subjects, subject))
    return groups


def _same(group: Group, subject: Subject, maps: Floats) -> bool:
    """Whether all maps are equal up to a positive factor each; a control is never the same as a method."""
    if group.maps.shape != maps.shape or group.first.control != subject.control:
        return False
    return np.allclose(_scaled(group.maps), _scaled(maps), rtol=0, atol=_TOLERANCE)


def _scaled(maps: Floats) -> Floats:
    """Each map over its largest size."""
    peaks = np.abs(maps).max((1, 2), keepdims=True)
    return np.asarray(maps / np.maximum(peaks, np.finfo(np.float32).tiny), np.float32)

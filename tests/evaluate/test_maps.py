"""Maps as the service computes them, on the grids on which they are measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from camserve.evaluate.maps import control, maps
from camserve.evaluate.subjects import Subject, chosen
from camserve.records import Task


def served(engine, subject, inputs, classes):
    """One picture at a time, with a forward of its own."""
    task = Task(subject.method, subject.layer, classes, None, "positive")
    return [one.map for one in engine.maps(engine.forward(inputs, [task]), [task])[0]]


@pytest.mark.parametrize("layers", [(), ("early",)], ids=["exact", "by gradients"])
def test_maps_are_those_of_the_service(seeded, layers):
    inputs = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    classes = [(1, 2), (3,), (9, 0)]
    subjects = chosen(seeded, (), layers)
    found = maps(seeded.engine, subjects, inputs, classes)
    for subject in subjects:
        for row, ids in enumerate(classes):
            expected = served(seeded.engine, subject, inputs[row : row + 1], ids)
            for ours, theirs in zip(found[subject][row], expected, strict=True):
                if theirs.shape == (64, 64):
                    theirs = np.maximum(theirs, 0).reshape(8, 8, 8, 8).mean((1, 3))
                assert ours.shape == subject.grid
                assert np.allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_grids_grow_with_the_input(seeded):
    subjects = chosen(seeded, ("gradcam", "saliency"), ())
    found = maps(seeded.engine, subjects, torch.rand(1, 3, 128, 128), [(0,)], 2)
    assert {one[0][0].shape for one in found.values()} == {(16, 16)}


def test_a_map_that_fails_is_empty(seeded, monkeypatch):
    monkeypatch.setattr(type(seeded.engine), "_class_maps", lambda *_: 1 / 0)
    (found,) = maps(seeded.engine, chosen(seeded, ("gradcam",), ()), torch.rand(1, 3, 64, 64), [(0,)]).values()
    assert not found[0][0].any()


def test_noise_is_new_for_every_picture_and_the_same_for_a_seed():
    random = Subject("random", "", (7, 7))
    one, other = control(random, 1, (0, 1)), control(random, 1, (0, 2))
    assert (one == control(random, 1, (0, 1))).all()
    assert (one != other).any()
    assert control(random, 2, (0, 1)).shape == (14, 14)


def test_the_centre_is_highest_in_the_middle_and_the_same_from_all_sides():
    found = control(Subject("centre", "", (7, 7)), 1, (0,))
    assert np.unravel_index(found.argmax(), found.shape) == (3, 3)
    assert np.allclose(found, found[::-1])
    assert np.allclose(found, found.T)
    assert found[3, 3] == 1
    assert found[3, 0] == pytest.approx(np.exp(-0.5 * (3 / 7 / 0.25) ** 2))

"""Verification by deletion: what is hidden, where, and what it measures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from camserve.cam.deletion import _masks, verify
from camserve.cam.gates import prove
from camserve.records import Task
from networks import CLASSES, inputs, network


class Corner(nn.Module):
    """Class 1 is the brightness of the upper left quarter; everything else is nothing."""

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[2] // 2
        bright = x[:, :, :half, :half].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(bright), bright], 1)


def lit() -> Tensor:
    """Bright in the upper left quarter only."""
    one = torch.zeros(3, 40, 40, dtype=torch.float64)
    one[:, :20, :20] = 4
    return one


def at_corner(value: float) -> np.ndarray:
    evidence = np.zeros((10, 10), np.float32)
    evidence[:5, :5] = value
    return evidence


def test_hiding_the_evidence_costs_more_than_its_control():
    (measured,) = verify(Corner(), [lit()], [at_corner(1)], [1])
    assert measured.area == 0.2
    assert measured.probability == pytest.approx(1 / (1 + math.exp(-4)))
    assert measured.without_top < measured.probability - 0.005
    assert measured.without_top < min(measured.without_random)


def test_a_map_that_points_elsewhere_costs_nothing():
    (measured,) = verify(Corner(), [lit()], [np.ascontiguousarray(at_corner(1)[::-1, ::-1])], [1])
    assert measured.without_top > measured.probability - 0.001


def test_a_fifth_of_the_cells_is_hidden_and_the_controls_are_moved():
    none, top, *controls = _masks(np.arange(49, dtype=np.float32).reshape(7, 7))
    assert none.sum() == 0
    assert np.flatnonzero(top).tolist() == list(range(39, 49))  # ceil(9.8) = 10 highest
    assert len(controls) == 3
    for control in controls:
        assert control.sum() == 10
        assert (control != top).any()
        shifts = [np.roll(top, (y, x), (0, 1)) for y in range(7) for x in range(7)]
        assert any((control == shift).all() for shift in shifts)
    assert len({control.tobytes() for control in controls}) == 3


def test_the_controls_are_the_same_every_time():
    evidence = np.random.default_rng(1).random((7, 7), np.float32)
    for one, other in zip(_masks(evidence), _masks(evidence), strict=True):
        assert (one == other).all()


def test_what_is_hidden_is_the_blurred_input():
    seen = []

    class Watch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x.mean((2, 3))

    one = inputs(1)[0]
    evidence = np.zeros((4, 4), np.float32)
    evidence[0, :] = 1  # the upper quarter, and one of 16 cells is 4 = ceil(3.2)
    list(verify(Watch(), [one], [evidence], [0]))
    untouched, without_top = seen[0][0], seen[0][1]
    assert torch.equal(untouched, one)
    sigma = 0.1 * 32
    blurred = gaussian_blur(one, 2 * math.ceil(3 * sigma) + 1, sigma)
    torch.testing.assert_close(without_top[:, :8], blurred[:, :8], rtol=0, atol=1e-12)  # ours is two passes
    assert torch.equal(without_top[:, 8:], one[:, 8:])


def test_many_maps_are_measured_in_bounded_batches():
    sizes = []

    class Watch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return x.mean((2, 3))

    list(verify(Watch(), list(inputs(8)) * 3, [np.eye(4, dtype=np.float32)] * 24, [0] * 24))
    assert sum(sizes) == 24 * 5
    assert max(sizes) <= 32


def test_an_input_is_blurred_once_however_many_maps_it_has(monkeypatch):
    from camserve.cam import deletion

    calls = []
    monkeypatch.setattr(deletion, "blurred", lambda one: calls.append(one) or one)
    batch = inputs(2)
    rows = [batch[0], batch[0], batch[1], batch[0]]
    list(verify(lambda x: x.mean((2, 3)), rows, [np.eye(4, dtype=np.float32)] * 4, [0] * 4))
    assert len(calls) == 2


def test_only_rows_that_ask_are_measured():
    engine = prove(network("closed form"), inputs(), CLASSES, None)
    asks = [
        Task("gradcam", engine.default, 2, None, "positive", verify=True),
        Task("gradcam", engine.default, 1, None, "positive"),
        None,
    ]
    trace = engine.forward(inputs(3), asks)
    first, second, third = engine.maps(trace, asks)
    chances = trace.logits.softmax(1)
    for one in first:
        assert one.verification.probability == pytest.approx(float(chances[0, one.class_id]), abs=1e-6)
    assert second[0].verification is None
    assert third == []


def test_a_verification_that_fails_leaves_the_map(monkeypatch):
    engine = prove(network("closed form"), inputs(), CLASSES, None)
    ask = Task("gradcam", engine.default, 1, None, "positive", verify=True)
    monkeypatch.setattr("camserve.cam.engine.verify", lambda *_: (_ for _ in ()).throw(MemoryError("no room")))
    (maps,) = engine.maps(engine.forward(inputs(1), [ask]), [ask])
    assert maps[0].map.any()
    assert maps[0].verification is None

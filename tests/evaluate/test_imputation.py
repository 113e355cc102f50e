"""Imputation against a direct solution of the same equations, ours and the ROAD authors'."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from camserve.evaluate.imputation import imputed

WEIGHTS = {(dy, dx): 1 / 6 if dy == 0 or dx == 0 else 1 / 12 for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx}
SILENT = torch.zeros(1)
CLOSE = 0.01
"""The noise that is added anyway."""


def by_hand(plane: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """One equation a removed pixel, solved densely."""
    height, width = plane.shape
    places = [tuple(place) for place in np.argwhere(removed)]
    matrix, right = np.zeros((len(places), len(places))), np.zeros(len(places))
    for row, (y, x) in enumerate(places):
        for (dy, dx), weight in WEIGHTS.items():
            near = (y + dy, x + dx)
            if not (0 <= near[0] < height and 0 <= near[1] < width):
                continue
            matrix[row, row] += weight
            if removed[near]:
                matrix[row, places.index(near)] -= weight
            else:
                right[row] += weight * plane[near]
    filled = plane.copy()
    filled[removed] = np.linalg.solve(matrix, right)
    return filled


def holes(kind: str, height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(3)
    if kind == "pixels":
        return random.random((height, width)) < 0.6
    cells = random.random((4, 4)) < {"few cells": 0.3, "most cells": 0.85}[kind]
    cells[0, 0], cells[3, 3] = False, True
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    return cells[np.ix_(rows, columns)]


@pytest.mark.parametrize("kind", ["few cells", "most cells", "pixels"])
@pytest.mark.parametrize("size", [(24, 24), (17, 22)], ids=["square", "odd"])
def test_the_filling_is_the_direct_solution(kind, size):
    picture = np.random.default_rng(1).normal(size=(3, *size)).cumsum(2) / 4
    removed = holes(kind, *size)
    ours = imputed(torch.from_numpy(picture)[None], torch.from_numpy(removed)[None, None], SILENT)[0].numpy()
    for plane, filled in zip(picture, ours, strict=True):
        expected = by_hand(plane, removed)
        assert np.abs(filled - expected).max() < 3 * CLOSE
        assert np.abs(filled - expected)[removed].mean() < CLOSE / 2


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # theirs, about NumPy 2
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_we_agree_with_the_imputer_of_pytorch_grad_cam(share):
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer
    from skimage.data import chelsea

    picture = torch.from_numpy(chelsea()[60:172, 120:232].copy()).permute(2, 0, 1).float() / 60 - 2
    cells = torch.rand(7, 7, generator=torch.Generator().manual_seed(2)) < share
    removed = cells.repeat_interleave(16, 0).repeat_interleave(16, 1)
    theirs = NoisyLinearImputer(noise=0)(picture, (~removed).int())
    ours = imputed(picture[None], removed[None, None], SILENT)[0]
    assert (ours - theirs).abs().max() < 3 * CLOSE
    assert (ours - theirs)[:, removed].abs().mean() < CLOSE / 2


def test_an_even_slope_is_restored():
    slope = torch.linspace(0, 1, 32, dtype=torch.float64).expand(1, 3, 32, 32).clone()
    removed = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    removed[..., 8:24, 8:24] = True
    broken = torch.where(removed, 9.0, slope)
    assert torch.allclose(imputed(broken, removed, SILENT), slope, atol=1e-3)


def test_what_stays_is_untouched_and_only_the_filling_is_noisy():
    picture = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    removed = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(2)) < 0.5
    noise = torch.full((3, 16, 16), 0.5)
    noisy, silent = imputed(picture, removed, noise), imputed(picture, removed, SILENT)
    kept = ~removed.expand_as(picture)
    assert torch.equal(noisy[kept], picture[kept])
    assert torch.allclose(noisy[~kept], silent[~kept] + 0.5)


def test_each_picture_of_a_batch_is_filled_on_its_own():
    pictures = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    removed = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(2)) < 0.5
    both = imputed(pictures, removed, SILENT)
    alone = torch.cat([imputed(pictures[at : at + 1], removed[at : at + 1], SILENT) for at in range(2)])
    assert (both - alone).abs().max() < 3 * CLOSE

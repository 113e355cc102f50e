"""Every method as a function of A and G, against its second implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import reference
from camserve.cam.methods import METHODS


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", reference.METHODS)
@pytest.mark.parametrize("equal", [False, True], ids=["gradient by cell", "gradient equal in all cells"])
@pytest.mark.parametrize("channels", [5, 40], ids=["more cells than channels", "more channels than cells"])
def test_method_equals_the_reference(name, equal, channels):
    A = random(1, 3, channels, 4, 6)
    G = random(2, 3, channels, 1, 1) if equal else random(2, 3, channels, 4, 6)
    if equal and name == "xgradcam":
        A = A.abs()  # the shares of a channel that sums to zero do not exist
    maps = METHODS[name].map(A, G).numpy()
    for row in range(3):
        full = np.broadcast_to(G[row].numpy(), A[row].shape)
        np.testing.assert_allclose(maps[row], reference.METHODS[name](A[row].numpy(), full), atol=1e-9)


def test_cam_is_gradcam_where_the_gradient_is_the_heads_weight():
    A, weight = random(3, 1, 5, 4, 6), random(4, 5)
    found = METHODS["cam"].map(A, weight[None, :, None, None] / 24)[0].numpy() * 24
    np.testing.assert_allclose(found, reference.cam(A[0].numpy(), weight.numpy()), atol=1e-12)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.parts])
def test_the_channels_parts_sum_to_the_map(name):
    A, G = random(5, 2, 5, 4, 6), random(6, 2, 5, 4, 6)
    np.testing.assert_allclose(METHODS[name].parts(A, G).sum(1), METHODS[name].map(A, G), atol=1e-12)


def test_a_channel_without_activation_does_not_break_xgradcam():
    A, G = random(7, 1, 3, 4, 4), random(8, 1, 3, 4, 4)
    A[0, 1] = 0
    assert METHODS["xgradcam"].map(A, G).isfinite().all()


def test_a_channel_without_gradient_does_not_break_gradcam_plus_plus():
    A, G = random(9, 1, 3, 4, 4), random(10, 1, 3, 4, 4)
    G[0, 1] = 0
    assert METHODS["gradcam++"].map(A, G).isfinite().all()


@pytest.mark.parametrize("shape", [(32, 112, 112), (2048, 7, 7)], ids=["early layer", "late layer"])
def test_principal_directions_come_from_the_smaller_matrix(shape, monkeypatch):
    """The larger one takes gigabytes and minutes, and the workers that make it are ended."""
    sizes, eigh = [], torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: sizes.append(matrix.shape[-1]) or eigh(matrix))
    A = random(11, 1, *shape)
    assert METHODS["eigencam"].map(A, A).isfinite().all()
    assert METHODS["eigengradcam"].map(A, A).isfinite().all()
    assert sizes == [min(shape[0], shape[1] * shape[2])] * 2


def test_every_method_of_a_layers_gradient_has_a_second_implementation():
    of_a_layer = {name for name, method in METHODS.items() if method.needs in ("gradient", "activations")}
    assert of_a_layer == reference.METHODS.keys()

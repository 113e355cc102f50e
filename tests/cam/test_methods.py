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
def test_method_equals_the_reference(name, equal):
    A = random(1, 3, 5, 4, 6)
    G = random(2, 3, 5, 1, 1) if equal else random(2, 3, 5, 4, 6)
    maps = METHODS[name].map(A, G).numpy()
    for row in range(3):
        full = np.broadcast_to(G[row].numpy(), A[row].shape)
        np.testing.assert_allclose(maps[row], reference.METHODS[name](A[row].numpy(), full), atol=1e-12)


def test_cam_is_gradcam_where_the_gradient_is_the_heads_weight():
    A, weight = random(3, 1, 5, 4, 6), random(4, 5)
    found = METHODS["cam"].map(A, weight[None, :, None, None] / 24)[0].numpy() * 24
    np.testing.assert_allclose(found, reference.cam(A[0].numpy(), weight.numpy()), atol=1e-12)


def test_every_method_has_a_second_implementation():
    assert METHODS.keys() == reference.METHODS.keys() | {"cam"}

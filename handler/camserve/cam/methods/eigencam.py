"""Eigen-CAM and Eigen-Grad-CAM: the direction in which a layer's cells vary most.

    map = X v,  X = the h·w cells by their C channels, centred;  v = the first right singular vector of X

Muhammad and Yeasin, Eigen-CAM: Class Activation Map using Principal Components, IJCNN 2020.
Eigen-CAM takes X = A and looks at no class at all; Eigen-Grad-CAM takes X = A · dy/dA.
The sign of v is arbitrary: it is chosen so that the map agrees with the sum over channels.
The columns are centred, as the reference code does; the paper leaves that open.
"""

from __future__ import annotations

import torch
from torch import Tensor

from camserve.cam.methods.base import Method


def principal(maps: Tensor) -> Tensor:
    """P x C x h x w to the projection on the first principal direction, P x h x w."""
    cells = maps.flatten(2).transpose(1, 2)
    centred = cells - cells.mean(1, keepdim=True)
    # The h·w x h·w Gram matrix has the same principal direction and is much smaller than C x C.
    values, vectors = torch.linalg.eigh(centred @ centred.transpose(1, 2))
    projected = vectors[..., -1] * values[..., -1:].clamp(min=0).sqrt()
    whole = cells.sum(2)
    agreement = (projected * (whole - whole.mean(1, keepdim=True))).sum(1, keepdim=True)
    return torch.where(agreement < 0, -projected, projected).reshape(len(maps), *maps.shape[2:])


def of_activations(activations: Tensor, gradients: Tensor) -> Tensor:
    """A (P x C x h x w) to maps (P x h x w); gradients are not looked at."""
    return principal(activations)


def of_products(activations: Tensor, gradients: Tensor) -> Tensor:
    """A, dy/dA (P x C x h x w) to maps (P x h x w)."""
    return principal(gradients * activations)


EIGENCAM = Method(
    "Eigen-CAM", "Muhammad and Yeasin 2020", of_activations, needs="activations", polarity=False, discriminative=False
)
EIGENGRADCAM = Method("Eigen-Grad-CAM", "Muhammad and Yeasin 2020", of_products, polarity=False)

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
    projected = _projected(centred)
    whole = cells.sum(2)
    agreement = (projected * (whole - whole.mean(1, keepdim=True))).sum(1, keepdim=True)
    return torch.where(agreement < 0, -projected, projected).reshape(len(maps), *maps.shape[2:])


def _projected(centred: Tensor) -> Tensor:
    """X (P x h·w x C) to X v, P x h·w: from the eigenvectors of X'X or of XX', whichever matrix is smaller.

    A late layer has far more channels than cells; an early one has so many cells that XX' would take gigabytes.
    """
    across = centred.transpose(1, 2)
    if centred.shape[2] < centred.shape[1]:
        _, directions = torch.linalg.eigh(across @ centred)
        return torch.matmul(centred, directions[..., -1:])[..., 0]
    squares, projections = torch.linalg.eigh(centred @ across)
    projected: Tensor = projections[..., -1] * squares[..., -1:].clamp(min=0).sqrt()
    return projected


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

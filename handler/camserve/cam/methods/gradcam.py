"""Grad-CAM: channels weighted by their mean gradient.

    a_k = mean over cells of dy/dA_k        map = sum_k a_k A_k

Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV 2017.
The paper's final ReLU is left to the polarity, so that evidence against a class is not lost.
"""

from __future__ import annotations

import torch
from torch import Tensor

from camserve.cam.methods.base import Method


def weighted_sum(activations: Tensor, gradients: Tensor) -> Tensor:
    """A, dy/dA (P x C x h x w) to maps (P x h x w)."""
    # As a product of matrices; einsum takes twice as long to find that it is one.
    products = torch.bmm(_means(gradients)[:, None], activations.flatten(2))
    return products.view(-1, *activations.shape[2:])


def weighted_channels(activations: Tensor, gradients: Tensor) -> Tensor:
    """A, dy/dA to what each channel adds to the map (P x C x h x w)."""
    return gradients.mean((2, 3), keepdim=True) * activations


def _means(gradients: Tensor) -> Tensor:
    """Each channel's mean, P x C; a gradient that is equal in all cells comes as P x C x 1 x 1."""
    cells = gradients.flatten(2)
    return cells[:, :, 0] if cells.shape[2] == 1 else cells.mean(2)


GRADCAM = Method("Grad-CAM", "Selvaraju et al. 2017", weighted_sum, linear=True, parts=weighted_channels)

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
    return torch.einsum("pc,pchw->phw", gradients.mean((2, 3)), activations)


def weighted_channels(activations: Tensor, gradients: Tensor) -> Tensor:
    """A, dy/dA to what each channel adds to the map (P x C x h x w)."""
    return gradients.mean((2, 3), keepdim=True) * activations


GRADCAM = Method("Grad-CAM", "Selvaraju et al. 2017", weighted_sum, linear=True, parts=weighted_channels)

"""Grad-CAM++: channels weighted by their positive gradients, each cell by its share in them.

    a_k = g_k^2 / (2 g_k^2 + g_k^3 sum over cells of A_k)        with g = dy/dA
    map = sum_k (sum over cells of a_k max(g_k, 0)) A_k

Chattopadhay et al., Grad-CAM++: Generalized Gradient-Based Visual Explanations, WACV 2018.
The paper's score is exp(y), whose derivative adds one positive factor to the whole map: left out, so that a
large logit cannot overflow. Where the denominator is zero so is the gradient, and the cell counts nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from camserve.cam.methods.base import Method


def _weights(activations: Tensor, gradients: Tensor) -> Tensor:
    """P x C x 1 x 1."""
    g = gradients.expand_as(activations)
    below = 2 * g**2 + g**3 * activations.sum((2, 3), keepdim=True)
    share = torch.where(below == 0, torch.zeros_like(below), g**2 / torch.where(below == 0, 1.0, below))
    return (share * g.clamp(min=0)).sum((2, 3), keepdim=True)


def weighted_sum(activations: Tensor, gradients: Tensor) -> Tensor:
    """A, dy/dA (P x C x h x w) to maps (P x h x w)."""
    return (_weights(activations, gradients) * activations).sum(1)


def weighted_channels(activations: Tensor, gradients: Tensor) -> Tensor:
    """A, dy/dA to what each channel adds to the map (P x C x h x w)."""
    return _weights(activations, gradients) * activations


GRADCAM_PLUS_PLUS = Method("Grad-CAM++", "Chattopadhay et al. 2018", weighted_sum, parts=weighted_channels)

"""XGrad-CAM: channels weighted by their gradients, each cell by its share of the channel's activation.

    w_k = sum over cells of (dy/dA_k · A_k / sum over cells of A_k)        map = sum_k w_k A_k

Fu et al., Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs, BMVC 2020.
A channel whose activations sum to zero has no shares: it counts by its mean gradient, as in Grad-CAM.
"""

from __future__ import annotations

import torch
from torch import Tensor

from camserve.cam.methods.base import Method


def _weights(activations: Tensor, gradients: Tensor) -> Tensor:
    """P x C x 1 x 1."""
    if gradients.shape[2:] == (1, 1):
        return gradients  # equal in all cells: the shares sum to one, whatever they are
    total = activations.sum((2, 3), keepdim=True)
    shared = (gradients * activations).sum((2, 3), keepdim=True) / torch.where(total == 0, 1.0, total)
    return torch.where(total == 0, gradients.mean((2, 3), keepdim=True), shared)


def weighted_channels(activations: Tensor, gradients: Tensor) -> Tensor:
    """A, dy/dA to what each channel adds to the map (P x C x h x w)."""
    return _weights(activations, gradients) * activations


def weighted_sum(activations: Tensor, gradients: Tensor) -> Tensor:
    """A, dy/dA (P x C x h x w) to maps (P x h x w)."""
    return weighted_channels(activations, gradients).sum(1)


XGRADCAM = Method("XGrad-CAM", "Fu et al. 2020", weighted_sum, linear=True, parts=weighted_channels)

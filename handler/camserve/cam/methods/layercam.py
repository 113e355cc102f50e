"""LayerCAM: activations weighted by their own positive gradient.

    map = sum_k max(dy/dA_k, 0) · A_k

Jiang et al., LayerCAM: Exploring Hierarchical Class Activation Maps for Localization, TIP 2021.
"""

from __future__ import annotations

from torch import Tensor

from camserve.cam.methods.base import Method


def positive_products(activations: Tensor, gradients: Tensor) -> Tensor:
    """A, dy/dA to what each channel adds to the map (P x C x h x w)."""
    return gradients.clamp(min=0) * activations


def summed(activations: Tensor, gradients: Tensor) -> Tensor:
    """A, dy/dA (P x C x h x w) to maps (P x h x w)."""
    return positive_products(activations, gradients).sum(1)


LAYERCAM = Method("LayerCAM", "Jiang et al. 2021", summed, parts=positive_products)

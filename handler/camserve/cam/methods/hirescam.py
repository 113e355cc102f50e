"""HiResCAM: gradient times activation, cell by cell.

    map = sum_k dy/dA_k · A_k

Draelos and Carin, Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional networks, 2020.
"""

from __future__ import annotations

from torch import Tensor

from camserve.cam.methods.base import Method


def cell_products(activations: Tensor, gradients: Tensor) -> Tensor:
    """A, dy/dA to what each channel adds to the map (P x C x h x w)."""
    return gradients * activations


def summed(activations: Tensor, gradients: Tensor) -> Tensor:
    """A, dy/dA (P x C x h x w) to maps (P x h x w)."""
    return cell_products(activations, gradients).sum(1)


HIRESCAM = Method("HiResCAM", "Draelos and Carin 2020", summed, linear=True, parts=cell_products)

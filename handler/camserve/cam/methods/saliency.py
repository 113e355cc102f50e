"""Saliency: how strongly each pixel of the input would move the score.

    map = max over colours of |dy/dx|

Simonyan et al., Deep Inside Convolutional Networks: Visualising Image Classification Models and Saliency Maps, 2014.
"""

from __future__ import annotations

from torch import Tensor

from camserve.cam.methods.base import Method


def strongest(inputs: Tensor, gradients: Tensor) -> Tensor:
    """x, dy/dx (P x 3 x H x W) to maps (P x H x W), never negative."""
    return gradients.abs().amax(1)


SALIENCY = Method("Saliency", "Simonyan et al. 2014", strongest, needs="input gradient", polarity=False)

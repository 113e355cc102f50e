"""Guided backpropagation, deconvolution, and Guided Grad-CAM: input gradients under another rule for rectifiers.

    map = sum over colours of dy/dx, gradients passed back by the rule (rectifiers.py)
    Guided Grad-CAM: that, times max(Grad-CAM, 0) enlarged to the input

Springenberg et al., Striving for Simplicity: The All Convolutional Net, 2015 (guided).
Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014 (deconvolution).
Selvaraju et al., Grad-CAM, ICCV 2017 (Guided Grad-CAM).
They draw edges sharply and change little when a network's head is randomised: a picture, not a proof.
"""

from __future__ import annotations

from torch import Tensor

from camserve.cam.methods.base import Method


def summed_colours(inputs: Tensor, gradients: Tensor) -> Tensor:
    """x, dy/dx (P x 3 x H x W) to maps (P x H x W)."""
    return gradients.sum(1)


GUIDED_BACKPROP = Method(
    "Guided backpropagation", "Springenberg et al. 2015", summed_colours, needs="input gradient", rule="guided"
)
DECONVNET = Method("Deconvolution", "Zeiler and Fergus 2014", summed_colours, needs="input gradient", rule="deconv")
GUIDED_GRADCAM = Method(
    "Guided Grad-CAM", "Selvaraju et al. 2017", summed_colours, needs="input gradient", rule="guided", times="gradcam"
)

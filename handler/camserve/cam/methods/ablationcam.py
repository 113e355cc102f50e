"""Ablation-CAM: channels weighted by how far the score falls without them.

    w_k = (y - y_k) / |y|,  y_k = the score with A_k set to zero        map = sum_k w_k A_k

Ramaswamy and Joshi, Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free
Localization, WACV 2020. The paper divides by y; a negative score would turn the map around, so |y| it is.
"""

from __future__ import annotations

from torch import Tensor

from camserve.cam.methods.base import Method
from camserve.cam.methods.gradcam import weighted_channels, weighted_sum


def falls(score: Tensor, changed: Tensor) -> Tensor:
    """The score and the C scores without each channel to C weights."""
    return (score - changed) / score.abs().clamp(min=1e-12)


ABLATIONCAM = Method(
    "Ablation-CAM",
    "Ramaswamy and Joshi 2020",
    weighted_sum,
    needs="forwards",
    parts=weighted_channels,
    weigh=falls,
    changes="layer",
)

"""Score-CAM: channels weighted by the score of the input seen through them.

    w = softmax over k of y(x · H_k),  H_k = A_k enlarged to the input and scaled to [0, 1]
    map = sum_k w_k A_k

Wang et al., Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks, CVPRW 2020.
The paper subtracts the score of a baseline from each y; under the softmax that changes nothing.
"""

from __future__ import annotations

from torch import Tensor

from camserve.cam.methods.base import Method
from camserve.cam.methods.gradcam import weighted_channels, weighted_sum


def softened(score: Tensor, changed: Tensor) -> Tensor:
    """The C scores of the masked inputs to C weights; the plain score is not needed."""
    return changed.softmax(0)


SCORECAM = Method(
    "Score-CAM",
    "Wang et al. 2020",
    weighted_sum,
    needs="forwards",
    parts=weighted_channels,
    weigh=softened,
    changes="input",
)

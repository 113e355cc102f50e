"""CAM: the weights of the linear head, applied to the maps that are averaged for it.

    map_c = 1/(h·w) · sum_k W[c,k] A_k

Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016.
Behind a global average pool the gradient of the logit is W[c,k] / (h·w) in every cell, so Grad-CAM's form serves.
"""

from __future__ import annotations

from camserve.cam.methods.base import Method
from camserve.cam.methods.gradcam import weighted_channels, weighted_sum

CAM = Method("CAM", "Zhou et al. 2016", weighted_sum, needs="closed form", linear=True, parts=weighted_channels)

"""METHODS: every method by its public name."""

from __future__ import annotations

from collections.abc import Mapping

from camserve.cam.methods.ablationcam import ABLATIONCAM
from camserve.cam.methods.base import Method
from camserve.cam.methods.cam import CAM
from camserve.cam.methods.eigencam import EIGENCAM, EIGENGRADCAM
from camserve.cam.methods.gradcam import GRADCAM
from camserve.cam.methods.gradcam_plus_plus import GRADCAM_PLUS_PLUS
from camserve.cam.methods.guided import DECONVNET, GUIDED_BACKPROP, GUIDED_GRADCAM
from camserve.cam.methods.hirescam import HIRESCAM
from camserve.cam.methods.layercam import LAYERCAM
from camserve.cam.methods.saliency import SALIENCY
from camserve.cam.methods.scorecam import SCORECAM
from camserve.cam.methods.xgradcam import XGRADCAM

METHODS: Mapping[str, Method] = {
    "cam": CAM,
    "gradcam": GRADCAM,
    "gradcam++": GRADCAM_PLUS_PLUS,
    "hirescam": HIRESCAM,
    "xgradcam": XGRADCAM,
    "layercam": LAYERCAM,
    "eigencam": EIGENCAM,
    "eigengradcam": EIGENGRADCAM,
    "scorecam": SCORECAM,
    "ablationcam": ABLATIONCAM,
    "saliency": SALIENCY,
    "guided_backprop": GUIDED_BACKPROP,
    "guided_gradcam": GUIDED_GRADCAM,
    "deconvnet": DECONVNET,
}

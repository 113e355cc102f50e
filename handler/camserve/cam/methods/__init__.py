"""METHODS: every method by its public name."""

from __future__ import annotations

from collections.abc import Mapping

from camserve.cam.methods.base import Method
from camserve.cam.methods.cam import CAM
from camserve.cam.methods.gradcam import GRADCAM
from camserve.cam.methods.hirescam import HIRESCAM
from camserve.cam.methods.layercam import LAYERCAM

METHODS: Mapping[str, Method] = {
    "cam": CAM,
    "gradcam": GRADCAM,
    "hirescam": HIRESCAM,
    "layercam": LAYERCAM,
}

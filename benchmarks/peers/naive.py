"""The handler most people would write: TorchServe's image classifier, and pytorch-grad-cam picture by picture.

Kind to itself, it decodes a picture once and draws the overlay on the 224 x 224 pixels that the network saw.
"""

import base64
import io

import numpy as np
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import show_cam_on_image
from torchvision import transforms
from ts.torch_handler.image_classifier import ImageClassifier


class ExplainingClassifier(ImageClassifier):
    """Predictions, and Grad-CAM of the likeliest class."""

    seen = transforms.Compose(ImageClassifier.image_processing.transforms[:2])  # resized and cropped
    normalised = transforms.Compose(ImageClassifier.image_processing.transforms[2:])

    def initialize(self, context):
        """Load the model and prepare Grad-CAM for its last block."""
        super().initialize(context)
        self.cam = GradCAM(model=self.model, target_layers=[self.model.layer4[-1]])

    def preprocess(self, data):
        """Keep the pixels that the network sees, to draw on."""
        pictures = [Image.open(io.BytesIO(row.get("data") or row.get("body"))).convert("RGB") for row in data]
        views = [self.seen(picture) for picture in pictures]
        self.pixels = [np.float32(view) / 255 for view in views]
        return torch.stack([self.normalised(view) for view in views]).to(self.device)

    def inference(self, data, *args, **kwargs):
        """Logits, and a map for each row."""
        logits = super().inference(data, *args, **kwargs)
        self.maps = self.explained(data)
        return logits

    def explained(self, data):
        """Maps of the likeliest class, N x 224 x 224, one picture at a time."""
        return [self.cam(input_tensor=row[None], targets=None)[0] for row in data]

    def postprocess(self, data):
        """Predictions and overlay of each row."""
        overlays = [show_cam_on_image(*pair, use_rgb=True) for pair in zip(self.pixels, self.maps, strict=True)]
        return [
            {"predictions": predictions, "overlay": encoded(overlay)}
            for predictions, overlay in zip(super().postprocess(data), overlays, strict=True)
        ]


def encoded(pixels):
    """A PNG as base64 text."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()

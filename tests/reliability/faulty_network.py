"""A network that knows three colours, takes its time for dark ones, hangs at white and breaks at grey: Faulty.forward.

It travels in an archive, so it imports nothing of the tests.
"""

import os
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

HANG = 600
"""Seconds, far more than any timeout."""

SLOW = 1
"""Seconds that a dark picture takes; far less than any timeout."""


class Faulty(nn.Module):
    """Red, green, blue: the channel with the highest mean. An 8 x 8 grid."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = False
        self.features = nn.Sequential(nn.Conv2d(3, 3, 4, stride=4), nn.ReLU())
        self.head = nn.Linear(3, 3)
        with torch.no_grad():
            for part in (self.features[0], self.head):
                part.weight.zero_()
                part.bias.zero_()
            for channel in range(3):
                self.features[0].weight[channel, channel] = 1 / 16
                self.head.weight[channel, channel] = 8

    def forward(self, pictures: Tensor) -> Tensor:
        """N x 3 x 32 x 32, from 0 to 1, to N x 3; a file names the process that has a dark picture in work."""
        brightest = pictures.amax((1, 2, 3))
        if bool(((brightest > 0.03) & (brightest < 0.1)).any()):
            (Path(tempfile.gettempdir()) / f"slow-{os.getpid()}").touch()
            time.sleep(SLOW)
        if bool((pictures.amin((1, 2, 3)) > 0.99).any()):
            time.sleep(HANG)
        if bool(((pictures - 0.5).abs().amax((1, 2, 3)) < 0.05).any()) and _is_first():
            self.lost = True
        if self.lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        features: Tensor = self.features(pictures)
        return self.head(torch.mean(features, (2, 3)))


def _is_first() -> bool:
    """Whether this is the first grey picture that any of TorchServe's workers has."""
    try:
        (Path(tempfile.gettempdir()) / "lost").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

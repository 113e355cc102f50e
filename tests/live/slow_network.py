"""A network whose time is known: it sleeps, so that neither the machine nor the client decides how much it can do.

It travels in an archive, so it imports nothing of the tests.
"""

import time

import torch
from torch import Tensor, nn

FORWARD = 0.05
"""Seconds that a forward takes at least, whatever the batch."""


class Slow(nn.Module):
    """Three classes, an 8 x 8 grid."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, stride=4, padding=1), nn.ReLU())
        self.head = nn.Linear(6, 3)

    def forward(self, pictures: Tensor) -> Tensor:
        """N x 3 x 32 x 32 to N x 3."""
        time.sleep(FORWARD)
        features: Tensor = self.features(pictures)
        return self.head(torch.mean(features, (2, 3)))

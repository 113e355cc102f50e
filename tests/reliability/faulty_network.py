"""A network that knows three colours, and hangs at a white picture. It travels in an archive: it imports no test."""

import time

import torch
from torch import Tensor, nn

HANG = 600
"""Seconds, far more than any timeout."""


class Faulty(nn.Module):
    """Red, green, blue: the channel with the highest mean. An 8 x 8 grid."""

    def __init__(self) -> None:
        super().__init__()
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
        """N x 3 x 32 x 32, from 0 to 1, to N x 3."""
        if bool((pictures.amin((1, 2, 3)) > 0.99).any()):
            time.sleep(HANG)
        features: Tensor = self.features(pictures)
        return self.head(torch.mean(features, (2, 3)))

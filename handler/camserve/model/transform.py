"""A Picture to the network's input, and the box of the picture that the input shows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
import torch
from torch import Tensor

from camserve.imaging.picture import Picture
from camserve.imaging.resize import resized
from camserve.records import Box, Bytes, Floats
from camserve.settings import Preprocessing


def view(picture: Picture, preprocessing: Preprocessing) -> tuple[Bytes, Box]:
    """What the network sees: the shorter side (or both) resized, then the centre crop.

    Returns:
        uint8 pixels, S x S x 3, equal to torchvision's and timm's resize and centre crop of the same
        picture; and the box they cover, in pixels of `picture`.
    """
    width, height = _resized_size(picture, preprocessing)
    side = preprocessing.crop
    left, top = _middle(width, side), _middle(height, side)
    part = (left, top, left + side, top + side)
    pixels = resized(picture, (width, height), part, preprocessing.interpolation)
    x, y = picture.width / width, picture.height / height
    return pixels, (part[0] * x, part[1] * y, part[2] * x, part[3] * y)


def to_input(views: Sequence[Bytes], preprocessing: Preprocessing, device: torch.device) -> Tensor:
    """N views as a normalised float32 tensor on the device, N x 3 x S x S, with the channels last in memory."""
    if device.type != "cpu":
        return _normalised(torch.from_numpy(np.stack(views)).pin_memory().to(device, non_blocking=True), preprocessing)
    filled = np.empty((len(views), *views[0].shape), np.float32)
    table = _table(preprocessing)
    for one, place in zip(views, filled, strict=True):
        place[:] = cv2.LUT(one, table)
    return torch.from_numpy(filled).permute(0, 3, 1, 2)


@cache
def _table(preprocessing: Preprocessing) -> Floats:
    """What each of 256 levels becomes in each channel, 256 x 1 x 3."""
    levels = torch.arange(256, dtype=torch.uint8)[:, None, None].expand(256, 1, 3)
    return np.ascontiguousarray(_normalised(levels[None], preprocessing)[0].permute(1, 2, 0).numpy())


def _normalised(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Pixels N x H x W x 3 as (value / 255 - mean) / std, N x 3 x H x W."""
    whole, mean, std = _scale(preprocessing, pixels.device)
    return pixels.to(torch.float32).div_(whole).sub_(mean).div_(std).permute(0, 3, 1, 2)


@cache
def _scale(preprocessing: Preprocessing, device: torch.device) -> tuple[Tensor, ...]:
    """255, and mean and standard deviation of each channel. By a bare number, a GPU does not divide to the last bit."""
    return tuple(torch.tensor(one, device=device) for one in ([255.0], preprocessing.mean, preprocessing.std))


def _resized_size(picture: Picture, preprocessing: Preprocessing) -> tuple[int, int]:
    """Width and height with the shorter side at `resize`; the longer is cut to whole pixels."""
    width, height, shorter = picture.width, picture.height, preprocessing.resize
    if preprocessing.squash:
        return shorter, shorter
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter


def _middle(length: int, part: int) -> int:
    """Offset of the middle `part` of `length`; halves round to even, as torchvision does."""
    return round((length - part) / 2.0)

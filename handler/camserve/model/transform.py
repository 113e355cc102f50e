"""A Picture to the network's input, and the box of the picture that the input shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from camserve.imaging.resize import resized
from camserve.records import Box, Bytes, Picture
from camserve.settings import Preprocessing


def view(picture: Picture, preprocessing: Preprocessing) -> tuple[Bytes, Box]:
    """What the network sees: the shorter side (or both) resized, then the centre crop.

    Returns:
        uint8 pixels, S x S x 3, equal to torchvision's and timm's resize and centre crop of the same
        picture; and the box they cover, in pixels of `picture`.
    """
    width, height = _resized_size(picture, preprocessing)
    pixels = resized(picture, width, height, preprocessing.interpolation)
    side = preprocessing.crop
    left, top = _middle(width, side), _middle(height, side)
    x, y = picture.width / width, picture.height / height
    box = (left * x, top * y, (left + side) * x, (top + side) * y)
    return np.ascontiguousarray(pixels[top : top + side, left : left + side]), box


def to_input(views: Sequence[Bytes], preprocessing: Preprocessing, device: torch.device) -> Tensor:
    """N views as a normalised float32 tensor, N x 3 x S x S, on the device."""
    pixels = torch.from_numpy(np.stack(views)).to(device)
    scaled = pixels.permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255)
    mean, std = (torch.tensor(c, device=device).view(3, 1, 1) for c in (preprocessing.mean, preprocessing.std))
    return scaled.sub_(mean).div_(std)


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

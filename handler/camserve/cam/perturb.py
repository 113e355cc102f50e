"""Logits under changes, one forward a channel: for the methods that ask the network instead of its gradient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camserve.cam.layers import Layer

_AT_ONCE = 32


def without_channels(network: nn.Module, layer: Layer, one: Tensor, output: Tensor) -> Tensor:
    """Logits with each channel of the layer set to zero, C x K.

    The part of the network before the layer runs on the input once a block of channels, not once a channel.

    Args:
        network: returns logits, N x K.
        layer: whose channels are switched off.
        one: the input, 1 x 3 x H x W.
        output: what the layer put out for it, a batch of one.
    """
    along = 1 if layer.reshape is None else output.ndim - 1  # tokens carry their channels last
    logits = []
    for block in torch.split(torch.arange(layer.channels), _AT_ONCE):
        changed = output.repeat(len(block), *[1] * (output.ndim - 1))
        for row, channel in enumerate(block):
            changed[row].select(along - 1, int(channel)).zero_()
        with _output(layer, changed):
            logits.append(_run(network, one, len(block)))
    return torch.cat(logits)


def masked(network: nn.Module, one: Tensor, maps: Tensor) -> Tensor:
    """Logits of the input (1 x 3 x H x W) times each channel's map (C x h x w), enlarged and then scaled to [0, 1].

    Returns C x K.
    """
    logits = []
    for block in torch.split(maps, _AT_ONCE):
        masks = F.interpolate(block[:, None], one.shape[2:], mode="bilinear", align_corners=False)
        low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
        logits.append(network(one * ((masks - low) / (high - low).clamp(min=1e-12))))
    return torch.cat(logits)


def _run(network: nn.Module, one: Tensor, rows: int) -> Tensor:
    """The network on one input where that broadcasts behind the layer, else on as many copies as there are rows."""
    try:
        logits: Tensor = network(one)
        if len(logits) == rows:
            return logits
    except RuntimeError:
        pass  # a concatenation with a branch beside the layer needs the copies
    copies: Tensor = network(one.expand(rows, -1, -1, -1))
    return copies


@contextmanager
def _output(layer: Layer, changed: Tensor) -> Iterator[None]:
    """The last of the layer's calls in a forward puts out `changed`."""
    calls = 0

    def put(module: nn.Module, inputs: object, output: Any) -> Tensor | None:
        nonlocal calls
        calls += 1
        return changed.clone() if calls % layer.calls == 0 else None

    handle = layer.module.register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()

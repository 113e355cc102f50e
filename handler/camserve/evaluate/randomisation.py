"""The sanity check: a map that stays the same when the network's head is random does not explain the network.

Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018, for the last layer alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from camserve.cam.engine import Engine
from camserve.cam.gates import closed_form
from camserve.errors import SetupError
from camserve.evaluate.maps import positive
from camserve.records import Floats

DRAWS = 5
"""Random heads."""

THRESHOLD = 0.5
"""A method passes if the interval of its mean rank correlation lies below."""


@contextmanager
def randomised(engine: Engine, probe: Tensor, seed: int) -> Iterator[Engine]:
    """An engine on the same network while its head is random; at the end the head is the very same as before.

    Args:
        engine: the network and what is proven about it. What it knows in closed form is the trained head, so
            the engine in the block has a proof of its own.
        probe: 8 x 3 x H x W, for that proof.
        seed: of the weights, which are normal around 0 with the trained ones' standard deviation; biases are 0.
    """
    head = find_head(engine.network, probe[:1])
    weight, bias = head.weight, head.bias
    try:
        head.weight = nn.Parameter(_noise(weight, seed), requires_grad=False)
        if bias is not None:
            head.bias = nn.Parameter(torch.zeros_like(bias), requires_grad=False)
        layer = engine.layers[engine.default]
        proof = closed_form(engine.network, layer, probe)
        yield Engine(engine.network, engine.layers, engine.default, proof, engine.foreign_activation)
    finally:
        head.weight, head.bias = weight, bias


def find_head(network: nn.Module, probe: Tensor) -> nn.Linear | nn.Conv2d:
    """The linear or convolutional module that the network calls last.

    Raises:
        SetupError: there is none.
    """
    called: list[nn.Linear | nn.Conv2d] = []
    heads = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    handles = [module.register_forward_hook(lambda module, *_: called.append(module)) for module in heads]
    try:
        with torch.inference_mode():
            network(probe)
    finally:
        for handle in handles:
            handle.remove()
    if not called:
        raise SetupError("The network has no linear or convolutional head that could be randomised.")
    return called[-1]


def correlation(one: Floats, other: Floats) -> float:
    """Spearman's rank correlation of what two maps show, -1 to 1.

    Where one of them is the same everywhere it is 0, and where both are it is 1: then nothing changed.
    """
    ranks = [_ranks(positive(signed)) for signed in (one, other)]
    centred = [each - each.mean() for each in ranks]
    sizes = [float(np.sqrt((each**2).sum())) for each in centred]
    if min(sizes) == 0:
        return float(max(sizes) == 0)
    return float((centred[0] * centred[1]).sum() / (sizes[0] * sizes[1]))


def _ranks(values: Floats) -> np.ndarray:
    """The rank of each cell; equal cells share their mean rank."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[places.ravel()])


def _noise(like: Tensor, seed: int) -> Tensor:
    noise = torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))
    return noise.to(like) * like.std()

"""Does a map hold what it promises? Hide where it is hottest, and as much elsewhere, and predict again.

The ceil(20 %) highest cells of the map are replaced by the blurred input (Gaussian, sigma 10 % of the side). The
control hides the same shape, moved to three other places (wrapping around, the same places for every picture). A
map that points at the evidence costs the class more probability than its control.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from camserve.records import Floats, Verification

AREA = 0.2
CONTROLS = 3
_SIGMA = 0.1
_MAPS_AT_ONCE = 6
_SEED = 0


def verify(
    network: nn.Module, inputs: Sequence[Tensor], shown: Sequence[Floats], class_ids: Sequence[int]
) -> Iterator[Verification]:
    """Measure P maps, a few at a time as the results are taken.

    Args:
        network: returns logits, N x K.
        inputs: for each map its input, 3 x H x W.
        shown: the maps, each h x w; the highest cells are hidden.
        class_ids: the class whose probability is measured.

    Yields:
        For each map the probabilities of its class: untouched, without the top, and without each control.
    """
    soft = {one.data_ptr(): blurred(one) for one in {one.data_ptr(): one for one in inputs}.values()}
    for start in range(0, len(shown), _MAPS_AT_ONCE):
        part = slice(start, start + _MAPS_AT_ONCE)
        pairs = zip(inputs[part], shown[part], strict=True)
        hidden = torch.cat([_variants(one, soft[one.data_ptr()], evidence) for one, evidence in pairs])
        with torch.inference_mode():
            chances = network(hidden).float().softmax(1).unflatten(0, (-1, 2 + CONTROLS))
        yield from (_verification(row[:, k].cpu().numpy()) for row, k in zip(chances, class_ids[part], strict=True))


def _verification(chances: Floats) -> Verification:
    untouched, without_top, *without_random = (float(chance) for chance in chances)
    return Verification(AREA, untouched, without_top, tuple(without_random))


def blurred(one: Tensor) -> Tensor:
    """What stands in for hidden pixels: the input (3 x H x W) under a Gaussian, sigma 10 % of the side."""
    side = min(one.shape[1:])
    sigma = _SIGMA * side
    size = 2 * min(math.ceil(3 * sigma), side - 1) + 1
    # A Gaussian is the product of two: one pass a direction costs a fraction of a square kernel.
    soft: Tensor = gaussian_blur(gaussian_blur(one, [size, 1], [sigma, sigma]), [1, size], [sigma, sigma])
    return soft


def replaced(one: Tensor, other: Tensor, masks: Tensor) -> Tensor:
    """`other` where a mask's cell is 1, `one` elsewhere (both 3 x H x W): M x h x w to M x 3 x H x W."""
    pixels = F.interpolate(masks[:, None], one.shape[1:], mode="nearest")
    return torch.where(pixels > 0, other[None], one[None])


def _variants(one: Tensor, soft: Tensor, evidence: Floats) -> Tensor:
    """The input untouched, without the top cells, and without each control, 5 x 3 x H x W."""
    return replaced(one, soft, torch.from_numpy(np.stack(_masks(evidence))).to(one))


def _masks(evidence: Floats) -> list[Floats]:
    """No cell, the highest cells, and those moved by seeded offsets that are not zero; each h x w."""
    top = np.zeros(evidence.size, np.float32)
    top[np.argsort(-evidence, axis=None, kind="stable")[: math.ceil(AREA * evidence.size)]] = 1
    mask = top.reshape(evidence.shape)
    steps = np.random.default_rng(_SEED).choice(
        np.arange(1, evidence.size), CONTROLS, replace=evidence.size <= CONTROLS
    )
    moved = [np.roll(mask, divmod(int(step), evidence.shape[1]), (0, 1)) for step in steps]
    return [np.zeros_like(mask), mask, *moved]

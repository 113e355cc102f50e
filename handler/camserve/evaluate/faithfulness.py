"""Does the network rely on what a map shows? Hide cells, best or worst first, and watch the class's probability.

Deletion and insertion: Petsiuk et al., RISE, BMVC 2018, with the blurred input in place of what is hidden.
Average Drop and Increase in Confidence: Chattopadhay et al., Grad-CAM++, WACV 2018.
ROAD: Rong et al., A Consistent and Efficient Evaluation Strategy for Attribution Methods, ICML 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from camserve.cam.deletion import blurred, replaced
from camserve.evaluate.imputation import NOISE, imputed
from camserve.evaluate.maps import positive
from camserve.evaluate.predictor import Predictor
from camserve.records import Floats

STEPS = 10
REMOVED = (0.2, 0.4, 0.6, 0.8)
"""Shares of the cells that ROAD removes."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """One picture before anything is changed: its input and the blurred one (3 x S x S), its class, and what black is.

    `chance` and `blurred_chance` are the class's probability for the two inputs; `black` is 3 x 1 x 1.
    """

    one: Tensor
    soft: Tensor
    black: Tensor
    class_id: int
    chance: float
    blurred_chance: float


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """Probabilities of the class under changes that follow one map.

    `deletion` and `insertion` have STEPS + 1 values, at the shares `shares` of the cells; `kept` is that of the
    picture times the map; `best` and `worst` have one for each of REMOVED, with the best or the worst cells removed.
    """

    shares: Floats
    deletion: Floats
    insertion: Floats
    kept: float
    best: Floats
    worst: Floats

    def numbers(self, untouched: float) -> dict[str, float]:
        """The metrics of one picture, percentages from 0 to 100."""
        return {
            "deletion": area(self.deletion, self.shares),
            "insertion": area(self.insertion, self.shares),
            "drop": 100 * max(0.0, untouched - self.kept) / untouched,
            "increase": 100.0 * (self.kept > untouched),
            "road": float((self.worst - self.best).mean()),
        }


def baseline(predict: Predictor, one: Tensor, black: Tensor, class_id: int) -> Baseline:
    """A picture with the two ends of its curves."""
    soft = blurred(one)
    chance, blurred_chance = predict(torch.stack([one, soft]))[:, class_id].tolist()
    return Baseline(one, soft, black, class_id, chance, blurred_chance)


def faithful(predict: Predictor, picture: Baseline, evidence: Floats, seed: int) -> Faithfulness:
    """Measure one map (h x w, signed). `seed` decides between cells of equal value, and the noise of ROAD."""
    random = np.random.default_rng(seed)
    order = ranked(evidence, random)
    counts = np.rint(np.linspace(0, evidence.size, STEPS + 1)).astype(int)
    top = torch.stack([_mask(order[:count], evidence) for count in counts[1:-1]]).to(picture.one)
    changed = torch.cat(
        [
            replaced(picture.one, picture.soft, top),
            replaced(picture.one, picture.soft, 1 - top),
            _times(picture, evidence)[None],
            _imputed(picture.one, order, evidence, random),
        ]
    )
    inner, shares = STEPS - 1, np.asarray(counts / evidence.size, np.float32)
    chances = predict(changed)[:, picture.class_id].numpy()
    deletion, insertion, kept, best, worst = np.split(chances, np.cumsum([inner, inner, 1, len(REMOVED)]))
    ends = picture.chance, picture.blurred_chance
    return Faithfulness(
        shares, _between(deletion, *ends), _between(insertion, *ends[::-1]), float(kept[0]), best, worst
    )


def ranked(evidence: Floats, random: np.random.Generator) -> np.ndarray:
    """The cells (indices of the flat map) from the highest to the lowest; equal ones in random order."""
    return np.lexsort((random.random(evidence.size), -evidence.ravel()))


def area(curve: Floats, shares: Floats) -> float:
    """Under a curve over shares of the cells, by trapezoids."""
    return float(np.trapezoid(curve, shares))


def _between(values: Floats, first: float, last: float) -> Floats:
    return np.concatenate([[first], values, [last]]).astype(np.float32)


def _mask(cells: np.ndarray, like: Floats) -> Tensor:
    """1 at the cells (flat indices), 0 elsewhere; h x w."""
    mask = torch.zeros(like.size)
    mask[torch.from_numpy(cells)] = 1
    return mask.reshape(like.shape)


def _times(picture: Baseline, evidence: Floats) -> Tensor:
    """The picture times what the map shows, from 0 to 1 and enlarged: black where it shows nothing."""
    shown = positive(evidence)
    scaled = torch.from_numpy(shown / max(float(shown.max()), 1e-12)).to(picture.one)
    large = F.interpolate(scaled[None, None], picture.one.shape[1:], mode="bilinear", align_corners=False)[0]
    return torch.lerp(picture.black.expand_as(picture.one), picture.one, large)


def _imputed(one: Tensor, order: np.ndarray, like: Floats, random: np.random.Generator) -> Tensor:
    """The input without its best cells, and without its worst, for each share of REMOVED; imputed."""
    counts = [min(len(order) - 1, max(1, round(share * len(order)))) for share in REMOVED]
    masks = [_mask(order[:count], like) for count in counts] + [_mask(order[-count:], like) for count in counts]
    removed = F.interpolate(torch.stack(masks)[:, None].to(one), one.shape[1:], mode="nearest") > 0
    noise = torch.from_numpy(random.normal(0, NOISE, tuple(one.shape))).to(one)
    return imputed(one.expand(len(masks), -1, -1, -1), removed, noise)

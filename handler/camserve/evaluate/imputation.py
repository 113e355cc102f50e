"""Noisy linear imputation: what is removed becomes the weighted mean of its neighbours, so that no edge shows.

    sum over neighbours j of w_ij (x_i - x_j) = 0,  for every removed pixel i

The weights are 1/6 for the four nearest and 1/12 for the diagonal neighbours; neighbours outside the picture do not
count. A little noise hides how smooth the filling is. The equations are solved by conjugate gradients, each step
preceded by a multigrid V-cycle: the number of steps then hardly depends on how wide the holes are.

Rong et al., A Consistent and Efficient Evaluation Strategy for Attribution Methods, ICML 2022.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NOISE = 0.01
"""Standard deviation of what is added to imputed pixels, in units of the network's input."""

_STEPS = 12
_ENOUGH = 1e-5
"""Of the first squared error. What is left is as small as the noise."""

_SWEEPS = 2
_DAMPING = 0.8
_COARSEST = 4
_TINY = 1e-20


def imputed(pictures: Tensor, removed: Tensor, noise: Tensor) -> Tensor:
    """Pictures with removed pixels filled in.

    Args:
        pictures: N x 3 x H x W.
        removed: N x 1 x H x W, true where a pixel is removed; at least one pixel of each picture stays.
        noise: broadcast to the pictures' shape; added where pixels were removed.
    """
    kept = (~removed).to(pictures)
    mean = (pictures * kept).sum((2, 3), keepdim=True) / kept.sum((2, 3), keepdim=True)
    holes = _Holes(removed.to(pictures))
    start = torch.where(removed, mean, pictures)
    filled = start + _solved(holes, -holes.tension(start))
    return torch.where(removed, filled + noise, pictures)


class _Holes:
    """The equations inside the holes of N pictures, `inside` being 1 there and 0 elsewhere (N x 1 x H x W).

    `level` says how often the grid was halved. A pixel of a halved grid is wide, and what is kept begins at its
    edge, nearer than the next pixel's middle; so what is kept pulls harder.
    """

    def __init__(self, inside: Tensor, level: int = 0) -> None:
        self.inside = inside
        pull = 2**level / (2 ** (level - 1) + 0.5) if level else 1.0
        self.links = _neighbours(inside + pull * (1 - inside))
        fine = min(inside.shape[2:]) > _COARSEST
        self.coarse = _Holes((_halved(inside) > 0.99).to(inside), level + 1) if fine else None

    def tension(self, values: Tensor) -> Tensor:
        """The left side of the equations, N x 3 x H x W; zero outside the holes."""
        return (self.links * values - _neighbours(values)) * self.inside


def _solved(holes: _Holes, wanted: Tensor) -> Tensor:
    """The values, zero outside the holes, whose tension is `wanted`: preconditioned conjugate gradients."""
    values, rest = torch.zeros_like(wanted), wanted
    better = _cycle(holes, rest)
    direction, size = better, _dot(rest, better)
    enough = _ENOUGH * size
    for _ in range(_STEPS):
        pulled = holes.tension(direction)
        step = size / _dot(direction, pulled).clamp(min=_TINY)
        values, rest = values + step * direction, rest - step * pulled
        better = _cycle(holes, rest)
        before, size = size, _dot(rest, better)
        if (size <= enough).all():
            break
        direction = better + size / before.clamp(min=_TINY) * direction
    return values


def _cycle(holes: _Holes, wanted: Tensor) -> Tensor:
    """About the values whose tension is `wanted`: smooth, correct on a coarser grid, smooth."""
    sweeps = _SWEEPS if holes.coarse else _COARSEST**2
    values = _smoothed(holes, _DAMPING * wanted / holes.links, wanted, sweeps - 1)
    if holes.coarse is None:
        return values
    # A second difference is four times as large on a grid twice as coarse.
    rest = 4 * _halved(wanted - holes.tension(values)) * holes.coarse.inside
    correction = F.interpolate(_cycle(holes.coarse, rest), wanted.shape[2:], mode="bilinear", align_corners=False)
    return _smoothed(holes, values + correction * holes.inside, wanted, _SWEEPS)


def _smoothed(holes: _Holes, values: Tensor, wanted: Tensor, sweeps: int) -> Tensor:
    """Damped Jacobi sweeps."""
    for _ in range(sweeps):
        values = values + _DAMPING * (wanted - holes.tension(values)) / holes.links
    return values


def _neighbours(values: Tensor) -> Tensor:
    """The weighted sum of every pixel's neighbours inside the picture."""
    across = _spread(values, 3)
    return (_spread(across, 2) - 4 * values) / 12


def _spread(values: Tensor, axis: int) -> Tensor:
    """Twice each value and both its neighbours along an axis, N x C x H x W."""
    size = values.shape[axis] - 1
    spread = 2 * values
    spread.narrow(axis, 0, size).add_(values.narrow(axis, 1, size))
    spread.narrow(axis, 1, size).add_(values.narrow(axis, 0, size))
    return spread


def _halved(values: Tensor) -> Tensor:
    return F.avg_pool2d(values, 2, ceil_mode=True, count_include_pad=False)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """One product a picture, N x 1 x 1 x 1."""
    return (one * other).sum((1, 2, 3), keepdim=True)

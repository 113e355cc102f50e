"""A second, slow version of every method: NumPy, float64, loops, written from the papers and not from our code.

A holds the activations of one picture at the layer (C x h x w), G the gradient of the explained score there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def cam(activations: Array, weights: Array) -> Array:
    """Zhou et al. 2016, eq. 2: M_c(x, y) = sum_k w_k^c f_k(x, y), with the linear head's weights (C)."""
    total = np.zeros(activations.shape[1:])
    for k in range(len(activations)):
        total += weights[k] * activations[k]
    return total


def gradcam(A: Array, G: Array) -> Array:
    """Selvaraju et al. 2017, eq. 1 and 2 before the ReLU: a_k = 1/Z sum_ij G_kij, map = sum_k a_k A_k."""
    channels, height, width = A.shape
    total = np.zeros((height, width))
    for k in range(channels):
        weight = 0.0
        for i in range(height):
            for j in range(width):
                weight += G[k, i, j] / (height * width)
        total += weight * A[k]
    return total


def hirescam(A: Array, G: Array) -> Array:
    """Draelos and Carin 2020, eq. 6: the element-wise product of gradient and activation, summed over channels."""
    total = np.zeros(A.shape[1:])
    for k in range(len(A)):
        for i in range(A.shape[1]):
            for j in range(A.shape[2]):
                total[i, j] += G[k, i, j] * A[k, i, j]
    return total


def layercam(A: Array, G: Array) -> Array:
    """Jiang et al. 2021, eq. 5 to 7 before the ReLU: w_kij = relu(G_kij), map_ij = sum_k w_kij A_kij."""
    total = np.zeros(A.shape[1:])
    for k in range(len(A)):
        for i in range(A.shape[1]):
            for j in range(A.shape[2]):
                total[i, j] += max(G[k, i, j], 0.0) * A[k, i, j]
    return total


METHODS = {"gradcam": gradcam, "hirescam": hirescam, "layercam": layercam}
"""The methods of a layer's gradient, by their public names; `cam` takes weights instead."""

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


def gradcam_plus_plus(A: Array, G: Array) -> Array:
    """Chattopadhay et al. 2018, eq. 19 and 5, with the exponential's positive factor left out of the weights."""
    total = np.zeros(A.shape[1:])
    for k in range(len(A)):
        whole = A[k].sum()
        weight = 0.0
        for i in range(A.shape[1]):
            for j in range(A.shape[2]):
                g = G[k, i, j]
                below = 2 * g**2 + whole * g**3
                alpha = g**2 / below if below != 0 else 0.0
                weight += alpha * max(g, 0.0)
        total += weight * A[k]
    return total


def xgradcam(A: Array, G: Array) -> Array:
    """Fu et al. 2020, eq. 7: w_k = sum_ij A_kij / (sum_ij A_kij) · G_kij, map = sum_k w_k A_k."""
    total = np.zeros(A.shape[1:])
    for k in range(len(A)):
        whole = A[k].sum()
        if whole == 0:  # no shares: as in Grad-CAM
            total += G[k].mean() * A[k]
            continue
        weight = sum(A[k, i, j] / whole * G[k, i, j] for i in range(A.shape[1]) for j in range(A.shape[2]))
        total += weight * A[k]
    return total


def eigencam(A: Array, G: Array) -> Array:
    """Muhammad and Yeasin 2020: project the cells on the first right singular vector of their centred matrix."""
    cells = np.stack([A[:, i, j] for i in range(A.shape[1]) for j in range(A.shape[2])])
    centred = cells - cells.mean(0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    projected = centred @ directions[0]
    sums = cells.sum(1)
    if projected @ (sums - sums.mean()) < 0:  # the sign of a singular vector is arbitrary
        projected = -projected
    return projected.reshape(A.shape[1:])


def eigengradcam(A: Array, G: Array) -> Array:
    """The same for the products of activation and gradient."""
    return eigencam(A * G, G)


METHODS = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "hirescam": hirescam,
    "xgradcam": xgradcam,
    "layercam": layercam,
    "eigencam": eigencam,
    "eigengradcam": eigengradcam,
}
"""The methods of a layer's gradient, by their public names; `cam` takes weights instead."""


def scorecam(A: Array, scores: Array) -> Array:
    """Wang et al. 2020, eq. 7: the scores (C) of the masked inputs, through a softmax, weigh the activations."""
    powers = [np.exp(score - max(scores)) for score in scores]
    return sum((power / sum(powers)) * A[k] for k, power in enumerate(powers))


def ablationcam(A: Array, score: float, scores: Array) -> Array:
    """Ramaswamy and Joshi 2020, eq. 3 and 4, with |y| below: the fall of the score without each channel weighs it."""
    return sum((score - scores[k]) / abs(score) * A[k] for k in range(len(A)))

"""What a CAM method is: a pure function of captured tensors, and a declaration of what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Method:
    """A row of the methods table.

    `map(activations, gradients)` takes A (P x C x h x w) and the gradient of the explained score at A
    (the same shape, or P x C x 1 x 1 where it is equal in all cells) and returns signed maps, P x h x w.

    `needs_closed_form`: refused unless the layer is proven to be followed by global average pooling and a
    linear head. `linear`: where that is proven, h·w times the map completes to the logit exactly.
    """

    title: str
    paper: str
    map: Callable[[Tensor, Tensor], Tensor]
    needs_closed_form: bool = False
    linear: bool = False

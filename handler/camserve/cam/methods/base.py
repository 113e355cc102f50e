"""What a method is: a pure function of captured tensors, and a declaration of what it needs and takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from camserve.cam.rectifiers import Rule

Needs = Literal["activations", "gradient", "closed form", "input gradient", "forwards"]
Parts = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Method:
    """A row of the methods table.

    `map(activations, gradients)` takes A (P x C x h x w) and the gradient of the explained score at A
    (the same shape, or P x C x 1 x 1 where it is equal in all cells) and returns signed maps, P x h x w.

    `needs`: the activations alone; the score's gradient at the layer; or the proof that global average
    pooling and a linear head stand right behind the layer. `linear`: where that is proven, h·w times the map
    completes to the logit exactly. `parts`: each channel's share of the map, P x C x h x w, which sum to it;
    None where the map is no sum over channels. `discriminative`: whether the map depends on the class.

    A method on the input gradient gets the input x and dy/dx (P x 3 x H x W) instead and returns maps of the
    input's size; `rule` says how rectifiers pass that gradient back, and `times` names a method of a layer whose
    positive part, enlarged, multiplies the map.

    A method of many forwards turns the score and the C scores under changes (of the layer or of the input, one a
    channel) into C weights with `weigh`; they take the place of the gradient, P x C x 1 x 1.
    """

    title: str
    paper: str
    map: Callable[[Tensor, Tensor], Tensor]
    needs: Needs = "gradient"
    linear: bool = False
    parts: Parts | None = None
    polarity: bool = True
    discriminative: bool = True
    rule: Rule = "plain"
    times: str | None = None
    weigh: Callable[[Tensor, Tensor], Tensor] | None = None
    changes: Literal["layer", "input"] | None = None

    @property
    def has_layer(self) -> bool:
        """Whether the map comes from a layer, at least in part."""
        return self.needs != "input gradient" or self.times is not None

    @property
    def takes(self) -> dict[str, bool]:
        """Which of the options that shape a map the method takes."""
        return {
            "classes": self.discriminative,
            "contrast": self.discriminative,
            "polarity": self.polarity,
            "layer": self.has_layer and self.needs != "closed form",
            "channels": self.parts is not None,
        }

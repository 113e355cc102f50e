"""The layers of a network that can be explained, found by watching one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from camserve.cam.capture import capture
from camserve.errors import SetupError

Reshape = Callable[[Tensor], Tensor]
"""Token layout to N x C x h x w, differentiable."""


class TokenLayout(Protocol):
    """How a network lays out its tokens: outputs of so many `dimensions` are reshaped."""

    @property
    def reshape(self) -> Reshape:
        """Tokens to N x C x h x w."""

    @property
    def dimensions(self) -> int:
        """Of an output that holds tokens; convolutions yield maps whatever their dimensions."""


_POOLING = (
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.LPPool2d,
    nn.FractionalMaxPool2d,
)
_PASSING = (nn.Dropout, nn.Dropout2d, nn.Identity)


@dataclass(frozen=True, slots=True)
class Layer:
    """A module with spatial output.

    `calls` counts its calls in one forward; the last one is explained. `reshape` turns its output into
    N x C x h x w, or is None where it already is.
    """

    name: str
    module: nn.Module
    calls: int
    channels: int
    grid: tuple[int, int]
    reshape: Reshape | None = None

    def spatial(self, output: Tensor) -> Tensor:
        """The module's output as N x C x h x w."""
        return output if self.reshape is None else self.reshape(output)


@dataclass(slots=True)
class _Sighting:
    """What a module put out in the last of its calls."""

    module: nn.Module
    output: Any
    calls: int


def find_layers(network: nn.Module, probe: Tensor, tokens: TokenLayout | None) -> dict[str, Layer]:
    """All layers with a grid of more than one cell, in the order in which the network runs them."""
    return {
        name: Layer(name, seen.module, seen.calls, maps.shape[1], (maps.shape[2], maps.shape[3]), how)
        for name, seen in _watch(network, probe).items()
        if (found := _as_map(seen, tokens)) is not None
        for maps, how in [found]
    }


def find_default(network: nn.Module, layers: Mapping[str, Layer], probe: Tensor) -> Layer:
    """The last layer whose gradient is not all zero, before any pooling and any map of class scores.

    Raises:
        SetupError: no layer qualifies.
    """
    sightings = _watch(network, probe)
    pooling = [seen for seen in sightings.values() if isinstance(seen.module, _POOLING)]
    scoring = _scoring(list(sightings.values()), network(probe))
    # A container that ends in a pool hands out the pool's own tensor: same storage, same verdict.
    barred = {seen.output.data_ptr() for seen in (*pooling, *scoring) if isinstance(seen.output, Tensor)}
    for name in reversed(list(layers)):
        seen = sightings[name]
        if isinstance(seen.module, _PASSING) or seen.output.data_ptr() in barred:
            continue
        if _has_gradient(network, layers[name], probe):
            return layers[name]
    raise SetupError(
        "No layer of this network can be explained: none has a grid of several cells and a gradient. "
        "Name one with the setting 'layer', or use a convolutional network."
    )


def _scoring(seen: Sequence[_Sighting], logits: Tensor) -> Sequence[_Sighting]:
    """What puts out maps of class scores, in the order of calls.

    Where no linear module makes the logits, that is the last convolution with one channel a class, and what follows.
    """
    linear = (one.output for one in seen if isinstance(one.module, nn.Linear))
    if any(output.shape == logits.shape and torch.allclose(output, logits, 1e-5, 1e-5) for output in linear):
        return ()
    scores = [
        place
        for place, one in enumerate(seen)
        if isinstance(one.module, nn.Conv2d) and one.module.out_channels == logits.shape[1]
    ]
    return seen[scores[-1] :] if scores else ()


def _watch(network: nn.Module, probe: Tensor) -> dict[str, _Sighting]:
    """One forward; every module but the root by name, in the order of their last calls."""
    seen: dict[str, _Sighting] = {}
    with _hooks(network, seen), torch.inference_mode():
        network(probe)
    return seen


@contextmanager
def _hooks(network: nn.Module, seen: dict[str, _Sighting]) -> Iterator[None]:
    def hook(name: str) -> Any:
        def note(module: nn.Module, _: object, output: Any) -> None:
            before = seen.pop(name, None)
            seen[name] = _Sighting(module, output, before.calls + 1 if before else 1)

        return note

    handles = [module.register_forward_hook(hook(name)) for name, module in network.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _as_map(seen: _Sighting, tokens: TokenLayout | None) -> tuple[Tensor, Reshape | None] | None:
    """The output as N x C x h x w with the reshape that made it so, or None where it has no grid."""
    output = seen.output
    if not isinstance(output, Tensor):
        return None
    reshape = None
    if tokens and output.ndim == tokens.dimensions and not isinstance(seen.module, nn.Conv2d):
        reshape = tokens.reshape
        try:
            output = reshape(output)
        except RuntimeError:  # no square of patches behind a class token
            return None
    if output.ndim != 4 or output.shape[2] * output.shape[3] <= 1:
        return None
    return output, reshape


def _has_gradient(network: nn.Module, layer: Layer, probe: Tensor) -> bool:
    """Whether the probe's logits depend on the layer."""
    with capture([layer], graph=True) as captured:
        logits = network(probe)
    # Unequal weights: the plain sum is constant where the logits of two classes are each other's negative.
    score = (logits * torch.arange(1, logits.shape[1] + 1, device=logits.device).sqrt()).sum()
    if not score.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(score, [captured[layer.name]], allow_unused=True)
    return gradient is not None and bool(layer.spatial(gradient).any())

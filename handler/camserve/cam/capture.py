"""`with capture(layers, graph)`: hooks on, tensors out, hooks off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from camserve.cam.layers import Layer


@contextmanager
def capture(layers: Sequence[Layer], graph: bool) -> Iterator[dict[str, Tensor]]:
    """Run a forward inside this block to get the outputs of `layers` by name.

    Without `graph` the forward runs in inference mode. With it, nothing is recorded up to the first of the
    layers; there the autograd graph begins, so gradients cost the tail only. Either way one of both, what is kept
    or what a layer hands on, is a clone, so that in-place modules behind it cannot change what was captured.
    Hooks come off and the gradient mode is restored however the block ends.
    """
    captured: dict[str, Tensor] = {}
    handles = [layer.module.register_forward_hook(_hook(layer, graph, captured)) for layer in layers]
    try:
        with torch.no_grad() if graph else torch.inference_mode():
            yield captured
    finally:
        for handle in handles:
            handle.remove()


def _hook(layer: Layer, graph: bool, captured: dict[str, Tensor]) -> Any:
    """A hook that acts on the last of the layer's calls in this forward."""
    calls = 0

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor | None:
        nonlocal calls
        calls += 1
        if calls < layer.calls:
            return None
        if not graph:
            captured[layer.name] = output.clone()
            return None
        torch.set_grad_enabled(True)
        # A layer on a branch of its own has no graph yet: it begins here too.
        start = output if output.requires_grad else output.detach().requires_grad_(True)
        captured[layer.name] = start
        return start.clone()

    return keep

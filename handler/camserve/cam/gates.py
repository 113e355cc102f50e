"""Proofs made once, when a model is loaded. A gate that fails stops the worker with one plain sentence."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camserve.cam.capture import capture
from camserve.cam.engine import ClosedForm, Engine
from camserve.cam.layers import Layer, TokenLayout, find_default, find_layers
from camserve.cam.rectifiers import foreign_activation
from camserve.errors import SetupError

BATCHES = (1, 8)
"""Every proof is made on a probe of each of these sizes."""

_THEN = {"identity": lambda tensor: tensor, "relu": F.relu}
"""What may stand, without a module of its own, between the layer and the pool (DenseNet's ReLU)."""


def prove(
    network: nn.Module,
    probe: Tensor,
    classes: int,
    layer: str | None,
    tokens: TokenLayout | None = None,
    hidden: Collection[str] = (),
) -> Engine:
    """An engine for the network, once everything an explanation relies on is shown to hold.

    Args:
        network: in eval mode, on its device.
        probe: 8 x 3 x H x W, on the same device.
        classes: how many labels there are.
        layer: the layer explained by default; None finds it.
        tokens: how a network of tokens lays them out, or None.
        hidden: modules whose output is not what their name says, and so is not explained.

    Raises:
        SetupError: a gate fails; the sentence says which and what to do.
    """
    _eval_mode(network)
    _logits(network, probe, classes)
    layers = {name: one for name, one in find_layers(network, probe[:1], tokens).items() if name not in hidden}
    default = find_default(network, layers, probe[:1]) if layer is None else _named(layers, layer)
    for size in BATCHES:
        _same_logits(network, default, probe[:size])
    proof = closed_form(network, default, probe)
    return Engine(network, layers, default.name, proof, foreign_activation(network, probe[:1]))


def closed_form(network: nn.Module, layer: Layer, probe: Tensor) -> ClosedForm | None:
    """The proof that the layer's maps complete to the logit, or None where they do not."""
    head = _find_head(network, probe)
    if head is None:
        return None
    bias = torch.zeros_like(head.weight[:, 0]) if head.bias is None else head.bias
    for then in _THEN.values():
        proof = ClosedForm(layer.name, then, head.weight.detach().float(), bias.detach().float().tolist())
        if all(_completes(network, layer, proof, head, probe[:size]) for size in BATCHES):
            return proof
    return None


def _eval_mode(network: nn.Module) -> None:
    training = [name or "the network itself" for name, module in network.named_modules() if module.training]
    if training:
        raise SetupError(
            f"The network is not in eval mode ({training[0]}): dropout and batch norm would make its answers random."
        )


def _logits(network: nn.Module, probe: Tensor, classes: int) -> None:
    """One logit a class, finite, and the same twice."""
    with torch.inference_mode():
        first, second = network(probe), network(probe)
    if not isinstance(first, Tensor) or first.ndim != 2:
        raise SetupError(f"Expected logits of shape N x classes, the network returns {_shape(first)}.")
    if first.shape[1] != classes:
        raise SetupError(
            f"The network has {first.shape[1]} outputs and there are {classes} labels: give one label each."
        )
    if not torch.isfinite(first).all():
        raise SetupError("The network's logits are not finite on a probe of noise: check its weights.")
    if not _same(first, second):
        raise SetupError("The network gives other logits for the same input: remove what is random in its forward.")


def _named(layers: dict[str, Layer], name: str) -> Layer:
    if name not in layers:
        raise SetupError(
            f"The layer {name!r} cannot be explained: expected a module with a grid of several cells, "
            f"such as {', '.join(list(layers)[-3:]) or 'none here'}."
        )
    return layers[name]


def _same(one: Tensor, other: Tensor) -> bool:
    """Bit for bit on the CPU; to 1e-5 on a GPU, which need not add up in the same order twice."""
    return torch.equal(one, other) if one.device.type == "cpu" else torch.allclose(one, other, 1e-5, 1e-5)


def _same_logits(network: nn.Module, layer: Layer, probe: Tensor) -> None:
    """Hooks and graph must not change a prediction."""
    with torch.inference_mode():
        plain = network(probe)
    for graph in (False, True):
        with capture([layer], graph):
            hooked = network(probe).detach()
        if not _same(plain, hooked):
            off = (plain - hooked).abs().max().item()
            raise SetupError(
                f"Explaining {layer.name!r} changes the logits by {off:.1e} (batch {len(probe)}): "
                "the prediction would depend on the explanation. Name another layer."
            )


def _find_head(network: nn.Module, probe: Tensor) -> nn.Linear | None:
    """The linear module whose output is the logits."""
    heads = [m for m in network.modules() if isinstance(m, nn.Linear)]
    seen = _inputs_outputs(network, heads, probe)
    return next((m for m, (_, output, logits) in seen.items() if torch.equal(output, logits)), None)


def _inputs_outputs(
    network: nn.Module, modules: list[nn.Linear], probe: Tensor
) -> dict[nn.Linear, tuple[Tensor, Tensor, Tensor]]:
    """Input and output of each module in one forward, with the network's logits."""
    seen: dict[nn.Linear, tuple[Tensor, Tensor]] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> None:
        assert isinstance(module, nn.Linear)
        (fed,) = (*inputs, *named.values())
        seen[module] = (fed.clone(), output.clone())

    handles = [module.register_forward_hook(note, with_kwargs=True) for module in modules]
    try:
        with torch.inference_mode():
            logits = network(probe)
    finally:
        for handle in handles:
            handle.remove()
    return {m: (x, y, logits) for m, (x, y) in seen.items() if y.shape == logits.shape}


def _completes(network: nn.Module, layer: Layer, proof: ClosedForm, head: nn.Linear, probe: Tensor) -> bool:
    """Whether mean(then(A)) is the head's input, and the maps of all classes complete to their logits."""
    with capture([layer], graph=False) as captured:
        fed, _, logits = _inputs_outputs(network, [head], probe)[head]
    activations = proof.then(layer.spatial(captured[layer.name]).float())
    pooled = activations.mean((2, 3))
    if pooled.shape != fed.shape or not _close(pooled, fed.float(), float(fed.abs().max().clamp(max=1))):
        return False
    maps = torch.einsum("kc,nchw->nkhw", proof.weight, activations)
    return _close(maps.mean((2, 3)) + maps.new_tensor(proof.bias), logits.float(), 1.0)


def _close(ours: Tensor, theirs: Tensor, least: float) -> bool:
    """To 1e-4 of each value, or of `least` where the value is smaller."""
    return bool(((ours - theirs).abs() <= 1e-4 * theirs.abs().clamp(min=least)).all())


def _shape(output: Any) -> str:
    return " x ".join(map(str, output.shape)) if isinstance(output, Tensor) else type(output).__name__

"""The peer libraries' maps before any resizing, and the networks on which they are compared with ours."""

from __future__ import annotations

import numpy as np
import torch
import torchvision
from captum.attr import GuidedGradCam, LayerFeatureAblation, LayerGradCam, LayerGradientXActivation
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from camserve.cam.engine import Engine
from camserve.cam.gates import prove
from camserve.records import Task

CLASSES = 20
SIDE = 96


def pictures(rows: int) -> Tensor:
    return torch.randn(rows, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


def built(name: str, steepness: float = 1) -> nn.Module:
    """A torchvision network whose random weights leave something to see.

    Random logits lie close together; a steeper head draws them apart, and the gradients with them.
    """
    torch.manual_seed(0)
    net = torchvision.models.get_model(name, weights=None, num_classes=CLASSES)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.0)
            module.bias.data.normal_(0, 0.2)
    *_, head = (module for module in net.modules() if isinstance(module, nn.Linear))
    head.weight.data.mul_(steepness)
    return net.eval()


def proven(name: str, steepness: float = 1) -> Engine:
    return prove(built(name, steepness).requires_grad_(False), pictures(8), CLASSES, None)


def ours(
    engine: Engine,
    method: str,
    layer: str,
    one: Tensor,
    target: int | None = None,
    contrast: int | None = None,
    polarity: str = "positive",
) -> tuple[int, np.ndarray]:
    """A class and its map; without a target, a class for which there is much evidence, so that maps are not empty."""
    ask = Task(method, layer, tuple(range(CLASSES)) if target is None else (target,), contrast, polarity)
    (maps,) = engine.maps(engine.forward(one, [ask]), [ask])
    best = max((one for one in maps if one.map is not None), key=lambda one: one.map.max() / np.abs(one.map).max())
    return best.class_id, best.map


def normalised(signed: np.ndarray) -> np.ndarray:
    """What is above zero, by its maximum; the scale of a map is each library's own."""
    positive = np.maximum(signed, 0)
    assert positive.max() > 0, "an empty map proves nothing"
    return positive / positive.max()


def by_size(signed: np.ndarray) -> np.ndarray:
    """The signed map by its largest value, for peers that keep the sign."""
    return signed / np.abs(signed).max()


def leaf(one: Tensor) -> Tensor:
    """The input as the only thing with a gradient: the networks are frozen, so that one serves every test."""
    return one.clone().requires_grad_(True)


def from_grad_cam(peer: type, net: nn.Module, layer: str, one: Tensor, target, **options) -> np.ndarray:
    """pytorch-grad-cam's map at layer resolution, signed: what its own __call__ enlarges afterwards."""
    score = target if callable(target) else ClassifierOutputTarget(target)
    kept: list[np.ndarray] = []
    with peer(model=net, target_layers=[net.get_submodule(layer)], **options) as cam:
        original = cam.get_cam_image
        cam.get_cam_image = lambda *args: kept.append(original(*args)) or kept[-1]
        cam(leaf(one), [score])
    return kept[0][0]


def from_captum(net: nn.Module, layer: str, one: Tensor, target: int) -> np.ndarray:
    return LayerGradCam(net, net.get_submodule(layer)).attribute(leaf(one), target)[0, 0].detach().numpy()


def captum_product(net: nn.Module, layer: str, one: Tensor, target: int) -> np.ndarray:
    return (
        LayerGradientXActivation(net, net.get_submodule(layer)).attribute(leaf(one), target)[0].sum(0).detach().numpy()
    )


def captum_ablation(net: nn.Module, layer: str, one: Tensor, target: int) -> np.ndarray:
    """The paper's sum, with the falls of the score from captum."""
    A = state(net, layer, one, target)[0]
    channels = torch.arange(len(A))[None, :, None, None].expand(1, *A.shape)
    falls = LayerFeatureAblation(net, net.get_submodule(layer)).attribute(
        one, target=target, layer_mask=channels, perturbations_per_eval=32
    )
    return (falls[0] / net(one)[0, target].abs() * A).sum(0).detach().numpy()


def captum_colours(peer: type, net: nn.Module, one: Tensor, target: int) -> Tensor:
    return peer(net).attribute(leaf(one), target)[0].detach()


def captum_guided_cam(net: nn.Module, layer: str, one: Tensor, target: int, **options) -> np.ndarray:
    peer = GuidedGradCam(net, net.get_submodule(layer))
    return peer.attribute(leaf(one), target, **options)[0].sum(0).detach().numpy()


def from_torchcam(peer: type, net: nn.Module, layer: str, one: Tensor, target: int, **options) -> np.ndarray:
    with peer(net, target_layer=layer) as cam:
        logits = net(leaf(one))
        return cam(target, logits, normalized=False, **options)[0][0].detach().numpy()


def state(net: nn.Module, layer: str, one: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """What the formulas take: the layer's output and the logit's gradient there, C x h x w each."""
    kept: list[Tensor] = []
    handle = net.get_submodule(layer).register_forward_hook(lambda module, args, output: kept.append(output))
    try:
        logits = net(leaf(one))
    finally:
        handle.remove()
    (gradient,) = torch.autograd.grad(logits[0, target], kept)
    return kept[0][0].detach(), gradient[0]

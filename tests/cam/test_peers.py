"""The libraries people use today, before any resizing, on the same networks with the same seeded weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM, HiResCAM, LayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torchcam.methods import GradCAM as TorchcamGradCAM
from torchcam.methods import LayerCAM as TorchcamLayerCAM

from camserve.cam.engine import Engine
from camserve.cam.gates import prove
from camserve.records import Task

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::UserWarning"),  # theirs, about their own hooks
]

CLASSES = 20
SIDE = 96


def pictures(rows: int) -> Tensor:
    return torch.randn(rows, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


def built(name: str) -> nn.Module:
    """A torchvision network whose random weights leave something to see."""
    torch.manual_seed(0)
    net = torchvision.models.get_model(name, weights=None, num_classes=CLASSES)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.0)
            module.bias.data.normal_(0, 0.2)
    return net.eval()


def proven(name: str) -> Engine:
    return prove(built(name).requires_grad_(False), pictures(8), CLASSES, None)


@pytest.fixture(scope="module")
def engine_of():
    engines: dict[str, Engine] = {}

    def get(name: str) -> Engine:
        if name not in engines:
            engines[name] = proven(name)
        return engines[name]

    return get


def ours(engine: Engine, method: str, layer: str, one: Tensor, target: int | None = None) -> tuple[int, np.ndarray]:
    """A class and its map; without a target, a class for which there is much evidence, so that maps are not empty."""
    ask = Task(method, layer, tuple(range(CLASSES)) if target is None else (target,), None, "positive")
    (maps,) = engine.maps(engine.forward(one, [ask]), [ask])
    best = max(maps, key=lambda one: one.map.max() / np.abs(one.map).max())
    return best.class_id, best.map


def normalised(signed: np.ndarray) -> np.ndarray:
    """What is above zero, by its maximum; the scale of a map is each library's own."""
    positive = np.maximum(signed, 0)
    assert positive.max() > 0, "an empty map proves nothing"
    return positive / positive.max()


def from_grad_cam(peer: type, net: nn.Module, layer: str, one: Tensor, target: int) -> np.ndarray:
    """pytorch-grad-cam's map at layer resolution, signed: what its own __call__ enlarges afterwards."""
    with peer(model=net, target_layers=[net.get_submodule(layer)]) as cam:
        cam(input_tensor=one, targets=[ClassifierOutputTarget(target)])
        grads = cam.activations_and_grads
        activations, gradients = (part[0].detach().numpy() for part in (grads.activations, grads.gradients))
        return cam.get_cam_image(one, net.get_submodule(layer), [target], activations, gradients, False)[0]


def from_captum(net: nn.Module, layer: str, one: Tensor, target: int) -> np.ndarray:
    return LayerGradCam(net, net.get_submodule(layer)).attribute(one, target)[0, 0].detach().numpy()


def from_torchcam(peer: type, net: nn.Module, layer: str, one: Tensor, target: int) -> np.ndarray:
    with peer(net, target_layer=layer) as cam:
        return cam(target, net(one.clone().requires_grad_(True)), normalized=False)[0][0].detach().numpy()


PEERS = {
    "gradcam, pytorch-grad-cam": ("gradcam", lambda *args: from_grad_cam(GradCAM, *args)),
    "gradcam, captum": ("gradcam", from_captum),
    "gradcam, torchcam": ("gradcam", lambda *args: from_torchcam(TorchcamGradCAM, *args)),
    "hirescam, pytorch-grad-cam": ("hirescam", lambda *args: from_grad_cam(HiResCAM, *args)),
    "layercam, pytorch-grad-cam": ("layercam", lambda *args: from_grad_cam(LayerCAM, *args)),
    "layercam, torchcam": ("layercam", lambda *args: from_torchcam(TorchcamLayerCAM, *args)),
}


@pytest.mark.parametrize(("method", "peer"), PEERS.values(), ids=PEERS)
@pytest.mark.parametrize(
    ("name", "layer"),
    [("resnet50", "layer4"), ("resnet50", "layer3"), ("vgg16", "features.29"), ("vgg16", "features.22")],
)
def test_we_agree_with_a_peer(engine_of, name, layer, method, peer):
    one = pictures(1)
    target, mine = ours(engine_of(name), method, layer, one)
    theirs = peer(built(name), layer, one, target)
    np.testing.assert_allclose(normalised(mine), normalised(theirs), atol=1e-4)


def test_the_default_of_densenet_is_pytorch_grad_cams_hirescam(engine_of):
    engine, one = engine_of("densenet121"), pictures(1)
    assert engine.default == "features"
    assert engine.is_exact("gradcam", "features")
    target, mine = ours(engine, "gradcam", "features", one)
    theirs = from_grad_cam(HiResCAM, built("densenet121"), "features", one, target)
    np.testing.assert_allclose(normalised(mine), normalised(theirs), atol=1e-4)


def test_why_the_peers_disagree_about_densenet():
    """Behind `features` a functional ReLU works in place on what the module returned.

    pytorch-grad-cam keeps that very tensor and so weighs the activations after the ReLU; captum keeps a copy
    from before. Both take the gradient before the ReLU, whose mean is not the gradient of the pooled maps.
    """
    net, one = built("densenet121"), pictures(1)
    with torch.no_grad():
        before = net.features(one)[0]
    kept: list[Tensor] = []
    handle = net.features.register_forward_hook(lambda module, args, output: kept.append(output) or output.clone())
    try:
        logits = net(one.clone().requires_grad_(True))[0]
    finally:
        handle.remove()
    target = int(logits.argmax())
    (gradient,) = torch.autograd.grad(logits[target], kept)
    weights = gradient[0].mean((1, 2))
    of_captum = torch.einsum("c,chw->hw", weights, before).numpy()
    of_grad_cam = torch.einsum("c,chw->hw", weights, before.relu()).numpy()
    assert np.abs(normalised(of_captum) - normalised(of_grad_cam)).max() > 0.01
    np.testing.assert_allclose(normalised(from_captum(net, "features", one, target)), normalised(of_captum), atol=1e-4)
    np.testing.assert_allclose(
        normalised(from_grad_cam(GradCAM, net, "features", one, target)), normalised(of_grad_cam), atol=1e-4
    )

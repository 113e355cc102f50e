"""The libraries people use today, before any resizing, on the same networks with the same seeded weights.

Here a peer is right and we equal it. Where one is wrong, test_peer_defects.py shows what it computes instead, and
test_rectifiers.py does for the rules of rectifiers.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from captum.attr import (
    Deconvolution,
    GuidedBackprop,
    Saliency,
)
from pytorch_grad_cam import (
    AblationCAM,
    EigenCAM,
    EigenGradCAM,
    GradCAM,
    GuidedBackpropReLUModel,
    HiResCAM,
    LayerCAM,
    XGradCAM,
)
from pytorch_grad_cam.utils.model_targets import FinerWeightedTarget
from torch import Tensor
from torchcam import methods as torchcam

from camserve.cam.engine import Engine
from peers import (
    built,
    by_size,
    captum_ablation,
    captum_colours,
    captum_guided_cam,
    captum_product,
    from_captum,
    from_grad_cam,
    from_torchcam,
    leaf,
    normalised,
    ours,
    pictures,
    proven,
)

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::UserWarning"),  # theirs, about their own hooks
]

RIVAL = 7

DEEP = [("resnet50", "layer4"), ("resnet50", "layer3"), ("vgg16", "features.29"), ("vgg16", "features.22")]
ONE_EACH = [("resnet50", "layer3"), ("vgg16", "features.29")]


@pytest.fixture(scope="module")
def engine_of():
    engines: dict[tuple, Engine] = {}

    def get(*args) -> Engine:
        if args not in engines:
            engines[args] = proven(*args)
        return engines[args]

    return get


PEERS = {
    "gradcam, pytorch-grad-cam": ("gradcam", lambda *args: from_grad_cam(GradCAM, *args)),
    "gradcam, captum": ("gradcam", from_captum),
    "gradcam, torchcam": ("gradcam", lambda *args: from_torchcam(torchcam.GradCAM, *args)),
    "hirescam, pytorch-grad-cam": ("hirescam", lambda *args: from_grad_cam(HiResCAM, *args)),
    "hirescam, captum": ("hirescam", captum_product),
    "layercam, pytorch-grad-cam": ("layercam", lambda *args: from_grad_cam(LayerCAM, *args)),
    "layercam, torchcam": ("layercam", lambda *args: from_torchcam(torchcam.LayerCAM, *args)),
    "xgradcam, pytorch-grad-cam": ("xgradcam", lambda *args: from_grad_cam(XGradCAM, *args)),
    "xgradcam, torchcam": ("xgradcam", lambda *args: from_torchcam(torchcam.XGradCAM, *args)),
}
"""Absent: Grad-CAM++ and Score-CAM, where each peer differs; captum has neither these nor LayerCAM and XGrad-CAM."""


@pytest.mark.parametrize(("method", "peer"), PEERS.values(), ids=PEERS)
@pytest.mark.parametrize(("name", "layer"), DEEP)
def test_we_agree_with_a_peer(engine_of, name, layer, method, peer):
    one = pictures(1)
    target, mine = ours(engine_of(name), method, layer, one)
    theirs = peer(engine_of(name).network, layer, one, target)
    np.testing.assert_allclose(normalised(mine), normalised(theirs), atol=1e-4)


@pytest.mark.parametrize(("method", "peer"), [("eigencam", EigenCAM), ("eigengradcam", EigenGradCAM)])
@pytest.mark.parametrize(("name", "layer"), DEEP)
def test_we_agree_with_pytorch_grad_cam_about_the_principal_direction_up_to_its_sign(
    engine_of, name, layer, method, peer
):
    one = pictures(1)
    target, mine = ours(engine_of(name), method, layer, one)
    theirs = from_grad_cam(peer, engine_of(name).network, layer, one, target)
    np.testing.assert_allclose(by_size(mine), by_size(theirs * np.sign((mine * theirs).sum())), atol=1e-4)


def test_cam_is_torchcams(engine_of):
    one, net = pictures(1), engine_of("resnet50").network
    target, mine = ours(engine_of("resnet50"), "cam", "layer4", one)
    with torchcam.CAM(net, "layer4", "fc") as cam:
        net(one)
        theirs = cam(target, normalized=False)[0][0].numpy()
    np.testing.assert_allclose(by_size(mine), by_size(theirs), atol=1e-4)


OF_THE_INPUT = {
    "saliency, captum": ("saliency", lambda net, *args: captum_colours(Saliency, net, *args).amax(0)),
    "guided_backprop, captum": ("guided_backprop", lambda *args: captum_colours(GuidedBackprop, *args).sum(0)),
    "guided_backprop, pytorch-grad-cam": (
        "guided_backprop",
        lambda net, one, target: GuidedBackpropReLUModel(deepcopy(net))(leaf(one), target).sum(2),
    ),
    "deconvnet, captum": ("deconvnet", lambda *args: captum_colours(Deconvolution, *args).sum(0)),
}
"""On networks whose rectifiers are nn.ReLU modules: those the peers know."""


@pytest.mark.parametrize(("method", "peer"), OF_THE_INPUT.values(), ids=OF_THE_INPUT)
@pytest.mark.parametrize("name", ["resnet50", "vgg16"])
def test_we_agree_with_a_peer_about_the_inputs_gradient(engine_of, name, method, peer):
    one = pictures(1)
    _, mine = ours(engine_of(name), method, "input", one, 3)
    np.testing.assert_allclose(by_size(mine), by_size(np.asarray(peer(engine_of(name).network, one, 3))), atol=1e-4)


@pytest.mark.parametrize(("name", "layer"), ONE_EACH)
def test_guided_gradcam_is_captums_once_it_is_told_to_enlarge_bilinearly(engine_of, name, layer):
    one = pictures(1)
    target, _ = ours(engine_of(name), "gradcam", layer, one)
    _, mine = ours(engine_of(name), "guided_gradcam", layer, one, target)
    theirs = captum_guided_cam(engine_of(name).network, layer, one, target, interpolate_mode="bilinear")
    np.testing.assert_allclose(by_size(mine), by_size(theirs), atol=1e-4)


@pytest.mark.parametrize(
    "peer",
    [lambda *args: from_grad_cam(AblationCAM, *args), captum_ablation],
    ids=["pytorch-grad-cam", "captum"],
)
def test_ablationcam_is_its_peers_behind_a_rectifier_for_a_positive_score(engine_of, peer):
    one, net = pictures(1), engine_of("resnet18", 300).network
    target = int(net(one)[0].argmax())
    _, mine = ours(engine_of("resnet18", 300), "ablationcam", "layer3", one, target)
    np.testing.assert_allclose(by_size(mine), by_size(peer(net, "layer3", one, target)), atol=1e-4)


RIVALRY = {
    "gradcam, pytorch-grad-cam": (
        "gradcam",
        lambda net, layer, one, a: from_grad_cam(GradCAM, net, layer, one, lambda logits: logits[a] - logits[RIVAL]),
    ),
    "layercam, pytorch-grad-cam's Finer-CAM": (
        "layercam",
        lambda net, layer, one, a: from_grad_cam(LayerCAM, net, layer, one, FinerWeightedTarget(a, [RIVAL], 1)),
    ),
    "layercam, torchcam's Finer-CAM": (
        "layercam",
        lambda *args: from_torchcam(
            lambda *where, **how: torchcam.FinerCAM(*where, **how, base_method=torchcam.LayerCAM, gamma=1),
            *args,
            comparison_idx=[RIVAL],
        ),
    ),
}
"""Finer-CAM, at full strength and against one class, is a contrast; by default it takes 3 classes, torchcam by 0.6."""


@pytest.mark.parametrize(("method", "peer"), RIVALRY.values(), ids=RIVALRY)
@pytest.mark.parametrize(("name", "layer"), ONE_EACH)
def test_a_contrast_is_a_peers_map_of_the_difference(engine_of, name, layer, method, peer):
    one = pictures(1)
    target, mine = ours(engine_of(name), method, layer, one, contrast=RIVAL)
    assert target != RIVAL
    np.testing.assert_allclose(
        normalised(mine), normalised(peer(engine_of(name).network, layer, one, target)), atol=1e-4
    )


@pytest.mark.parametrize(("method", "peer"), [("gradcam", GradCAM), ("layercam", LayerCAM), ("xgradcam", XGradCAM)])
@pytest.mark.parametrize(("name", "layer"), ONE_EACH)
def test_the_negative_polarity_is_a_peers_map_of_the_negated_score(engine_of, name, layer, method, peer):
    one = pictures(1)
    _, mine = ours(engine_of(name), method, layer, one, 3, polarity="negative")
    theirs = from_grad_cam(peer, engine_of(name).network, layer, one, lambda logits: -logits[3])
    np.testing.assert_allclose(by_size(-mine), by_size(theirs), atol=1e-4)


def test_the_default_of_densenet_is_pytorch_grad_cams_hirescam(engine_of):
    engine, one = engine_of("densenet121"), pictures(1)
    assert engine.default == "features"
    assert engine.is_exact("gradcam", "features")
    target, mine = ours(engine, "gradcam", "features", one)
    theirs = from_grad_cam(HiResCAM, engine.network, "features", one, target)
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

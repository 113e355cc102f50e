"""Guided backpropagation and its kin: rectifiers found wherever they are called, and rules by hand."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from captum.attr import GuidedBackprop
from pytorch_grad_cam import GuidedBackpropReLUModel
from torch import Tensor, nn

from camserve.cam.gates import prove
from camserve.cam.rectifiers import backward_rule, foreign_activation
from camserve.records import Task
from networks import CLASSES, inputs, network, seeded


class Line(nn.Module):
    """Three ways to rectify in a row; the rules can be followed by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 1, bias=False) for _ in range(3))
        self.act = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.a(x))
        x = F.relu(self.b(x), inplace=True)
        return torch.relu(self.c(x)).mean((2, 3))


def by_hand(net: Line, x: Tensor, target: int, rule: str) -> Tensor:
    """Backwards through the three layers with the rule at each rectifier."""
    weights = [conv.weight[:, :, 0, 0] for conv in (net.a, net.b, net.c)]
    kept, value = [], x
    for weight, ceiling in zip(weights, (6.0, float("inf"), float("inf")), strict=True):
        before = torch.einsum("oi,nihw->nohw", weight, value)
        kept.append((before > 0) & (before < ceiling))
        value = before.clamp(0, ceiling)
    gradient = torch.zeros_like(value)
    gradient[:, target] = 1 / value[0, 0].numel()
    for weight, open_ in zip(reversed(weights), reversed(kept), strict=True):
        if rule != "plain":
            gradient = gradient.clamp(min=0)
        if rule != "deconv":
            gradient = gradient * open_
        gradient = torch.einsum("oi,nohw->nihw", weight, gradient)
    return gradient


@pytest.mark.parametrize("rule", ["plain", "guided", "deconv"])
def test_a_rule_is_followed_through_every_way_to_rectify(rule):
    net = seeded(Line)
    x = (4 * inputs(2)).requires_grad_(True)
    with backward_rule(rule):
        (gradient,) = torch.autograd.grad(net(x)[:, 1].sum(), [x])
    torch.testing.assert_close(gradient, by_hand(net, x.detach(), 1, rule))


class InPlace(Line):
    """The same three, in place, with what they return thrown away."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        F.hardtanh(x, 0, 6, True)
        x = self.b(x)
        F.relu(x, inplace=True)
        x = self.c(x)
        x.relu_()
        return x.mean((2, 3))


@pytest.mark.parametrize("rule", ["plain", "guided", "deconv"])
def test_a_rectifier_in_place_need_not_be_assigned(rule):
    net = seeded(InPlace)
    x = (4 * inputs(2)).requires_grad_(True)
    with backward_rule(rule):
        logits = net(x)
        (gradient,) = torch.autograd.grad(logits[:, 1].sum(), [x])
    torch.testing.assert_close(gradient, by_hand(net, x.detach(), 1, rule))
    assert torch.equal(logits, net(x))


@pytest.mark.parametrize("rule", ["guided", "deconv"])
def test_the_logits_stay_the_same(rule):
    net = network("in-place ReLU")
    with backward_rule(rule):
        changed = net(inputs(2))
    assert torch.equal(changed, net(inputs(2)))


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: network("closed form"), None),
        (lambda: network("auxiliary head"), "tanh"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.SiLU()), "silu"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.GELU()), "gelu"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.Hardswish()), "hardswish"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.LeakyReLU()), "leaky_relu"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.Hardtanh()), "hardtanh"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6()), None),
    ],
    ids=["ReLU", "tanh in the head", "SiLU", "GELU", "Hardswish", "LeakyReLU", "Hardtanh", "ReLU6"],
)
def test_other_activations_are_noticed(build, name):
    assert foreign_activation(build().double(), inputs(1)) == name


def from_captum(net: nn.Module, one: Tensor, target: int) -> np.ndarray:
    return GuidedBackprop(net).attribute(one.clone().requires_grad_(True), target)[0].sum(0).detach().numpy()


def from_grad_cam(net: nn.Module, one: Tensor, target: int) -> np.ndarray:
    return GuidedBackpropReLUModel(net)(one.clone(), target).sum(2)


PEERS = pytest.mark.parametrize("peer", [from_captum, from_grad_cam], ids=["captum", "pytorch-grad-cam"])
THEIRS = "ignore::UserWarning"  # about their own hooks


def ours(net: nn.Module, one: Tensor, target: int, method: str) -> np.ndarray:
    engine = prove(net.requires_grad_(False), inputs(8).to(one), len(net(one)[0]), None)
    ask = Task(method, "input", (target,), None, "positive")
    (maps,) = engine.maps(engine.forward(one, [ask]), [ask])
    assert maps[0].failure is None
    return maps[0].map


def by_size(signed: np.ndarray) -> np.ndarray:
    return signed / np.abs(signed).max()


@pytest.mark.peers
@pytest.mark.filterwarnings(THEIRS)
@PEERS
def test_guided_backprop_equals_a_peers_where_every_rectifier_is_a_module(peer):
    theirs = peer(network("closed form"), inputs(1), 3)
    np.testing.assert_allclose(ours(network("closed form"), inputs(1), 3, "guided_backprop"), theirs, atol=1e-12)


@pytest.mark.peers
@pytest.mark.filterwarnings(THEIRS)
@PEERS
def test_a_peer_shows_the_plain_gradient_of_a_relu6_network(peer):
    """They replace nn.ReLU modules only: a network of ReLU6 has none, and its guided gradient is the plain one."""
    torch.manual_seed(0)
    net = timm.create_model("tf_efficientnet_lite0", num_classes=CLASSES).double().eval()
    one = inputs(1).repeat(1, 1, 2, 2)
    x = one.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(net(x)[0, 3], [x])
    plain = gradient[0].sum(0).numpy()
    np.testing.assert_allclose(peer(net, one, 3), plain, atol=1e-12 * np.abs(plain).max())
    assert np.abs(by_size(ours(net, one, 3, "guided_backprop")) - by_size(plain)).max() > 0.1


@pytest.mark.peers
@pytest.mark.filterwarnings(THEIRS)
@PEERS
def test_a_peer_misses_a_rectifier_that_is_a_function(peer):
    """DenseNet ends in F.relu: they pass its gradient on as it is, negative parts too, and guide the modules before."""
    net, x = network("in-place ReLU"), inputs(1).requires_grad_(True)
    with backward_rule("guided"):
        maps = net.features(net.early(x))
    leaf = maps.detach().requires_grad_(True)
    (plain_end,) = torch.autograd.grad(net.head(leaf.relu().mean((2, 3)))[0, 3], [leaf])
    (gradient,) = torch.autograd.grad(maps, [x], plain_end)
    theirs = peer(network("in-place ReLU"), inputs(1), 3)
    np.testing.assert_allclose(theirs, gradient[0].sum(0).numpy(), atol=1e-12)
    mine = ours(network("in-place ReLU"), inputs(1), 3, "guided_backprop")
    assert np.abs(by_size(mine) - by_size(theirs)).max() > 0.1


@pytest.mark.parametrize("kind", ["closed form", "in-place ReLU", "tail gradient"])
def test_saliency_and_guided_gradcam_by_hand(kind):
    net, one = network(kind), inputs(1)
    x = one.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(net(x)[0, 3], [x])
    np.testing.assert_allclose(ours(network(kind), one, 3, "saliency"), gradient[0].abs().amax(0), atol=1e-12)

    engine = prove(network(kind), inputs(8), CLASSES, None)
    asks = [Task(method, engine.default, (3,), None, "positive") for method in ("gradcam", "guided_gradcam")]
    cam, guided_cam = (maps[0].map for maps in engine.maps(engine.forward(one.repeat(2, 1, 1, 1), asks), asks))
    enlarged = F.interpolate(
        torch.from_numpy(cam).double().clamp(min=0)[None, None], one.shape[2:], mode="bilinear", align_corners=False
    )[0, 0]
    expected = ours(network(kind), one, 3, "guided_backprop") * enlarged.numpy()
    np.testing.assert_allclose(guided_cam, expected, atol=1e-6 * np.abs(expected).max())

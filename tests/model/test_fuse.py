"""What a convolution computes along changes no bit of anything that can be seen, and is not computed again."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import mobilenet_v2, resnet18, resnet50

from camserve.cam.capture import capture
from camserve.cam.layers import find_layers
from camserve.model.fold import fold
from camserve.model.fuse import fuse
from camserve.model.pack import pack

SIZE = 48
NETWORKS = {
    "resnet18": resnet18,
    "resnet50": resnet50,
    "mobilenet_v2": mobilenet_v2,
    "tf_efficientnet_lite0": lambda: timm.create_model("tf_efficientnet_lite0"),
    "timm resnet18": lambda: timm.create_model("resnet18"),
}


def pair(make):
    """The same network twice, folded and packed, the second one fused as well; and a probe."""
    torch.manual_seed(0)
    plain, probe = make().eval().requires_grad_(False), torch.randn(8, 3, SIZE, SIZE)
    fused = copy.deepcopy(plain)
    for network in (plain, fused):
        fold(network, probe)
        pack(network, probe)
    fuse(fused, probe)
    return plain, fused, probe


@pytest.fixture(scope="module", params=NETWORKS)
def networks(request):
    return pair(NETWORKS[request.param])


def rectifiers(network, inputs, monkeypatch):
    """How many rectifiers a forward without a graph computes as modules of their own."""
    called = []
    for kind in (nn.ReLU, nn.Hardtanh):
        forward = kind.forward

        def counted(self, input, forward=forward):
            called.append(self)
            return forward(self, input)

        monkeypatch.setattr(kind, "forward", counted)
    with torch.inference_mode():
        network(inputs)
    monkeypatch.undo()
    return len(called)


def test_fewer_passes(networks, monkeypatch):
    plain, fused, probe = networks
    before, after = (rectifiers(one, probe, monkeypatch) for one in (plain, fused))
    assert before > 15
    assert after <= (8 if isinstance(fused, timm.models.ResNet) else 0)  # timm's blocks add by themselves


class Sums(TorchDispatchMode):
    """Counts sums of two tensors."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "blocks"), [("resnet50", 16), ("tf_efficientnet_lite0", 9)])
def test_no_sum_is_a_pass_of_its_own(name, blocks):
    plain, fused, probe = pair(NETWORKS[name])
    for network, expected in ((plain, blocks), (fused, 0)):
        with torch.inference_mode(), Sums() as sums:
            network(probe)
        assert sums.count == expected


@pytest.mark.parametrize("rows", range(1, 9))
def test_no_bit_of_the_logits(networks, rows):
    plain, fused, _ = networks
    inputs = torch.randn(rows, 3, SIZE, SIZE)
    with torch.inference_mode():
        assert torch.equal(fused(inputs), plain(inputs))


@pytest.mark.parametrize("graph", [False, True])
def test_no_bit_of_any_layer(networks, graph):
    plain, fused, probe = networks
    layers = [find_layers(one, probe[:1], None) for one in (plain, fused)]
    assert layers[0].keys() == layers[1].keys()
    names = list(layers[0])
    for name in [*names[:9], *names[9::17]]:
        results = []
        for network, own in zip((plain, fused), layers, strict=True):
            with capture([own[name]], graph) as captured:
                logits = network(probe[:2])
            gradient = torch.autograd.grad(logits[:, 3].sum(), captured[name])[0] if graph else logits
            results.append((captured[name].detach(), gradient, logits.detach()))
        assert all(map(torch.equal, *results)), name


def test_weights_that_are_replaced_count(networks):
    plain, fused, probe = networks
    for network in (plain, fused):
        convolution = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        convolution.weight = nn.Parameter(convolution.weight * -2, requires_grad=False)
    with torch.inference_mode():
        assert torch.equal(fused(probe), plain(probe))


class Again(nn.Module):
    """One ReLU that is called again, with its own output changed in place."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(8, 4)

    def forward(self, inputs):
        found = self.relu(self.first(inputs))
        found -= self.second(inputs)
        return self.head(self.relu(found).mean((2, 3)))


class Both(Again):
    """What goes into the ReLU is used elsewhere too."""

    def forward(self, inputs):
        found = self.first(inputs)
        return self.head((torch.relu(self.relu(found)) + found.abs()).mean((2, 3)))


class BothKept(Both):
    """The same where the ReLU leaves its input as it is."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU()


@pytest.mark.parametrize("kind", [Again, Both, BothKept])
def test_what_else_is_done_with_an_output(kind):
    plain, fused, probe = pair(kind)
    for rows in (1, 5):
        with torch.inference_mode():
            assert torch.equal(fused(probe[:rows]), plain(probe[:rows]))


def test_what_is_not_a_number_is_not_hidden(monkeypatch):
    def broken():
        network = Again()
        network.first.weight.data[0, 0, 0, 0] = torch.nan
        return network

    _, fused, probe = pair(broken)
    with torch.inference_mode():
        assert fused(probe).isnan().any()

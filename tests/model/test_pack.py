"""Packed convolutions give the numbers of plain ones, forwards and backwards, whatever becomes of their weights."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from camserve.model.pack import PackedConv2d, pack


class Forms(nn.Module):
    """Convolutions of every form that is packed, and two that are not."""

    def __init__(self):
        super().__init__()
        self.plain = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, bias=False)
        self.pointwise = nn.Conv2d(8, 16, 1)
        self.reflecting = nn.Conv2d(16, 8, 3, padding=1, padding_mode="reflect")
        self.named = nn.Conv2d(8, 8, 3, padding="same")
        self.head = nn.Linear(8, 5)

    def forward(self, inputs):
        found = torch.relu(self.depthwise(self.plain(inputs)))
        found = self.named(self.reflecting(torch.relu(self.pointwise(found))))
        return self.head(found.mean((2, 3)))


@pytest.fixture
def networks():
    """The same network twice, the second one packed, and a probe."""
    torch.manual_seed(0)
    network, probe = Forms().eval().requires_grad_(False), torch.randn(8, 3, 32, 32)
    packed = copy.deepcopy(network)
    pack(packed, probe)
    return network, packed, probe


def test_which_are_packed(networks):
    found = [name for name, module in networks[1].named_modules() if isinstance(module, PackedConv2d)]
    assert found == ["plain", "depthwise", "pointwise"]


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_the_same_logits_and_gradients(networks, batch):
    network, packed, probe = networks
    results = []
    for one in (network, packed):
        inputs = probe[:batch].clone().requires_grad_(True)
        logits = one(inputs)
        (gradient,) = torch.autograd.grad(logits[:, 2].sum(), inputs)
        results.append((logits.detach(), gradient))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 8])
def test_a_graph_changes_no_bit(networks, batch):
    _, packed, probe = networks
    inputs = probe[:batch]
    with torch.inference_mode():
        plain = packed(inputs)
    assert torch.equal(plain, packed(inputs.clone().requires_grad_(True)).detach())


def test_other_sizes_than_the_probe(networks):
    network, packed, _ = networks
    inputs = torch.randn(2, 3, 50, 41)
    with torch.inference_mode():
        torch.testing.assert_close(packed(inputs), network(inputs), rtol=1e-5, atol=1e-6)


def test_weights_that_are_replaced_count(networks):
    network, packed, probe = networks
    for one in (network, packed):
        one.pointwise.weight = nn.Parameter(torch.ones_like(one.pointwise.weight), requires_grad=False)
    with torch.inference_mode():
        torch.testing.assert_close(packed(probe), network(probe), rtol=1e-5, atol=1e-6)


def test_hooks_stay(networks):
    network, _, probe = networks
    seen = []
    network.plain.register_forward_hook(lambda module, inputs, output: seen.append(module))
    pack(network, probe)
    with torch.inference_mode():
        network(probe)
    assert isinstance(seen[-1], PackedConv2d)


@pytest.mark.xfail(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bfloat16 for this processor")
def test_under_autocast(networks):
    torch.manual_seed(0)
    network, probe = Forms().eval().requires_grad_(False), torch.randn(8, 3, 32, 32)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(torch.bfloat16)
    packed = copy.deepcopy(network)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        pack(packed, probe)
        torch.testing.assert_close(packed(probe), network(probe), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("size", [(32, 32), (33, 32), (17, 30)])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_padding_as_tensorflow_does_it(size, kernel, stride):
    torch.manual_seed(0)
    module, probe = Conv2dSame(4, 8, kernel, stride, groups=2).eval().requires_grad_(False), torch.randn(8, 4, *size)
    network = nn.Sequential(module)
    pack(network, probe)
    assert isinstance(network[0], PackedConv2d)
    for inputs in (probe, torch.randn(3, 4, 21, 22)):  # the size that was packed for, and another
        results = []
        for one in (module, network):
            source = inputs.clone().requires_grad_(True)
            found = one(source)
            weight = torch.arange(found.numel(), dtype=torch.float32).reshape(found.shape).cos()
            results.append((found.detach(), *torch.autograd.grad((found * weight).sum(), source)))
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)

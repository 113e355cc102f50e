"""Folding changes no number that anyone sees, and is undone where it would."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from camserve.model.fold import FoldedBatchNorm, fold


def seeded(network: nn.Module) -> nn.Module:
    """In eval mode, with batch norms that do something."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            for tensor in (module.running_mean, module.bias):
                tensor.data.normal_(0, 0.2)
            for tensor in (module.running_var, module.weight):
                tensor.data.uniform_(0.5, 1.5)
    return network.eval().requires_grad_(False)


class Block(nn.Module):
    """A convolution and a batch norm, joined as the derived class says."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, inputs):
        return self.path(inputs).mean((2, 3))


class Straight(Block):
    def path(self, inputs):
        return F.relu(self.norm(self.conv(inputs)))


class UsedTwice(Block):
    def path(self, inputs):
        output = self.conv(inputs)
        return self.norm(output) + output


class ChangedInPlace(Block):
    def path(self, inputs):
        return self.norm(F.relu_(self.conv(inputs)))


class CalledTwice(Block):
    def path(self, inputs):
        self.conv(inputs * 2)
        return self.norm(self.conv(inputs))


class LooksInside(Block):
    def path(self, inputs):
        return self.norm(self.conv(inputs)) * self.norm.weight[0]


class Reversed(Block):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def path(self, inputs):
        return self.conv(self.norm(inputs))


class OfTheBatch(Block):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)

    def path(self, inputs):
        return self.norm(self.conv(inputs))


PROBE = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))

FOLDED = {
    "torchvision/resnet18": 20,
    "torchvision/vgg11_bn": 8,
    "torchvision/densenet121": 59,  # the norms before a convolution stay
    "torchvision/mobilenet_v2": 52,
    "timm/tf_efficientnet_lite0": 49,  # convolutions that pad as TensorFlow does, batch norms with an activation
}


def built(name: str) -> nn.Module:
    library, _, name = name.partition("/")
    torch.manual_seed(0)
    return torchvision.models.get_model(name, weights=None) if library == "torchvision" else timm.create_model(name)


@pytest.mark.parametrize(("name", "count"), FOLDED.items(), ids=FOLDED)
def test_folded_logits_are_the_same_to_1e_4(name, count):
    network = seeded(built(name))
    with torch.no_grad():
        before = network(PROBE)
        assert len(fold(network, PROBE)) == count
        after = network(PROBE)
    assert not torch.equal(before, after)  # it did something
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4 * before.abs().max().item())


def outputs(network: nn.Module, names: list[str]) -> dict[str, torch.Tensor]:
    seen: dict[str, torch.Tensor] = {}
    for name in names:
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: output.clone()})
        )
    with torch.no_grad():
        network(PROBE)
    return seen


def test_every_other_module_puts_out_what_it_did():
    network, folded = seeded(built("timm/tf_efficientnet_lite0")), seeded(built("timm/tf_efficientnet_lite0"))
    gone = fold(folded, PROBE)
    names = [name for name, module in network.named_modules() if name and name not in gone]
    assert {name for name, _ in folded.named_modules()} >= set(names)
    before, after = outputs(network, names), outputs(folded, names)
    assert {"bn2", "bn2.act", "bn2.drop", "blocks.6"} <= set(before)
    for name, output in before.items():
        torch.testing.assert_close(after[name], output, rtol=1e-3, atol=1e-4 * output.abs().max().item(), msg=name)


@pytest.mark.parametrize("kind", [UsedTwice, ChangedInPlace, CalledTwice, LooksInside, Reversed, OfTheBatch])
def test_what_cannot_be_folded_stays_as_it_was(kind):
    network = seeded(kind())
    conv, norm = network.conv, network.norm
    with torch.no_grad():
        before = network(PROBE)
        assert fold(network, PROBE) == frozenset()
        assert torch.equal(network(PROBE), before)
    assert network.conv is conv
    assert network.norm is norm


def test_the_convolution_to_be_explained_is_kept():
    network = seeded(Straight())
    assert fold(network, PROBE, keep="conv") == frozenset()
    assert fold(network, PROBE, keep="norm") == {"conv"}
    assert isinstance(network.norm, FoldedBatchNorm)


def test_no_hook_stays_behind():
    network = seeded(Straight())
    fold(network, PROBE)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())

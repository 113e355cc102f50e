"""Passes over memory that a convolution makes needless: what stands behind it is computed as its numbers are written.

That is an activation, and in residual blocks the sum and its ReLU, if there is one. The bits stay the same. Where a
graph is recorded, or a hook wants to see what would not be made, everything is computed one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from timm.layers import DropPath
from timm.models._efficientnet_blocks import InvertedResidual
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from camserve.model.fold import FoldedBatchNorm
from camserve.model.pack import ACTIVATED, Activation, PackedConv2d, are_free

Undo = Callable[[], None]


def fuse(network: nn.Module, probe: Tensor) -> None:
    """Let packed convolutions compute what stands behind them, in place; not what would change a bit of the logits.

    Args:
        network: in eval mode, packed.
        probe: N x 3 x H x W.
    """
    if not any(isinstance(module, PackedConv2d) for module in network.modules()):
        return
    expected = _logits(network, probe)
    if not all(torch.isfinite(one).all() for one in expected):
        return  # oneDNN makes zeros of what is not a number, and nobody would see it any more
    for fused in (_activations, _sums):
        undo = fused(network, probe)
        if not all(map(torch.equal, _logits(network, probe), expected)):
            undo()


class _Passing(nn.Module):
    """An activation that passes on what has been through it already."""

    def forward(self, input: Tensor) -> Tensor:
        """Of the input's shape."""
        if vars(input).pop(ACTIVATED, False):
            return input
        output: Tensor = super().forward(input)
        return output


class PassingReLU(_Passing, nn.ReLU):
    """ReLU, if it is still to be done."""


class PassingReLU6(_Passing, nn.ReLU6):
    """ReLU6, if it is still to be done."""


class _Form(NamedTuple):
    """How oneDNN calls an activation, its bounds, and the class that takes its place."""

    name: str
    bounds: tuple[float, ...]
    passing: type[nn.Module]


_ACTIVATIONS: dict[type[nn.Module], _Form] = {
    nn.ReLU: _Form("relu", (), PassingReLU),
    nn.ReLU6: _Form("hardtanh", (0.0, 6.0), PassingReLU6),
}
"""Those that only cut off; what else there is comes out a bit different in one pass."""


class _Pair(NamedTuple):
    """A convolution, the activation called next with its output, and the modules that ended in between."""

    convolution: PackedConv2d
    activation: nn.Module
    before: tuple[nn.Module, ...]


def _activations(network: nn.Module, probe: Tensor) -> Undo:
    """Convolutions compute the activations right behind them."""
    pairs = _pairs(network, probe)
    kinds = {pair.activation: type(pair.activation) for pair in pairs}
    for convolution, activation, before in pairs:
        form = _ACTIVATIONS[kinds[activation]]
        convolution.activation = Activation(form.name, form.bounds, before)
        activation.__class__ = form.passing

    def undo() -> None:
        for pair in pairs:
            pair.convolution.activation = None
            pair.activation.__class__ = kinds[pair.activation]

    return undo


def _pairs(network: nn.Module, probe: Tensor) -> list[_Pair]:
    """Convolutions called once, whose output goes, unchanged, into the activation called next."""
    calls: dict[nn.Module, int] = {}
    ended: list[nn.Module] = []
    made: list[tuple[Tensor, int]] = []
    found: list[_Pair] = []

    def after(module: nn.Module, _: object, output: object) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, PackedConv2d) and isinstance(output, Tensor):
            ended.clear()
            made[:] = [(output, output._version)]
        ended.append(module)

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if type(module) not in _ACTIVATIONS or not made or not inputs:
            return
        (output, version), convolution = made[0], ended[0]
        if inputs[0] is output and output._version == version and isinstance(convolution, PackedConv2d):
            found.append(_Pair(convolution, module, tuple(ended)))

    modules = list(network.modules())
    handles = [module.register_forward_hook(after) for module in modules]
    handles += [module.register_forward_pre_hook(before) for module in modules]
    try:
        with torch.no_grad():  # in inference mode tensors do not count the changes made to them
            network(probe)
    finally:
        for handle in handles:
            handle.remove()
    return [pair for pair in found if calls[pair.convolution] == 1]


class SummingBasicBlock(BasicBlock):  # type: ignore[misc]
    """ResNet-18's and 34's block, whose last convolution is added to what goes around it."""

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x K x h x w."""
        found = self.relu(self.bn1(self.conv1(x)))
        return _summed(self, self.conv2, self.bn2, found, x)


class SummingBottleneck(Bottleneck):  # type: ignore[misc]
    """The same with three convolutions, from ResNet-50 on."""

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x K x h x w."""
        found = self.relu(self.bn1(self.conv1(x)))
        found = self.relu(self.bn2(self.conv2(found)))
        return _summed(self, self.conv3, self.bn3, found, x)


class SummingInvertedResidual(InvertedResidual):  # type: ignore[misc]
    """timm's block of EfficientNets and MobileNets, whose sum has no activation."""

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x K x h x w."""
        if not self.has_skip or self.conv_s2d is not None:
            output: Tensor = super().forward(x)
            return output
        found = self.bn1(self.conv_pw(x))
        found = self.se(self.aa(self.bn2(self.conv_dw(found))))
        if _may_sum(self.conv_pwl, (*self.bn3.modules(), self.drop_path)):
            output = self.conv_pwl.add_to(x, found)
        else:
            output = self.drop_path(self.bn3(self.conv_pwl(found))) + x
        return output


_BLOCKS: dict[type[nn.Module], type[nn.Module]] = {
    BasicBlock: SummingBasicBlock,
    Bottleneck: SummingBottleneck,
    InvertedResidual: SummingInvertedResidual,
}


def _sums(network: nn.Module, probe: Tensor) -> Undo:
    """The last convolutions of residual blocks compute the sum, and the ReLU behind it."""
    kinds = {module: type(module) for module in network.modules() if type(module) in _BLOCKS}
    for block, kind in kinds.items():
        block.__class__ = _BLOCKS[kind]

    def undo() -> None:
        for block, kind in kinds.items():
            block.__class__ = kind

    return undo


def _summed(block: BasicBlock | Bottleneck, last: Any, norm: nn.Module, found: Tensor, x: Tensor) -> Tensor:
    """ReLU of the last convolution plus what goes around."""
    around: Tensor = x if block.downsample is None else block.downsample(x)
    if _may_sum(last, (norm,)) and are_free((block.relu,)):
        output: Tensor = last.add_to(around, found, "relu")
    else:
        found = norm(last(found))
        found += around
        output = block.relu(found)
    return output


_PASSING = (FoldedBatchNorm, nn.Sequential, nn.Identity, DropPath)
"""Modules that, in eval mode, change nothing."""


def _may_sum(last: nn.Module, behind: Sequence[nn.Module]) -> bool:
    """Whether the last convolution may add to what goes around, of which nobody but the block has need.

    That is if the modules behind it pass on what it puts out, and nobody looks. To be asked when it is its turn, since
    a hook on an earlier convolution may have begun a graph.
    """
    passing = all(type(module) in _PASSING for module in behind)
    return passing and isinstance(last, PackedConv2d) and last.is_packed and are_free((last, *behind))


def _logits(network: nn.Module, probe: Tensor) -> list[Tensor]:
    """Of one row, and of all."""
    with torch.inference_mode():
        return [network(probe[:1]), network(probe)]

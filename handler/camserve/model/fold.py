"""Batch norm behind a convolution, folded into the convolution's weights: the same numbers in fewer passes."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict
from typing import NamedTuple

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

TOLERANCE = 1e-4
"""How far folded and unfolded logits may lie apart, in units of the largest."""

_CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
"""Not every class derived from these: some compute their weights anew in each forward."""


class FoldedBatchNorm(nn.Module):
    """Stands where a batch norm stood and passes on what it put out."""

    def forward(self, inputs: Tensor) -> Tensor:
        """The very same tensor."""
        return inputs


class _Pair(NamedTuple):
    """Names of a convolution and of the batch norm that alone gets its output."""

    convolution: str
    norm: str


def fold(network: nn.Module, probe: Tensor, keep: str | None = None) -> frozenset[str]:
    """Fold all pairs that a forward shows, in place; none if that would change the logits.

    A module still stands where the batch norm stood and puts out what it did, its activation included. The folded
    convolution's own output is gone.

    Args:
        network: in eval mode.
        probe: N x 3 x H x W.
        keep: a convolution that is to be explained, and so stays as it is.

    Returns:
        The names of the folded convolutions.
    """
    pairs = [pair for pair in _pairs(network, probe) if pair.convolution != keep]
    before = {name: network.get_submodule(name) for pair in pairs for name in pair}
    expected = _logits(network, probe)
    for pair in pairs:
        _join(network, pair)
    if not _same(network, probe, expected):
        for name, module in before.items():
            network.set_submodule(name, module)
        return frozenset()
    return frozenset(pair.convolution for pair in pairs)


def _pairs(network: nn.Module, probe: Tensor) -> list[_Pair]:
    """Convolutions and batch norms called once, of which the first one's output, unchanged, is the other's input."""
    names = {module: name for name, module in network.named_modules()}
    calls: Counter[nn.Module] = Counter()
    made: dict[int, tuple[nn.Module, Tensor, int]] = {}
    found: list[tuple[nn.Module, nn.Module]] = []

    def after_convolution(module: nn.Module, _: object, output: Tensor) -> None:
        calls[module] += 1
        made[id(output)] = module, output, output._version

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[module] += 1
        if not inputs:  # a caller who names what it passes is left alone
            return
        convolution, output, version = made.get(id(inputs[0]), (module, inputs[0], -1))
        if output._version == version:
            found.append((convolution, module))

    handles = [one.register_forward_hook(after_convolution) for one in names if type(one) in _CONVOLUTIONS]
    handles += [one.register_forward_pre_hook(before_norm) for one in names if _is_fixed_norm(one)]
    try:
        _logits(network, probe)
    finally:
        for handle in handles:
            handle.remove()
    return [_Pair(names[first], names[second]) for first, second in found if calls[first] == calls[second] == 1]


def _is_fixed_norm(module: nn.Module) -> bool:
    """Whether it scales by numbers known before the picture is."""
    return type(module) in (nn.BatchNorm2d, BatchNormAct2d) and module.running_mean is not None


def _join(network: nn.Module, pair: _Pair) -> None:
    """Put a convolution with the norm's weights in the place of the one, and what is left in the place of the other."""
    convolution, norm = (network.get_submodule(name) for name in pair)
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    bias, scale, shift = (None if one is None else one.double() for one in (convolution.bias, norm.weight, norm.bias))
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    exact = fuse_conv_bn_weights(convolution.weight.double(), bias, mean, variance, norm.eps, scale, shift)
    joined = copy.copy(convolution)
    joined._parameters = dict(convolution._parameters)
    joined.weight, joined.bias = (nn.Parameter(one.to(convolution.weight.dtype), requires_grad=False) for one in exact)
    network.set_submodule(pair.convolution, joined)
    network.set_submodule(pair.norm, _rest(norm))


def _rest(norm: nn.BatchNorm2d) -> nn.Module:
    """What a batch norm does after it has scaled; parts keep their names."""
    if isinstance(norm, BatchNormAct2d):
        return nn.Sequential(OrderedDict(drop=norm.drop, act=norm.act)).eval()
    return FoldedBatchNorm().eval()


def _same(network: nn.Module, probe: Tensor, expected: Tensor) -> bool:
    try:
        logits = _logits(network, probe)
    except Exception:  # a network may look into its batch norms; what it then raises is its own affair
        return False
    return bool((logits - expected).abs().max() <= TOLERANCE * expected.abs().max())


def _logits(network: nn.Module, probe: Tensor) -> Tensor:
    # Not in inference mode, where tensors do not count the changes made to them.
    with torch.no_grad():
        logits: Tensor = network(probe)
    return logits

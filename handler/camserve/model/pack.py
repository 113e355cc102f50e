"""Convolutions whose weights lie in memory as oneDNN computes with them: else it reorders them in every forward.

The order depends on the number of rows: ResNet-50's for eight rows doubles the time of one. So there are two.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class PackedConv2d(nn.Conv2d):
    """A convolution that also holds its weights packed; the very same numbers with and without a graph."""

    packed_for_one: Tensor
    packed_for_many: Tensor
    packed_from: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """N x C x H x W to N x K x h x w."""
        if self.weight is not self.packed_from:  # replaced since
            return super().forward(input)
        input = input.to(self.weight.dtype)  # under autocast, which does not know this operation
        if not torch.is_grad_enabled():
            return _forward(input, self)
        output: Tensor = _Convolution.apply(input, self)  # type: ignore[no-untyped-call]
        return output


class _Convolution(torch.autograd.Function):
    """oneDNN's operation on packed weights has no derivative of its own."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, convolution: PackedConv2d) -> Tensor:
        ctx.save_for_backward(input)
        ctx.convolution = convolution
        return _forward(input, convolution)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (input,), one = ctx.saved_tensors, ctx.convolution
        found = torch.ops.aten.convolution_backward(
            *(gradients[0], input, one.weight, None, one.stride, one.padding, one.dilation),
            *(False, [0, 0], one.groups, [True, False, False]),
        )
        return found[0], None


def pack(network: nn.Module, probe: Tensor) -> None:
    """Pack the convolutions of a network on the CPU, in place; on other devices nothing is done.

    Args:
        network: in eval mode, its weights as they will stay.
        probe: N x 3 x H x W, of the size and number for which the order of weights is chosen; others work as well.
    """
    if probe.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for name, size in _sizes(network, probe).items():
        network.set_submodule(name, _packed(network.get_submodule(name), size))


def _sizes(network: nn.Module, probe: Tensor) -> dict[str, torch.Size]:
    """The plain convolutions that a forward calls, and the size of what they get."""
    names = {module: name for name, module in network.named_modules() if _is_plain(module)}
    sizes: dict[str, torch.Size] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes[names[module]] = inputs[0].shape

    handles = [module.register_forward_pre_hook(note) for module in names]
    try:
        with torch.inference_mode():
            network(probe)
    finally:
        for handle in handles:
            handle.remove()
    return sizes


def _is_plain(module: nn.Module) -> bool:
    """Whether it is a convolution of numbers that stay, which pads by numbers of zeros."""
    return type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _packed(module: nn.Module, size: torch.Size) -> PackedConv2d:
    """A copy of the module that shares its weights and hooks."""
    convolution = copy.copy(module)
    convolution.__class__ = PackedConv2d
    assert isinstance(convolution, PackedConv2d)
    settings: list[Any] = [convolution.padding, convolution.stride, convolution.dilation, convolution.groups]
    plain = convolution.weight.detach().to_mkldnn()
    reorder = torch.ops.aten.mkldnn_reorder_conv2d_weight
    convolution.packed_for_one = reorder(plain, *settings, (1, *size[1:]))
    convolution.packed_for_many = reorder(plain, *settings, size)
    convolution.packed_from = convolution.weight
    return convolution


def _forward(input: Tensor, one: PackedConv2d) -> Tensor:
    packed = one.packed_for_one if len(input) == 1 else one.packed_for_many
    output: Tensor = torch.ops.mkldnn._convolution_pointwise(
        input, packed, one.bias, one.padding, one.stride, one.dilation, one.groups, "none", [], ""
    )
    return output

"""Convolutions whose weights lie in memory as oneDNN computes with them: else it reorders them in every forward.

The order depends on the number of rows: ResNet-50's for eight rows doubles the time of one. So there are two. The
padding of TensorFlow's networks, a row and a column more on one side than on the other, is packed along: else their
inputs are copied into larger ones in every forward.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn

ACTIVATED = "activated"
"""An output that carries this attribute has been through the activation behind it."""


@dataclass(frozen=True, slots=True)
class Packing:
    """What `source`, the convolution's parameter, is computed with, and for which size of inputs.

    `weight` is the kernel behind `padding` on all sides; `for_one` and `for_many` are the same in oneDNN's order.
    """

    source: Tensor
    size: tuple[int, int]
    padding: tuple[int, int]
    weight: Tensor
    for_one: Tensor
    for_many: Tensor


@dataclass(frozen=True, slots=True)
class Activation:
    """What oneDNN calls an activation, its bounds, and the modules that put out what goes into it."""

    name: str
    bounds: tuple[float, ...]
    before: tuple[nn.Module, ...]


def are_free(modules: Iterable[nn.Module]) -> bool:
    """Whether nobody looks at what they put out: then it need not be made."""
    return not torch.is_grad_enabled() and not any(module._forward_hooks for module in modules)


class PackedConv2d(nn.Conv2d):
    """A convolution that also holds its weights packed; the very same numbers with and without a graph.

    Without one, it computes its `activation` along and marks its output as `ACTIVATED`.
    """

    packing: Packing
    activation: Activation | None = None

    @property
    def is_packed(self) -> bool:
        """Whether the weights have not been replaced since."""
        return self.weight is self.packing.source

    def forward(self, input: Tensor) -> Tensor:
        """N x C x H x W to N x K x h x w."""
        if not self.is_packed:
            return super().forward(input)
        input = input.to(self.weight.dtype)  # under autocast, which does not know this operation
        if torch.is_grad_enabled():
            found: Tensor = _Convolution.apply(input, self)  # type: ignore[no-untyped-call]
            return found
        if self.activation is None or not are_free(self.activation.before):
            return _forward(input, self)
        output = _forward(input, self, self.activation)
        vars(output)[ACTIVATED] = True
        return output

    def add_to(self, other: Tensor, input: Tensor, activation: str | None = None) -> Tensor:
        """`other` plus the convolution, activated, in one pass and in the memory of `other`; without a graph."""
        input = input.to(self.weight.dtype)
        output: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
            other, input, *_settings(self, input), "add", 1.0, activation, [], ""
        )
        return output


class PackedConv2dSame(PackedConv2d, Conv2dSame):  # type: ignore[misc]
    """One that pads as TensorFlow does: how much, depends on the size of its inputs."""

    def forward(self, input: Tensor) -> Tensor:
        """N x C x H x W to N x K x h x w."""
        forward = super().forward if input.shape[2:] == self.packing.size else partial(Conv2dSame.forward, self)
        output: Tensor = forward(input)
        return output


_PACKED: dict[type[nn.Module], type[PackedConv2d]] = {nn.Conv2d: PackedConv2d, Conv2dSame: PackedConv2dSame}
"""Not every class derived from these: some compute their weights anew in each forward."""


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
            *(gradients[0], input, one.packing.weight, None, one.stride, one.packing.padding, one.dilation),
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
        if inputs:  # a caller who names what it passes is left alone
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
    if isinstance(module, Conv2dSame) and module.dilation != (1, 1):
        return False
    return type(module) in _PACKED and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _packed(module: nn.Module, size: torch.Size) -> PackedConv2d:
    """A copy of the module that shares its weights and hooks."""
    convolution = copy.copy(module)
    convolution.__class__ = _PACKED[type(module)]
    assert isinstance(convolution, PackedConv2d)
    height, width = size[2:]
    weight, padding = _same(convolution, height, width) if isinstance(convolution, Conv2dSame) else _as_is(convolution)
    reorder, plain = torch.ops.aten.mkldnn_reorder_conv2d_weight, weight.to_mkldnn()
    settings: list[Any] = [padding, convolution.stride, convolution.dilation, convolution.groups]
    convolution.packing = Packing(
        convolution.weight,
        (height, width),
        padding,
        weight,
        reorder(plain, *settings, (1, *size[1:])),
        reorder(plain, *settings, size),
    )
    return convolution


def _as_is(one: nn.Conv2d) -> tuple[Tensor, tuple[int, int]]:
    """Kernel and padding."""
    assert not isinstance(one.padding, str)
    return one.weight.detach(), (one.padding[0], one.padding[1])


def _same(one: nn.Conv2d, height: int, width: int) -> tuple[Tensor, tuple[int, int]]:
    """Kernel and padding that do what TensorFlow's padding does.

    Where it pads one more behind than in front, it is here one more in front too, under a row of zeros.
    """
    totals = [
        max(0, (math.ceil(length / stride) - 1) * stride + (kernel - 1) * dilation + 1 - length)
        for length, kernel, stride, dilation in zip(
            (height, width), one.kernel_size, one.stride, one.dilation, strict=True
        )
    ]
    weight = F.pad(one.weight.detach(), (totals[1] % 2, 0, totals[0] % 2, 0))
    return weight, (-(-totals[0] // 2), -(-totals[1] // 2))


def _forward(input: Tensor, one: PackedConv2d, activation: Activation | None = None) -> Tensor:
    name, bounds = (activation.name, activation.bounds) if activation else ("none", ())
    output: Tensor = torch.ops.mkldnn._convolution_pointwise(input, *_settings(one, input), name, bounds, "")
    return output


def _settings(one: PackedConv2d, input: Tensor) -> tuple[Any, ...]:
    """What oneDNN's operations want to know of a convolution."""
    packed = one.packing.for_one if len(input) == 1 else one.packing.for_many
    return packed, one.bias, one.packing.padding, one.stride, one.dilation, one.groups

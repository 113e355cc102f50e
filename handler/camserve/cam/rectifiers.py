"""Other backward rules for ReLU and ReLU6, wherever a network calls them: as modules, functions or in place.

    plain    passes the gradient where the input was positive (and below 6 for ReLU6)
    deconv   passes the positive gradient, whatever the input was (Zeiler and Fergus 2014)
    guided   passes the positive gradient where the input was positive (Springenberg et al. 2015)

Libraries that replace nn.ReLU modules miss ReLU6 and functional calls, and then show the plain gradient under
another name. Here the calls themselves are intercepted, and a network with any other activation is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Rule = Literal["plain", "deconv", "guided"]

_CEILINGS: Mapping[Callable[..., Any], float] = {
    F.relu: math.inf,
    F.relu_: math.inf,
    torch.relu: math.inf,
    torch.relu_: math.inf,
    Tensor.relu: math.inf,
    Tensor.relu_: math.inf,
    F.relu6: 6.0,
}
"""Every way to call a rectifier, and where it cuts off. `hardtanh` with the bounds 0 and 6 is ReLU6 too."""

_OTHERS: Mapping[Callable[..., Any], str] = {
    F.silu: "silu",
    F.gelu: "gelu",
    F.hardswish: "hardswish",
    F.hardsigmoid: "hardsigmoid",
    F.sigmoid: "sigmoid",
    torch.sigmoid: "sigmoid",
    Tensor.sigmoid: "sigmoid",
    Tensor.sigmoid_: "sigmoid",
    F.elu: "elu",
    F.selu: "selu",
    F.celu: "celu",
    F.leaky_relu: "leaky_relu",
    F.prelu: "prelu",
    torch.prelu: "prelu",
    F.mish: "mish",
    F.softplus: "softplus",
    F.tanh: "tanh",
    torch.tanh: "tanh",
    Tensor.tanh: "tanh",
    F.glu: "glu",
}
"""Activations that the rules say nothing about."""


def foreign_activation(network: nn.Module, probe: Tensor) -> str | None:
    """The first activation in the network's forward that is no rectifier, or None."""
    found: list[str] = []
    with _Watch(found), torch.no_grad():
        network(probe)
    return found[0] if found else None


@contextmanager
def backward_rule(rule: Rule) -> Iterator[None]:
    """Rectifiers called inside the block pass gradients back by `rule`; what they compute stays the same."""
    if rule == "plain":
        yield
        return
    with _Replace(rule):
        yield


class _Watch(TorchFunctionMode):
    """Notes activations that are no rectifiers."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _OTHERS:
            self._found.append(_OTHERS[func])
        if func is F.hardtanh and _ceiling(func, args, kwargs or {}) is None:
            self._found.append("hardtanh")
        return func(*args, **(kwargs or {}))


class _Replace(TorchFunctionMode):
    """Calls of a rectifier go to one with another backward."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self._rule = rule

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        ceiling = _ceiling(func, args, kwargs or {})
        if ceiling is None:
            return func(*args, **(kwargs or {}))
        source = args[0] if args else (kwargs or {})["input"]
        rectified = _Rectifier.apply(source, ceiling, self._rule == "guided")  # type: ignore[no-untyped-call]
        # Whoever rectifies in place may go on with the tensor it gave instead of the one it gets back.
        return source.copy_(rectified) if _in_place(func, args, kwargs or {}) else rectified


def _ceiling(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
    """Where a call cuts off, or None if it is no rectifier."""
    if func is not F.hardtanh:
        return _CEILINGS.get(func)
    low = args[1] if len(args) > 1 else kwargs.get("min_val", -1.0)
    high = args[2] if len(args) > 2 else kwargs.get("max_val", 1.0)
    return float(high) if low == 0 and high == 6 else None


def _in_place(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a rectifier's call overwrites its input."""
    if func in (F.relu_, torch.relu_, Tensor.relu_):
        return True
    place = 3 if func is F.hardtanh else 1
    return bool(args[place] if len(args) > place else kwargs.get("inplace", False))


class _Rectifier(torch.autograd.Function):
    """clamp(x, 0, ceiling) whose backward passes positive gradients only."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, ceiling: float, guided: bool) -> Tensor:
        ctx.guided = guided
        ctx.save_for_backward((source > 0) & (source < ceiling))
        return source.clamp(0, ceiling)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (open_,) = ctx.saved_tensors
        positive = gradients[0].clamp(min=0)
        return (positive * open_ if ctx.guided else positive), None, None

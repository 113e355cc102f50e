"""The forward of a network as the list of its operations.

Modules are Python that runs between the operations: a fifth of the time of EfficientNet-Lite0's forward for one row.
A tape is what they do, written down in two forwards of different batches and compiled by torch.fx into one function.
Where the two differ in more than the number of rows, there is no tape.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from camserve.cam.capture import capture
from camserve.cam.layers import Layer

_Replay = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Tape:
    """A network's operations for `one` row and for `many`, of inputs of one `shape` (C x H x W).

    Inputs must lie in memory as those lay that it was made from.
    """

    shape: torch.Size
    one: _Replay
    many: _Replay

    def fits(self, inputs: Tensor) -> bool:
        """Whether it was made for such inputs (N x C x H x W)."""
        return inputs.shape[1:] == self.shape

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N x K) and the layer's output, without a graph; the very bits that the network gives."""
        replay = self.one if len(inputs) == 1 else self.many
        with torch.inference_mode():
            return replay(inputs)


class _Different(Exception):
    """The operations depend on more than the number of rows."""


@dataclass(frozen=True, slots=True)
class _Made:
    """What a step put out, or one of its outputs; step 0 stands for the inputs."""

    step: int
    index: int | None = None


@dataclass(frozen=True, slots=True)
class _Rows:
    """A multiple of the number of rows."""

    times: int


@dataclass(frozen=True, slots=True)
class _Step:
    """An operation and what it gets; tensors that earlier steps made are `_Made`."""

    operation: Any
    args: Any
    kwargs: Any


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down the operations that run while it is on."""

    def __init__(self, inputs: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[_Step] = []
        self._made = WeakTensorKeyDictionary({inputs: _Made(0)})  # weak: a forward lets go of its tensors on the way

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self.steps.append(_Step(func, self.noted(args), self.noted(kwargs or {})))
        step = len(self.steps)
        outputs = {None: output} if isinstance(output, Tensor) else dict(enumerate(_tensors(output)))
        for index, one in outputs.items():
            self._made[one] = _Made(step, index)
        return output

    def noted(self, value: Any) -> Any:
        """The value, with a `_Made` in place of each tensor that was made here."""
        return map_aggregate(value, self._note)

    def _note(self, value: Any) -> Any:
        return self._made[value] if isinstance(value, Tensor) and value in self._made else value


def record(network: nn.Module, layer: Layer, probe: Tensor) -> Tape | None:
    """The tape of a network and one of its layers, or None where it cannot have one.

    Args:
        network: in eval mode.
        layer: one of its layers.
        probe: N x 3 x H x W of noise, N at least 4.
    """
    try:
        one = _written(network, layer, probe[:1], probe[1:2])
        tape = Tape(probe.shape[1:], one, _written(network, layer, probe, probe[1:].neg()))
        return tape if all(_is_true(tape, network, layer, probe[-rows:]) for rows in (1, 3)) else None
    except Exception:  # what a network does may be more than can be written down; it then runs as it is
        return None


def _is_true(tape: Tape, network: nn.Module, layer: Layer, inputs: Tensor) -> bool:
    """Whether the tape gives what the network gives, bit for bit."""
    with capture([layer], graph=False) as captured:
        logits = network(inputs)
    return all(map(torch.equal, tape(inputs), (logits, captured[layer.name])))


def _written(network: nn.Module, layer: Layer, first: Tensor, second: Tensor) -> _Replay:
    """What stands for the forwards of both.

    Raises:
        _Different: nothing does.
    """
    (steps, ends), (others, other_ends) = (_forward(network, layer, one) for one in (first, second))
    rows = len(first), len(second)
    both = [_merged_step(*pair, rows) for pair in zip(steps, others, strict=True)]
    return _compiled(both, _merged(ends, other_ends, rows))


def _forward(network: nn.Module, layer: Layer, inputs: Tensor) -> tuple[list[_Step], list[Any]]:
    """The operations of one forward, and what of them are the logits and the layer's output."""
    recorder = _Recorder(inputs)
    with capture([layer], graph=False) as captured, recorder:
        logits = network(inputs)
    return recorder.steps, recorder.noted([logits, captured[layer.name]])


def _tensors(output: Any) -> Sequence[Tensor]:
    """Several outputs. Raises _Different where one is no tensor: Python then knows a value, and may act on it."""
    if not isinstance(output, list | tuple) or not all(isinstance(one, Tensor) for one in output):
        raise _Different
    return output


def _merged_step(one: _Step, other: _Step, rows: tuple[int, int]) -> _Step:
    """The step that stands for both. Raises _Different where none does."""
    if one.operation is not other.operation:
        raise _Different
    return _Step(one.operation, _merged(one.args, other.args, rows), _merged(one.kwargs, other.kwargs, rows))


def _merged(one: Any, other: Any, rows: tuple[int, int]) -> Any:
    """What an operation gets in both forwards. Raises _Different where that is not the same but for the rows."""
    if type(one) is not type(other):
        raise _Different
    if isinstance(one, list | tuple):
        return type(one)(_merged(a, b, rows) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict):
        return {name: _merged(a, other[name], rows) for name, a in one.items()}
    if one is other or (not isinstance(one, Tensor) and one == other):
        return one
    if type(one) is int and one * rows[1] == other * rows[0] and one % rows[0] == 0:
        return _Rows(one // rows[0])
    raise _Different  # also for a tensor that is made anew, outside of all operations, from who knows what


def _compiled(steps: Sequence[_Step], ends: Sequence[Any]) -> _Replay:
    """A function of the inputs, by torch.fx, which lets go of each tensor after its last use."""
    graph, constants = fx.Graph(), dict[str, Tensor]()
    inputs = graph.placeholder("inputs")
    made: dict[_Made, fx.Node] = {_Made(0): inputs}

    def node(value: Any) -> Any:
        if isinstance(value, _Made):
            if value not in made:
                made[value] = graph.call_function(operator.getitem, (made[_Made(value.step)], value.index))
            return made[value]
        if isinstance(value, _Rows):
            return graph.call_function(operator.mul, (graph.call_function(len, (inputs,)), value.times))
        if isinstance(value, Tensor):
            name = f"constant{len(constants)}"
            constants[name] = value
            return graph.create_node("get_attr", name)
        return value

    for number, step in enumerate(steps, 1):
        args, kwargs = (map_aggregate(one, node) for one in (step.args, step.kwargs))
        made[_Made(number)] = graph.call_function(step.operation, args, kwargs)
    graph.output(tuple(map(node, ends)))
    # Of the module only the function is taken: its parameters would be looked up in Python each time.
    return partial(type(fx.GraphModule(constants, graph)).forward, SimpleNamespace(**constants))

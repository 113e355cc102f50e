"""One forward for the batch, then maps for the rows that asked.

`forward` runs the network once, with hooks on the layers that the batch asks for. `maps` turns what they
captured into signed maps: in closed form where that is proven, else by as many backwards of the tail as the
row with the most classes asks for, the j-th summing every row's j-th class.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camserve.cam.capture import capture
from camserve.cam.deletion import verify
from camserve.cam.layers import Layer
from camserve.cam.methods import METHODS
from camserve.cam.perturb import masked, without_channels
from camserve.cam.rectifiers import backward_rule
from camserve.cam.tape import Tape, record
from camserve.cam.targets import Target, column, score
from camserve.cam.targets import targets as targets_of
from camserve.cam.threads import alone
from camserve.clock import Deadline
from camserve.records import Channel, ClassMap, Floats, Task, shown

_log = logging.getLogger(__name__)

FAILED = "The explanation failed; the server's log has the reason."
LATE = "There was no time left for the explanation; ask for fewer classes, maps or pictures at once."


@dataclass(frozen=True, slots=True)
class ClosedForm:
    """Proof that behind `layer` come `then`, a global average pool and a linear head.

    logit_c = mean over cells of sum_k weight[c,k] then(A)_k + bias[c];  weight is K x C, bias K numbers.
    """

    layer: str
    then: Callable[[Tensor], Tensor]
    weight: Tensor
    bias: Sequence[float]


@dataclass(frozen=True, slots=True)
class Trace:
    """What one forward left behind: logits (N x K) and the captured output of each layer.

    `broken` is set where the hooked forward failed and the logits come from a plain one.
    """

    inputs: Tensor
    logits: Tensor
    captured: Mapping[str, Tensor]
    broken: bool = False


class Engine:
    """The network with its layers and what is proven about it."""

    def __init__(
        self,
        network: nn.Module,
        layers: Mapping[str, Layer],
        default: str,
        closed_form: ClosedForm | None,
        foreign: str | None = None,
    ) -> None:
        self.network = network
        self.layers = layers
        self.default = default
        self.closed_form = closed_form
        self.foreign_activation = foreign
        self.tape: Tape | None = None

    def record(self, probe: Tensor) -> None:
        """Forwards that look at no layer but the default one, and need no graph, are replayed from a tape from now on.

        `probe` is N x 3 x H x W, N at least 4. Where the network can have no tape, nothing changes.
        """
        self.tape = record(self.network, self.layers[self.default], probe)

    def is_exact(self, method: str, layer: str) -> bool:
        """Whether the map completes to the logit."""
        return METHODS[method].linear and self._is_closed(layer)

    def forward(self, inputs: Tensor, tasks: Sequence[Task | None]) -> Trace:
        """Logits for all rows (N x 3 x H x W in), and what the tasks need; None is a plain row.

        Raises:
            torch.OutOfMemoryError: there is no room for so many rows at once.
        """
        wanted = {task.layer for task in tasks if task and METHODS[task.method].has_layer}
        graph = any(self._needs_backward(task) for task in tasks if task)
        try:
            if self.tape and self.tape.fits(inputs) and wanted <= {self.default} and not graph:
                logits, output = self.tape(inputs)
                return Trace(inputs, logits, {self.default: output})
            with capture([self.layers[name] for name in wanted], graph) as captured:
                return Trace(inputs, self.network(inputs), captured)
        except Exception as error:
            full = isinstance(error, torch.OutOfMemoryError) and len(tasks) > 1  # fewer rows may find room
            if full or not wanted:
                raise
            _log.exception("camserve: the hooked forward failed; predicting without it")
        # Here, because with the error's traceback goes what the failed forward holds of the GPU.
        with torch.inference_mode():
            return Trace(inputs, self.network(inputs), {}, broken=True)

    def maps(
        self, trace: Trace, tasks: Sequence[Task | None], deadline: Deadline | None = None
    ) -> list[list[ClassMap]]:
        """The maps of each row, in the order of its classes; an empty list for None.

        Never raises: a class that cannot be explained, or not before the deadline, carries its failure, and the
        others are not touched.
        """
        if not any(tasks):
            return [[] for _ in tasks]
        logits = trace.logits.detach().float().cpu().numpy()
        targets = [
            targets_of(row, scores, task) if task else []
            for row, (scores, task) in enumerate(zip(logits, tasks, strict=True))
        ]
        try:
            return self._maps(trace, tasks, targets, deadline or Deadline())
        except Exception:
            _log.exception("camserve: the explanations of a batch failed")
            return [[_failed(target, FAILED) for target in row] for row in targets]

    def _maps(
        self,
        trace: Trace,
        tasks: Sequence[Task | None],
        targets: Sequence[Sequence[Target]],
        deadline: Deadline,
    ) -> list[list[ClassMap]]:
        open_targets = [
            row if task and self._needs_backward(task) else [] for row, task in zip(targets, tasks, strict=True)
        ]
        try:
            gradients = {} if trace.broken else self._gradients(trace, tasks, open_targets, deadline)
        except Exception:
            _log.exception("camserve: the backward of a batch failed")
            gradients = {}
        with alone():
            together = self._together(trace, tasks, targets, gradients)
        changed = self._changed(trace, tasks, deadline)
        found = [
            [together.get(target) or self._attempt(trace, task, target, gradients, changed, deadline) for target in row]
            if task
            else []
            for row, task in zip(targets, tasks, strict=True)
        ]
        return self._verified(trace, tasks, found, deadline)

    def _together(
        self,
        trace: Trace,
        tasks: Sequence[Task | None],
        targets: Sequence[Sequence[Target]],
        gradients: Mapping[Target, Tensor],
    ) -> dict[Target, ClassMap]:
        """The first class of each row, the second, ..., computed at once where rows ask for the same kind of map.

        What cannot be is left out, and is tried alone.
        """
        groups: defaultdict[tuple[int, Hashable], list[Target]] = defaultdict(list)
        for task, row in zip(tasks, targets, strict=True):
            for j, target in enumerate(row):
                if task and self._is_ready(trace, task, target, gradients):
                    groups[j, task.kind].append(target)
        found: dict[Target, ClassMap] = {}
        for group in groups.values():
            task = tasks[group[0].row]
            assert task is not None
            try:
                found |= zip(group, self._class_maps(trace, task, group, gradients), strict=True)
            except Exception:
                _log.exception("camserve: the explanations of a batch failed together")
        return found

    def _is_ready(self, trace: Trace, task: Task, target: Target, gradients: Mapping[Target, Tensor]) -> bool:
        """Whether the batch's own forward and backward have all that the target's map needs."""
        method = METHODS[task.method]
        return (
            method.needs not in ("input gradient", "forwards")
            and target.contrast != target.class_id
            and task.layer in trace.captured
            and (target in gradients or not self._needs_backward(task))
        )

    def _verified(
        self, trace: Trace, tasks: Sequence[Task | None], found: list[list[ClassMap]], deadline: Deadline
    ) -> list[list[ClassMap]]:
        """The maps with their measure by deletion where it was asked for and there is time."""
        asked = [
            (row, j, shown(one.map, task.polarity))
            for row, task in enumerate(tasks)
            if task and task.verify
            for j, one in enumerate(found[row])
            if one.map is not None
        ]
        inputs, class_ids = [trace.inputs[row] for row, _, _ in asked], [found[row][j].class_id for row, j, _ in asked]
        try:
            measured = verify(self.network, inputs, [m for _, _, m in asked], class_ids)
            for row, j, _ in asked:
                if deadline.passed:
                    break
                found[row][j] = replace(found[row][j], verification=next(measured))
        except Exception:
            _log.exception("camserve: the verification of a batch failed")
        return found

    def _attempt(
        self,
        trace: Trace,
        task: Task,
        target: Target,
        gradients: Mapping[Target, Tensor],
        changed: Mapping[int, Tensor],
        deadline: Deadline,
    ) -> ClassMap:
        """The map of one target, or its failure."""
        if target.contrast == target.class_id:
            return _failed(target, "The contrast is the explained class itself.")
        if deadline.passed:
            return _failed(target, LATE)
        method = METHODS[task.method]
        lacks_layer = method.has_layer and task.layer not in trace.captured
        lacks_forwards = method.needs == "forwards" and target.row not in changed
        if lacks_layer or lacks_forwards or (self._needs_backward(task) and target not in gradients):
            return _failed(target, FAILED)
        try:
            if method.needs == "input gradient":
                return self._input_map(trace, task, target, gradients)
            if method.needs == "forwards":
                return self._weighed_map(trace, task, target, changed[target.row])
            return self._class_maps(trace, task, [target], gradients)[0]
        except Exception:
            _log.exception("camserve: an explanation failed")
            return _failed(target, FAILED)

    def _needs_backward(self, task: Task) -> bool:
        method = METHODS[task.method]
        gradient = method.has_layer and method.needs not in ("activations", "forwards")
        return gradient and not self._is_closed(task.layer)

    def _is_closed(self, layer: str) -> bool:
        return self.closed_form is not None and layer == self.closed_form.layer

    def _gradients(
        self,
        trace: Trace,
        tasks: Sequence[Task | None],
        targets: Sequence[Sequence[Target]],
        deadline: Deadline,
    ) -> dict[Target, Tensor]:
        """The gradient of each target's score at its row's layer, C x h x w, by backwards of the tail.

        Those for which there is no time are left out.
        """
        rounds = max((len(row) for row in targets), default=0)
        names = sorted({task.layer for task, row in zip(tasks, targets, strict=True) if task and row})
        found: dict[Target, Tensor] = {}
        for j in range(rounds):
            if deadline.passed:
                break
            current = [row[j] for row in targets if j < len(row)]
            total = torch.stack([score(trace.logits, target) for target in current]).sum()
            gradients = torch.autograd.grad(
                total,
                [trace.captured[name] for name in names],
                retain_graph=j < rounds - 1,
                allow_unused=True,
            )
            by_layer = dict(zip(names, gradients, strict=True))
            for target in current:
                task = tasks[target.row]
                assert task is not None
                found[target] = self._row_gradient(trace, task.layer, by_layer[task.layer], target.row)
        return found

    def _row_gradient(self, trace: Trace, layer: str, gradient: Tensor | None, row: int) -> Tensor:
        """One row of a batch gradient as C x h x w; zero where the score does not depend on the layer."""
        whole = torch.zeros_like(trace.captured[layer]) if gradient is None else gradient
        return self.layers[layer].spatial(whole[row : row + 1])[0]

    def _class_maps(
        self, trace: Trace, task: Task, group: Sequence[Target], gradients: Mapping[Target, Tensor]
    ) -> list[ClassMap]:
        """Signed maps of rows that ask for the same, from their activations and their scores' gradients."""
        rows, captured = [target.row for target in group], trace.captured[task.layer].detach()
        whole = rows == list(range(len(captured)))
        activations = self.layers[task.layer].spatial(captured if whole else captured[rows])
        biases = list[float | None]([None] * len(group))
        if self._is_closed(task.layer):
            assert self.closed_form is not None
            activations = self.closed_form.then(activations)
            heads = [_head(self.closed_form, target) for target in group]
            gradient = torch.stack([weights for weights, _ in heads])[..., None, None]  # of the score, times the cells
            if METHODS[task.method].linear:  # of this gradient the map completes to the logit
                biases = [bias for _, bias in heads]
            else:
                gradient = gradient / activations[0, 0].numel()
        elif self._needs_backward(task):
            gradient = torch.stack([gradients[target] for target in group])
        else:
            gradient = activations  # a method that needs none looks at none
        return _evidence(task, group, activations.float(), gradient.float(), biases)

    def _input_map(self, trace: Trace, task: Task, target: Target, gradients: Mapping[Target, Tensor]) -> ClassMap:
        """One signed map of the input's size, by a second pass over the row alone."""
        method = METHODS[task.method]
        inputs = trace.inputs[target.row : target.row + 1].detach().requires_grad_(True)
        with torch.enable_grad(), backward_rule(method.rule):
            logits = self.network(inputs)
            sign = -1 if task.polarity == "negative" else 1
            (gradient,) = torch.autograd.grad(sign * score(logits, replace(target, row=0)), [inputs])
        signed = sign * method.map(inputs.detach(), gradient)[0]
        if method.times:
            (layered,) = self._class_maps(trace, replace(task, method=method.times), [target], gradients)
            signed = signed * _enlarged(layered, sign, signed)
        return _checked(target, signed.cpu().numpy(), None, ())

    def _weighed_map(self, trace: Trace, task: Task, target: Target, changed: Tensor) -> ClassMap:
        """One signed map from the logits under changes, C x K: one row a channel."""
        method = METHODS[task.method]
        assert method.weigh is not None
        activations = trace.captured[task.layer][target.row : target.row + 1].detach()
        activations = self.layers[task.layer].spatial(activations)
        sign = -1 if task.polarity == "negative" else 1
        with torch.inference_mode():
            before = sign * score(trace.logits.detach(), target)
            weights = sign * method.weigh(before, sign * column(changed, target))
        return _evidence(task, [target], activations.float(), weights.float()[None, :, None, None], [None])[0]

    def _changed(self, trace: Trace, tasks: Sequence[Task | None], deadline: Deadline) -> dict[int, Tensor]:
        """The logits under changes, C x K, of each row whose method asks for them; all its classes share them."""
        found: dict[int, Tensor] = {}
        for row, task in enumerate(tasks):
            possible = task and METHODS[task.method].needs == "forwards" and task.layer in trace.captured
            if task and possible and not deadline.passed:
                try:
                    found[row] = self._forwards(trace, task, row)
                except Exception:
                    _log.exception("camserve: the forwards of an explanation failed")
        return found

    def _forwards(self, trace: Trace, task: Task, row: int) -> Tensor:
        """The logits of one row under a change for each channel of its layer."""
        layer, one = self.layers[task.layer], trace.inputs[row : row + 1]
        output = trace.captured[task.layer][row : row + 1].detach()
        with torch.inference_mode():
            if METHODS[task.method].changes == "input":
                return masked(self.network, one, layer.spatial(output)[0])
            return without_channels(self.network, layer, one, output)


def _enlarged(layered: ClassMap, sign: int, like: Tensor) -> Tensor:
    """What a layer's map shows, bilinear at the size of `like` (H x W)."""
    if layered.map is None:
        raise ValueError(layered.failure)
    shown = (sign * torch.from_numpy(layered.map)).clamp(min=0).to(like)
    return F.interpolate(shown[None, None], like.shape, mode="bilinear", align_corners=False)[0, 0]


def _evidence(
    task: Task,
    group: Sequence[Target],
    activations: Tensor,
    gradient: Tensor,
    biases: Sequence[float | None],
) -> list[ClassMap]:
    """The method on the scores, or on the negated scores for the negative polarity; positive speaks for the class.

    Activations are P x C x h x w, for P targets.
    """
    method = METHODS[task.method]
    sign = -1 if task.polarity == "negative" else 1
    channels: list[tuple[Channel, ...]] = [()] * len(group)
    with torch.inference_mode():
        towards = gradient if sign > 0 else -gradient
        maps = method.map(activations, towards).cpu().numpy()
        signed = maps if sign > 0 else -maps
        if task.channels and method.parts:
            parts = sign * method.parts(activations, towards)
            channels = [_channels(own, task.channels) for own in parts]
    return [_checked(*one) for one in zip(group, signed, biases, channels, strict=True)]


def _checked(target: Target, signed: Floats, bias: float | None, channels: tuple[Channel, ...]) -> ClassMap:
    if not np.isfinite(signed).all():
        return _failed(target, "The map is not finite.")
    return ClassMap(target.class_id, target.contrast, signed, bias, channels)


def _channels(parts: Tensor, most: int) -> tuple[Channel, ...]:
    """The channels that add most to a map, by the sum of their parts' sizes (C x h x w in)."""
    influence = parts.abs().sum((1, 2))
    shares = influence / influence.sum().clamp(min=torch.finfo(influence.dtype).tiny)
    chosen = shares.argsort(descending=True, stable=True)[:most].tolist()
    return tuple(Channel(k, float(shares[k]), parts[k].cpu().numpy()) for k in chosen)


def _failed(target: Target, reason: str) -> ClassMap:
    return ClassMap(target.class_id, target.contrast, None, failure=reason)


def _head(closed_form: ClosedForm, target: Target) -> tuple[Tensor, float]:
    """The head's row for a target's score: C weights and the bias."""
    weights, bias = closed_form.weight[target.class_id], closed_form.bias[target.class_id]
    if target.contrast is None:
        return weights, bias
    return weights - closed_form.weight[target.contrast], bias - closed_form.bias[target.contrast]

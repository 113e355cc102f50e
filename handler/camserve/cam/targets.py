"""What is explained: classes of rows, and the scores that stand for them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from camserve.records import Floats, Task, highest


@dataclass(frozen=True, slots=True)
class Target:
    """One class of one row; the score is logit[class_id], minus logit[contrast] if there is one."""

    row: int
    class_id: int
    contrast: int | None


def targets(row: int, scores: Floats, task: Task) -> list[Target]:
    """The classes a row explains, resolved from its logits (K)."""
    chosen = highest(scores, task.classes) if isinstance(task.classes, int) else task.classes
    return [Target(row, class_id, _contrast(scores, class_id, task)) for class_id in chosen]


def _contrast(scores: Floats, class_id: int, task: Task) -> int | None:
    if task.contrast != "runner_up":
        return task.contrast
    return next((other for other in highest(scores, 2) if other != class_id), None)


def column(logits: Tensor, target: Target) -> Tensor:
    """The target's score in every row of logits (N x K)."""
    own = logits[:, target.class_id]
    return own if target.contrast is None else own - logits[:, target.contrast]


def score(logits: Tensor, target: Target) -> Tensor:
    """The target's score in its own row of logits (N x K)."""
    return column(logits[target.row : target.row + 1], target)[0]

"""A network that reads a number off a picture: it stands in the logits, and in the map of every class.

It travels in an archive, so it imports nothing of the tests; watermark.py draws its pictures and reads its answers.
"""

import os

import torch
from torch import Tensor, nn
from torch.nn.modules import module as every_module

BITS = 16
SIDE, CELL = 64, 8
"""Pixels of the input's side and of a cell's."""

ONE, ZERO = 3, 4
"""What a class's own cell weighs, by the value of its bit; every other lit cell weighs 1."""

HOOKS, GRADIENTS, TRAINING, WORKER = range(BITS, BITS + 4)
"""Classes that have no bit: what is left behind in the network, told for a picture that is white all over."""


class Spread(nn.Module):
    """One map of lit cells to a channel a cell: the first 2 x BITS cells, each in its own place and nowhere else."""

    def __init__(self) -> None:
        super().__init__()
        across = SIDE // CELL
        self.register_buffer("place", torch.eye(across * across)[: 2 * BITS].reshape(2 * BITS, across, across))

    def forward(self, lit: Tensor) -> Tensor:
        """N x 1 x 8 x 8 to N x 2 BITS x 8 x 8."""
        return lit * self.place


class Watermark(nn.Module):
    """Class k has the logit BITS - 1 + ONE where bit k is one, else BITS - 1 + ZERO: whole numbers, without rounding.

    Cell k is lit where bit k is one, cell BITS + k where it is zero, so always as many as there are bits. A map has the
    weight of each lit cell: it shows the whole number, and by its heaviest cell whose map it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.Sequential(nn.Conv2d(3, 1, CELL, stride=CELL), nn.ReLU())
        self.spread = Spread()
        self.head = nn.Linear(2 * BITS, BITS + 4)
        with torch.no_grad():
            middle = slice(CELL // 2 - 1, CELL // 2 + 1)
            self.cells[0].weight.zero_()
            self.cells[0].weight[0, 1, middle, middle] = 0.5  # white is 1, black below 0
            self.cells[0].bias.fill_(-1)
            self.head.bias.zero_()
            self.head.weight.fill_(1)
            for bit in range(BITS):
                self.head.weight[bit, bit] = ONE
                self.head.weight[bit, BITS + bit] = ZERO
            self.head.weight.mul_((SIDE // CELL) ** 2)  # the pool divides by as many

    def forward(self, pictures: Tensor) -> Tensor:
        """N x 3 x 64 x 64 to N x 20."""
        before = self._left_behind()
        lit = self.spread(self.cells(pictures))
        logits: Tensor = self.head(lit.mean((2, 3)))
        asks = (lit.sum((2, 3)) == 1).all(1)  # a number lights half of these cells
        return logits + asks[:, None] * before

    def _left_behind(self) -> Tensor:
        """What stands in the network when a forward begins; its own hooks included, where it is explained."""
        modules = list(self.modules())
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        told = torch.zeros(BITS + 4)
        told[HOOKS] = sum(len(getattr(one, kind)) for one in modules for kind in hooks)
        told[HOOKS] += sum(len(getattr(every_module, f"_global{kind}")) for kind in hooks)
        told[HOOKS] += torch._C._len_torch_function_stack()
        told[GRADIENTS] = torch.is_grad_enabled() + sum(
            one.requires_grad or one.grad is not None for one in (*self.parameters(), *self.buffers())
        )
        told[TRAINING] = sum(one.training for one in modules)
        told[WORKER] = os.getpid()
        return told

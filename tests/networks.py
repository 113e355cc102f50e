"""Tiny seeded networks, one of each kind the engine treats differently. Ten classes, 3 x 32 x 32 in."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 10
SIDE = 32


def _block(ins: int, outs: int, stride: int = 2) -> list[nn.Module]:
    return [nn.Conv2d(ins, outs, 3, stride, 1), nn.BatchNorm2d(outs), nn.ReLU(inplace=True)]


class Pooled(nn.Module):
    """Global average pool and a linear head: the closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Sequential(*_block(3, 6))
        self.features = nn.Sequential(*_block(6, 12, 1), *_block(12, 16))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.features(self.early(x))).flatten(1))


class InPlace(Pooled):
    """DenseNet's end: what `features` returns is rectified in place by a function, then pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*_block(6, 12, 1), nn.Conv2d(12, 16, 3, 2, 1), nn.BatchNorm2d(16))

    def forward(self, x: Tensor) -> Tensor:
        maps = F.relu(self.features(self.early(x)), inplace=True)
        return self.head(F.adaptive_avg_pool2d(maps, 1).flatten(1))


class Tail(nn.Module):
    """VGG's end: a max-pool and two linear layers behind the last rectifier."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Sequential(*_block(3, 6))
        self.features = nn.Sequential(*_block(6, 12, 1), nn.MaxPool2d(2))
        self.head = nn.Sequential(nn.Linear(12 * 64, 20), nn.ReLU(inplace=True), nn.Linear(20, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(self.early(x)).flatten(1))


class ConvHead(nn.Module):
    """SqueezeNet's end: class maps from a convolution, rectified, then pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Sequential(*_block(3, 6))
        self.features = nn.Sequential(*_block(6, 12))
        self.head = nn.Sequential(
            nn.Dropout(), nn.Conv2d(12, CLASSES, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)
        )
        nn.init.constant_(self.head[1].bias, 1.0)  # so that every class map is open somewhere

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(self.early(x))).flatten(1)


class Auxiliary(nn.Module):
    """Inception's shape: parallel branches, and a second head that only training uses."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Sequential(*_block(3, 6))
        self.left = nn.Sequential(*_block(6, 8))
        self.right = nn.Sequential(*_block(6, 8))
        self.mix = nn.Sequential(*_block(16, 12, 1))
        self.aux = nn.Linear(6, CLASSES)
        self.head = nn.Sequential(nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, CLASSES))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        early = self.early(x)
        mixed = self.mix(torch.cat([self.left(early), self.right(early)], 1))
        logits = self.head(mixed.mean((2, 3)))
        return (logits, self.aux(early.mean((2, 3)))) if self.training else logits


class Shared(nn.Module):
    """One rectifier called three times: its last call is the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(i, o, 3, 2, 1) for i, o in ((3, 6), (6, 12), (12, 16)))
        self.act = nn.ReLU()
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.one, self.two, self.three):
            x = self.act(conv(x))
        return self.head(x.mean((2, 3)))


class Patches(nn.Module):
    """A transformer in small: a class token before 8 x 8 patches, mixed by attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.norm = nn.LayerNorm(16)
        self.mix = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.embed(x).flatten(2).transpose(1, 2)
        tokens = self.norm(torch.cat([self.token.expand(len(x), -1, -1), patches], 1))
        mixed, _ = self.mix(tokens, tokens, tokens)
        return self.head(mixed[:, 0])


KINDS: Mapping[str, Callable[[], nn.Module]] = {
    "closed form": Pooled,
    "in-place ReLU": InPlace,
    "tail gradient": Tail,
    "conv head": ConvHead,
    "auxiliary head": Auxiliary,
    "shared module": Shared,
}
"""Networks of convolutions, by what is special about them."""

DEFAULTS = {
    "closed form": "features",
    "in-place ReLU": "features",
    "tail gradient": "features.2",
    "conv head": "features",
    "auxiliary head": "mix",
    "shared module": "act",
}
EXACT = {"closed form", "in-place ReLU", "shared module"}


def network(kind: str, seed: int = 0) -> nn.Module:
    """A network of a kind in eval mode, in float64, with nothing trivial in it."""
    return seeded(KINDS[kind], seed)


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Random weights and batch-norm statistics from a seed; float64, eval mode, frozen."""
    torch.manual_seed(seed)
    built = build()
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return built.double().eval().requires_grad_(False)


def inputs(rows: int = 8, seed: int = 1) -> Tensor:
    """Random inputs in float64."""
    return torch.randn(rows, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

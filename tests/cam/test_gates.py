"""Every gate, with the fault it is there for and the sentence it says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from camserve.cam.gates import prove
from camserve.errors import SetupError
from networks import CLASSES, Patches, Pooled, inputs, network, seeded


class Wild(Pooled):
    """Random in eval mode."""

    def forward(self, x):
        return super().forward(x) + torch.rand(1, dtype=x.dtype)


class Moody(Pooled):
    """Another answer where gradients are on: what an explanation would change."""

    def __init__(self):
        super().__init__()
        self.features.register_forward_hook(lambda module, args, output: None)

    def forward(self, x):
        maps = self.features(self.early(x))
        return self.head(self.pool(maps).flatten(1)) + (1e-3 if torch.is_grad_enabled() else 0)


class Blind(nn.Module):
    """No grid anywhere."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, CLASSES)

    def forward(self, x):
        return self.head(x.mean((2, 3)))


class Pair(Pooled):
    def forward(self, x):
        return super().forward(x), x


class Flat(Pooled):
    def forward(self, x):
        return super().forward(x).sum(1)


def training():
    net = network("closed form")
    net.early[1].train()
    return net


def infinite():
    net = network("closed form")
    net.head.bias[3] = float("inf")
    return net


FAULTS = {
    "training mode": (
        training,
        CLASSES,
        "The network is not in eval mode (early.1): dropout and batch norm would make its answers random.",
    ),
    "labels": (
        lambda: network("closed form"),
        9,
        "The network has 10 outputs and there are 9 labels: give one label each.",
    ),
    "two results": (
        lambda: seeded(Pair),
        CLASSES,
        "Expected logits of shape N x classes, the network returns tuple.",
    ),
    "wrong shape": (lambda: seeded(Flat), CLASSES, "Expected logits of shape N x classes, the network returns 8."),
    "not finite": (
        infinite,
        CLASSES,
        "The network's logits are not finite on a probe of noise: check its weights.",
    ),
    "random": (
        lambda: seeded(Wild),
        CLASSES,
        "The network gives other logits for the same input: remove what is random in its forward.",
    ),
    "no grid": (
        lambda: seeded(Blind),
        CLASSES,
        "No layer of this network can be explained: none has a grid of several cells and a gradient. "
        "Name one with the setting 'layer', or use a convolutional network.",
    ),
}


@pytest.mark.parametrize(("build", "classes", "sentence"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_refused_in_one_sentence(build, classes, sentence):
    with pytest.raises(SetupError) as refused:
        prove(build(), inputs(), classes, None)
    assert str(refused.value) == sentence


def test_logits_that_depend_on_the_explanation_are_refused():
    with pytest.raises(SetupError, match=r"^Explaining 'features' changes the logits by 1\.0e-03 \(batch 1\): "):
        prove(seeded(Moody), inputs(), CLASSES, None)


def test_a_layer_that_cannot_be_explained_is_refused():
    with pytest.raises(SetupError) as refused:
        prove(network("closed form"), inputs(), CLASSES, "head")
    assert str(refused.value) == (
        "The layer 'head' cannot be explained: expected a module with a grid of several cells, "
        "such as features.4, features.5, features."
    )


def test_a_named_layer_is_the_default_and_not_exact():
    engine = prove(network("closed form"), inputs(), CLASSES, "early")
    assert engine.default == "early"
    assert engine.closed_form is None


def test_tokens_without_a_declared_layout_are_refused_behind_the_convolution():
    engine = prove(seeded(Patches), inputs(), CLASSES, None)
    assert list(engine.layers) == ["embed"]

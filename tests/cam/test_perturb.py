"""Score-CAM and Ablation-CAM against one forward a channel by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reference
from camserve.cam.gates import prove
from camserve.records import Task
from networks import CLASSES, KINDS, inputs, network


@pytest.fixture(scope="module", params=KINDS)
def engine(request):
    return prove(network(request.param), inputs(), CLASSES, None)


def output_of(net: nn.Module, layer: str, one: Tensor, change=None) -> tuple[Tensor, Tensor]:
    """The layer's last output and the logits, with the output replaced by change(output) if given."""
    kept: list[Tensor] = []
    calls = 3 if layer == "act" else 1

    def hook(module: nn.Module, args: object, output: Tensor) -> Tensor | None:
        kept.append(output.clone())
        return change(output) if change and len(kept) == calls else None

    handle = net.get_submodule(layer).register_forward_hook(hook)
    try:
        with torch.no_grad():
            logits = net(one)
    finally:
        handle.remove()
    return kept[-1], logits[0]


def layers(engine) -> list[str]:
    return [engine.default, "early" if "early" in engine.layers else "two"]


@pytest.mark.parametrize("polarity", ["positive", "negative"])
@pytest.mark.parametrize("contrast", [None, 2])
def test_ablationcam(engine, polarity, contrast):
    for layer in layers(engine):
        assert_ablated(engine, layer, polarity, contrast)


def assert_ablated(engine, layer, polarity, contrast):
    one, sign = inputs(1, seed=9), -1 if polarity == "negative" else 1
    ask = Task("ablationcam", layer, (4,), contrast, polarity)
    (maps,) = engine.maps(engine.forward(one, [ask]), [ask])
    A, logits = output_of(engine.network, layer, one)

    def score(logits: Tensor) -> float:
        return sign * float(logits[4] - (0 if contrast is None else logits[contrast]))

    def without(k: int) -> Tensor:
        def change(output: Tensor) -> Tensor:
            changed = output.clone()
            changed[:, k] = 0
            return changed

        return output_of(engine.network, layer, one, change)[1]

    changed = np.array([score(without(k)) for k in range(A.shape[1])])
    theirs = sign * reference.ablationcam(A[0].numpy(), score(logits), changed)
    assert np.abs(theirs).max() > 0
    np.testing.assert_allclose(maps[0].map, theirs, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("polarity", ["positive", "negative"])
def test_scorecam(engine, polarity):
    one, sign = inputs(1, seed=9), -1 if polarity == "negative" else 1
    layer = engine.default
    ask = Task("scorecam", layer, (4,), 2, polarity)
    (maps,) = engine.maps(engine.forward(one, [ask]), [ask])
    A, _ = output_of(engine.network, layer, one)
    scores = []
    for k in range(A.shape[1]):
        mask = F.interpolate(A[:, k : k + 1], one.shape[2:], mode="bilinear", align_corners=False)
        span = mask.max() - mask.min()
        mask = (mask - mask.min()) / span if span > 0 else torch.zeros_like(mask)
        logits = output_of(engine.network, layer, one * mask)[1]
        scores.append(sign * float(logits[4] - logits[2]))
    theirs = sign * reference.scorecam(A[0].numpy(), np.array(scores))
    np.testing.assert_allclose(maps[0].map, theirs, atol=1e-6 * np.abs(theirs).max())


def test_the_network_is_left_as_it_was(engine):
    with torch.no_grad():
        before = engine.network(inputs(2))
    asks = [Task(method, engine.default, 1, None, "positive") for method in ("ablationcam", "scorecam")]
    engine.maps(engine.forward(inputs(2), asks), asks)
    assert not any(module._forward_hooks for module in engine.network.modules())
    with torch.no_grad():
        assert torch.equal(engine.network(inputs(2)), before)


@pytest.mark.parametrize("method", ["ablationcam", "scorecam"])
def test_more_classes_cost_no_more_forwards(engine, method):
    one = inputs(1, seed=9)
    calls: list[int] = []
    handle = engine.network.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    counts, maps = [], []
    try:
        for classes in ((4,), (1, 4, 7)):
            calls.clear()
            ask = Task(method, engine.default, classes, None, "positive")
            maps.append(engine.maps(engine.forward(one, [ask]), [ask])[0])
            counts.append(len(calls))
    finally:
        handle.remove()
    assert counts[0] == counts[1]
    np.testing.assert_array_equal(maps[0][0].map, maps[1][1].map)

"""Hooks come off and modes come back, however the block ends."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from camserve.cam.capture import capture
from camserve.cam.gates import prove
from camserve.records import Task
from networks import CLASSES, KINDS, inputs, network


@pytest.fixture(params=KINDS)
def engine(request):
    return prove(network(request.param), inputs(), CLASSES, None)


def state(net):
    """Everything a capture could leave changed."""
    return (
        [len(module._forward_hooks) for module in net.modules()],
        [module.training for module in net.modules()],
        [(p.requires_grad, p.grad) for p in net.parameters()],
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
    )


@pytest.mark.parametrize("graph", [False, True], ids=["inference", "graph"])
def test_the_network_is_as_before(engine, graph):
    before = state(engine.network)
    with capture(list(engine.layers.values()), graph) as captured:
        engine.network(inputs(2))
        assert state(engine.network)[0] != before[0]
    assert captured.keys() == engine.layers.keys()
    assert state(engine.network) == before


@pytest.mark.parametrize("graph", [False, True], ids=["inference", "graph"])
@pytest.mark.parametrize("when", ["before the forward", "behind the layer"])
def test_the_network_is_as_before_after_an_exception(engine, graph, when):
    before = state(engine.network)

    def fail() -> None:
        with capture([engine.layers[engine.default]], graph):
            if when == "behind the layer":
                engine.network(inputs(2))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert state(engine.network) == before


@pytest.mark.parametrize("graph", [False, True], ids=["inference", "graph"])
def test_what_is_captured_is_not_changed_by_what_follows_in_place(graph):
    net = network("in-place ReLU")
    engine = prove(net, inputs(), CLASSES, None)
    with capture([engine.layers["features"]], graph) as captured:
        net(inputs(2))
    with torch.inference_mode():
        expected = net.features(net.early(inputs(2)))
    assert (expected < 0).any()
    assert torch.equal(captured["features"].detach(), expected)


def test_a_layer_on_a_branch_of_its_own_has_a_graph_too():
    net = network("auxiliary head")
    engine = prove(net, inputs(), CLASSES, None)
    with capture([engine.layers["left"], engine.layers["right"]], graph=True) as captured:
        score = net(inputs(2))[:, 0].sum()
    left, right = torch.autograd.grad(score, [captured["left"], captured["right"]])
    assert left.any()
    assert right.any()


def test_nothing_is_kept_between_batches(engine):
    ask = Task("gradcam", next(iter(engine.layers)), 3, None, "positive")

    def once() -> weakref.ref[torch.Tensor]:
        trace = engine.forward(inputs(2), [ask, None])
        assert engine.maps(trace, [ask, None])[0][0].map is not None
        return weakref.ref(trace.captured[ask.layer])

    kept = [once() for _ in range(5)]
    gc.collect()
    assert [ref() for ref in kept] == [None] * 5

    before = len([o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)])
    for _ in range(50):
        once()
    gc.collect()
    assert len([o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]) == before

"""Random heads: what is random, that it is put back, and how maps are compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from camserve.cam.engine import Engine
from camserve.cam.gates import prove
from camserve.errors import SetupError
from camserve.evaluate.randomisation import correlation, find_head, randomised
from camserve.evaluate.recommendation import passes, shortcomings
from camserve.records import Task
from networks import CLASSES, inputs, network


def engine_of(kind: str) -> Engine:
    return prove(network(kind).float(), inputs().float(), CLASSES, None)


def mapped(engine: Engine, rows: int = 2):
    tasks = [Task("gradcam", engine.default, (3,), None, "positive")] * rows
    trace = engine.forward(inputs(rows).float(), tasks)
    return trace.logits.detach(), [found[0] for found in engine.maps(trace, tasks)]


@pytest.mark.parametrize("kind", ["closed form", "in-place ReLU", "tail gradient", "conv head"])
def test_the_head_is_put_back_as_it_was(kind):
    engine = engine_of(kind)
    before = {name: value.clone() for name, value in engine.network.state_dict().items()}
    owned = [id(parameter) for parameter in engine.network.parameters()]
    logits, maps = mapped(engine)
    with randomised(engine, inputs().float(), 0) as other:
        assert not torch.equal(mapped(other)[0], logits)
    assert [id(parameter) for parameter in engine.network.parameters()] == owned
    after = engine.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    again, same = mapped(engine)
    assert torch.equal(again, logits)
    assert all((one.map == two.map).all() for one, two in zip(maps, same, strict=True))


def test_the_head_is_put_back_after_an_error():
    engine = engine_of("closed form")
    weight = engine.network.head.weight
    with pytest.raises(KeyError), randomised(engine, inputs().float(), 0):
        raise KeyError
    assert engine.network.head.weight is weight


def test_an_exact_engine_in_the_block_completes_to_the_random_logits():
    engine = engine_of("closed form")
    trained = mapped(engine)[1]
    with randomised(engine, inputs().float(), 0) as other:
        assert other.closed_form is not None
        logits, maps = mapped(other)
        for row, one in enumerate(maps):
            assert one.map.mean() + one.bias == pytest.approx(float(logits[row, 3]), abs=1e-4)
            assert abs(np.corrcoef(one.map.ravel(), trained[row].map.ravel())[0, 1]) < 0.999


def test_only_the_head_is_random_and_as_large_as_the_trained_one():
    engine = engine_of("closed form")
    before = {name: value.clone() for name, value in engine.network.state_dict().items()}
    with randomised(engine, inputs().float(), 0):
        changed = {name for name, value in engine.network.state_dict().items() if not torch.equal(value, before[name])}
        assert changed == {"head.weight", "head.bias"}
        assert float(engine.network.head.weight.std()) == pytest.approx(float(before["head.weight"].std()), rel=0.2)
        assert not engine.network.head.bias.any()
        assert not any(parameter.requires_grad for parameter in engine.network.parameters())


def test_a_seed_gives_its_own_head():
    engine = engine_of("closed form")
    found = []
    for seed in (0, 0, 1):
        with randomised(engine, inputs().float(), seed) as other:
            found.append(mapped(other)[0])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_the_head_is_what_the_network_calls_last():
    built = network("auxiliary head")
    assert find_head(built, inputs(1)) is built.head[2]
    built = network("conv head")
    assert find_head(built, inputs(1)) is built.head[1]


def test_a_network_without_a_head_is_refused():
    with pytest.raises(SetupError, match="has no linear or convolutional head"):
        find_head(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), inputs(1))


@pytest.mark.parametrize("rounded", [None, 0])
def test_the_correlation_is_spearmans_of_what_is_drawn(rounded):
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, 7, 7)).astype(np.float32)
    other += one / 2
    if rounded is not None:  # many equal cells
        one, other = one.round(), other.round()
    expected = spearmanr(np.maximum(one, 0).ravel(), np.maximum(other, 0).ravel()).statistic
    assert correlation(one, other) == pytest.approx(expected)


def test_a_map_without_evidence_is_like_no_other_but_itself():
    some, none = np.eye(4, dtype=np.float32), np.zeros((4, 4), np.float32)
    assert correlation(some, none) == 0
    assert correlation(none, none) == 1
    assert correlation(some, 3 * some) == pytest.approx(1)


def test_a_method_that_does_not_depend_on_the_head_fails(study):
    (blind,) = (one for one in study.measured if one.first.method == "eigencam")
    assert study.estimate(blind, "correlation").mean == pytest.approx(1)
    assert passes(study, blind) == "no"
    assert "class-blind" in shortcomings(study, blind)


def test_a_method_that_depends_on_the_head_passes(study):
    (first,) = (one for one in study.measured if one.first.method == "gradcam")
    assert passes(study, first) == "yes"

"""A tape gives the very bits of the network, for any number of rows; a network that it cannot hold runs as it is."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models import densenet121, mobilenet_v3_small, resnet18, shufflenet_v2_x0_5, squeezenet1_1, swin_t

import camserve.model.precision as precision
from camserve.cam.capture import capture
from camserve.cam.gates import prove
from camserve.cam.layers import Layer, find_default, find_layers
from camserve.cam.tape import record
from camserve.model.fold import fold
from camserve.model.fuse import fuse
from camserve.model.pack import pack
from camserve.records import Task

NETWORKS = {
    "resnet18": resnet18,
    "densenet121": densenet121,
    "mobilenet_v3_small": mobilenet_v3_small,
    "shufflenet": shufflenet_v2_x0_5,  # an operation with several outputs
    "squeezenet": squeezenet1_1,
    "tf_efficientnet_lite0": lambda: timm.create_model("tf_efficientnet_lite0"),
    "vit": lambda: timm.create_model("vit_tiny_patch16_224", img_size=64),  # rows times heads
}


def noise(rows: int, seed: int = 1) -> Tensor:
    values = torch.randn(rows, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    return values.contiguous(memory_format=torch.channels_last)


def as_served(network: nn.Module) -> nn.Module:
    """As a worker has it."""
    torch.backends.mha.set_fastpath_enabled(False)
    network.eval().requires_grad_(False)
    for step in (fold, pack, fuse):
        step(network, noise(8, seed=0))
    return network


def default(network: nn.Module) -> Layer:
    if isinstance(network, timm.models.VisionTransformer):
        return Layer("norm", network.norm, 1, 192, (4, 4))
    return find_default(network, find_layers(network, noise(1), None), noise(1))


def found_by(network: nn.Module, layer: Layer, inputs: Tensor) -> tuple[Tensor, Tensor]:
    with capture([layer], graph=False) as captured:
        logits = network(inputs)
    return logits, captured[layer.name]


@pytest.fixture(scope="module", params=NETWORKS)
def taped(request):
    """A network, its layer, and the tape of both."""
    torch.manual_seed(0)
    network = as_served(NETWORKS[request.param]())
    return network, default(network), record(network, default(network), noise(8, seed=0))


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 11])
def test_the_very_bits(taped, rows):
    network, layer, tape = taped
    inputs = noise(rows)
    for ours, theirs in zip(tape(inputs), found_by(network, layer, inputs), strict=True):
        assert torch.equal(ours, theirs)
        assert not ours.requires_grad


def test_no_module_runs(taped, monkeypatch):
    monkeypatch.setattr(nn.Module, "__call__", None)
    logits, output = taped[2](noise(2))
    assert logits.shape == (2, 1000)
    assert len(output) == 2


def test_bfloat16_too(monkeypatch):
    monkeypatch.setattr(precision, "_is_native", lambda device: True)
    network = resnet18().eval().requires_grad_(False)
    layer = default(network)
    precision.to_bfloat16(network, layer.module, noise(2))
    tape, inputs = record(network, layer, noise(8, seed=0)), noise(3)
    assert all(map(torch.equal, tape(inputs), found_by(network, layer, inputs)))


# --- what cannot be written down ----------------------------------------------------------------------------


class Net(nn.Module):
    """A layer and a head, with something that is done between them."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)
        self.register_buffer("shift", torch.zeros(8))

    def forward(self, inputs):
        return self.head(self.between(self.layer(inputs).mean((2, 3))))

    def between(self, pooled):
        return pooled + self.shift


class Decides(Net):
    """By a value."""

    def between(self, pooled):
        return pooled if pooled.sum() > 0 else -pooled


class Looks(Net):
    """At values by way of NumPy, of which PyTorch knows nothing."""

    def between(self, pooled):
        return pooled * torch.from_numpy(np.sign(pooled.numpy()))


class Counts(Net):
    """Even numbers of rows are treated otherwise."""

    def between(self, pooled):
        return pooled if len(pooled) % 2 else pooled.relu()


class Sizes(Net):
    """The number of rows is a value in it."""

    def between(self, pooled):
        return pooled * len(pooled)


class Breaks(Net):
    """Only a single row."""

    def between(self, pooled):
        if len(pooled) > 1:
            raise RuntimeError("one row at a time")
        return pooled


def net(kind: type[Net]) -> tuple[Net, Layer]:
    torch.manual_seed(0)
    network = kind().eval().requires_grad_(False)
    return network, Layer("layer", network.layer, 1, 8, (62, 62))


@pytest.mark.parametrize("kind", [Decides, Looks, Counts, Breaks])
def test_a_network_without_a_tape(kind):
    assert record(*net(kind), noise(8)) is None


def test_a_tensor_that_is_made_anew_may_depend_on_anything():
    network = swin_t().eval().requires_grad_(False)
    assert record(network, Layer("norm", network.norm, 1, 768, (2, 2)), noise(8)) is None


@pytest.mark.parametrize("kind", [Net, Sizes])
def test_what_depends_on_the_number_of_rows_alone(kind):
    inputs = noise(5, seed=2)
    assert all(map(torch.equal, record(*net(kind), noise(8))(inputs), found_by(*net(kind), inputs)))


# --- the engine ---------------------------------------------------------------------------------------------


@pytest.fixture
def engine():
    torch.manual_seed(0)
    network = as_served(resnet18())
    engine = prove(network, noise(8, seed=0), 1000, None)
    engine.record(noise(8, seed=0))
    return engine


def task(engine, method="gradcam", layer=None):
    return Task(method, layer or engine.default, 2, None, "positive")


@pytest.mark.parametrize("rows", [1, 4])
def test_maps_are_the_same_with_and_without_a_tape(engine, rows):
    inputs, tasks = noise(rows), [task(engine)] * rows
    taped = engine.forward(inputs, tasks)
    engine.tape = None
    plain = engine.forward(inputs, tasks)
    assert torch.equal(taped.logits, plain.logits)
    for ours, theirs in zip(engine.maps(taped, tasks), engine.maps(plain, tasks), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one.class_id == other.class_id
            np.testing.assert_array_equal(one.map, other.map)


@pytest.mark.parametrize(
    ("asked", "replayed"),
    [
        pytest.param([None, None], True, id="plain rows"),
        pytest.param([{}, None], True, id="the default layer"),
        pytest.param([{"layer": "layer2"}, {}], False, id="another layer"),
        pytest.param([{"layer": "layer4.0", "method": "gradcam"}, None], False, id="a graph"),
    ],
)
def test_when_the_tape_is_replayed(engine, asked, replayed, monkeypatch):
    calls = []
    engine.network.register_forward_pre_hook(lambda *_: calls.append(1))
    tasks = [None if one is None else task(engine, **one) for one in asked]
    trace = engine.forward(noise(2), tasks)
    assert (not calls) == replayed
    assert all(row[0].failure is None for row in engine.maps(trace, tasks) if row)


def test_inputs_of_another_size_go_through_the_network(engine):
    inputs = torch.randn(2, 3, 96, 80)
    with torch.inference_mode():
        expected = engine.network(inputs)
    assert torch.equal(engine.forward(inputs, [None, None]).logits, expected)

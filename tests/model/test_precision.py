"""bfloat16 up to the explained layer: predictions move a little, maps stay exact behind it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn

import camserve.model.precision as precision
import toynets
from camserve.archive import Recipe, opened
from camserve.errors import SetupError
from camserve.model import embedded
from camserve.model.precision import to_bfloat16
from camserve.records import Row
from pictures import encoded
from toynets import good, grid

PROBE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Trunk, explained layer, tail."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Conv2d(3, 8, 3)
        self.layer = nn.Conv2d(8, 16, 3)
        self.head = nn.Linear(16, 5)

    def forward(self, inputs):
        return self.head(self.layer(self.trunk(inputs).relu()).mean((2, 3)))


@pytest.fixture
def native(monkeypatch):
    """Any processor can compute in bfloat16; on some it is slow."""
    monkeypatch.setattr(precision, "_is_native", lambda device: True)


def converted() -> nn.Module:
    network = Net().eval().requires_grad_(False)
    to_bfloat16(network, network.layer, PROBE)
    return network


def test_the_trunk_is_rounded_and_the_tail_is_not(native):
    network, exact = converted(), Net().eval()
    seen = {}
    for name in ("trunk", "layer", "head"):
        network.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: (i[0], o)}))
    with torch.inference_mode():
        logits, expected = network(PROBE), exact(PROBE)
    assert seen["trunk"][1].dtype == torch.bfloat16
    assert seen["layer"][1].dtype == seen["head"][0].dtype == logits.dtype == torch.float32
    assert torch.equal(network.head.weight, exact.head.weight)
    assert torch.equal(logits, exact.head(seen["layer"][1].mean((2, 3))))
    assert not torch.equal(logits, expected)
    torch.testing.assert_close(logits, expected, rtol=0.02, atol=0.02)


class Attending(Net):
    """With attention before and behind the explained layer: it uses a module of its own without calling it."""

    def __init__(self):
        super().__init__()
        self.before, self.behind = (nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2))
        self.layer = nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)

    def forward(self, inputs):
        cells = self.trunk(inputs)[:, :, ::6, ::6].flatten(2).transpose(1, 2)
        cells = self.layer(cells + self.before(cells, cells, cells)[0])
        return self.head(self.behind(cells, cells, cells)[0].mean(1))


def test_attention_computes_in_float32_behind_the_layer(native):
    network, exact = (Attending().eval().requires_grad_(False) for _ in range(2))
    to_bfloat16(network, network.layer, PROBE)
    seen = []
    network.layer.register_forward_hook(lambda m, i, o: seen.append(o))
    with torch.inference_mode():
        logits, expected = network(PROBE), exact(PROBE)
        (cells,) = seen
        assert cells.dtype == logits.dtype == torch.float32
        assert torch.equal(logits, exact.head(exact.behind(cells, cells, cells)[0].mean(1)))
    assert not torch.equal(logits, expected)
    torch.testing.assert_close(logits, expected, rtol=0.02, atol=0.02)


def test_a_forward_that_fails_leaves_no_autocast_behind(native):
    network = converted()
    with pytest.raises(RuntimeError):
        network(torch.zeros(1, 4, 32, 32))
    assert not torch.is_autocast_enabled("cpu")
    with torch.inference_mode():
        network(PROBE)
    assert not torch.is_autocast_enabled("cpu")


def test_a_processor_without_it_is_told_so(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    with pytest.raises(SetupError, match="this processor has no arithmetic for it: use float32"):
        converted()


def test_rows_are_explained_by_gradients_in_the_trunk_too(native, tmp_path):
    pipeline = toynets.loaded(tmp_path, precision="bfloat16")
    plain = toynets.loaded(tmp_path)
    ask = toynets.row(explain="true", layer="early", maps="grid", method="gradcam")
    ours, theirs = (good(one.answer([ask])[0])["explanation"]["classes"][0] for one in (pipeline, plain))
    assert np.corrcoef(grid(ours).ravel(), grid(theirs).ravel())[0, 1] > 0.99


PHOTOGRAPHS = ("chelsea", "coffee", "astronaut", "rocket")


def answers(precision: str) -> list[dict]:
    rows = [
        Row("r", {"body": encoded(getattr(data, name)(), "JPEG", quality=92)}, {"explain": "true"})
        for name in PHOTOGRAPHS
    ]
    recipe = Recipe("c", embedded.ARCHITECTURE, settings={"precision": precision})
    with opened(recipe) as pipeline:
        assert pipeline.engine.is_exact("gradcam", pipeline.engine.default)
        return [good(answer) for answer in pipeline.answer(rows)]


def test_the_embedded_network_sees_the_same(native):
    """This network is a hard case: rounding any one of its stages moves probabilities by a hundredth or more."""
    for exact, rounded in zip(answers("float32"), answers("bfloat16"), strict=True):
        first, second = (one["predictions"][0] for one in (exact, rounded))
        assert first["class_id"] == second["class_id"]
        assert first["probability"] == pytest.approx(second["probability"], abs=0.05)
        assert first["logit"] != second["logit"]
        ledger = rounded["explanation"]["classes"][0]["ledger"]
        assert ledger["error"] <= 1e-4 * max(1, abs(ledger["logit"]))

"""Probabilities of many inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from camserve.evaluate.predictor import Predictor


class Net(nn.Module):
    """Fails on memory that is not contiguous if `strict`, as many networks' `view` does."""

    def __init__(self, strict: bool) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 5)
        self.strict = strict
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        maps = self.conv(x)
        return self.head(maps.view(len(x), -1) if self.strict else maps.flatten(1))


def test_probabilities_are_the_softmax_in_bounded_batches():
    torch.manual_seed(0)
    inputs = torch.randn(37, 3, 8, 8)
    for strict in (False, True):
        net = Net(strict).eval()
        predict = Predictor(net, inputs[:1])
        net.sizes.clear()
        with torch.no_grad():
            expected = net(inputs).softmax(1)
        net.sizes.clear()
        found = predict(inputs)
        assert torch.allclose(found, expected, atol=1e-6)
        assert sum(net.sizes) == 37
        assert max(net.sizes) <= 32


def test_a_network_that_views_its_activations_gets_them_contiguous():
    inputs = torch.randn(1, 3, 8, 8)
    assert Predictor(Net(strict=True).eval(), inputs).format == torch.contiguous_format
    assert Predictor(Net(strict=False).eval(), inputs).format == torch.channels_last

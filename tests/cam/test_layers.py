"""The default layer is found without being told."""

from __future__ import annotations

import pytest
import torch

from camserve.cam.layers import find_default, find_layers
from camserve.model import architectures
from networks import inputs, network, seeded

CASES = {
    # name: side, default layer, grid, channels
    "torchvision/vgg16": (64, "features.29", (4, 4), 512),
    "torchvision/vgg19": (64, "features.35", (4, 4), 512),
    "torchvision/squeezenet1_1": (96, "features", (5, 5), 512),
    "torchvision/resnet18": (96, "layer4", (3, 3), 512),
    "torchvision/densenet121": (96, "features", (3, 3), 1024),
    "torchvision/inception_v3": (299, "Mixed_7c", (8, 8), 2048),
    "torchvision/googlenet": (96, "inception5b", (3, 3), 1024),
    "torchvision/mobilenet_v2": (96, "features", (3, 3), 1280),
    "torchvision/mobilenet_v3_small": (96, "features", (3, 3), 576),
    "torchvision/convnext_tiny": (96, "features", (3, 3), 768),
    "timm/tf_efficientnet_lite0": (96, "bn2", (3, 3), 1280),
}


@pytest.mark.parametrize(("name", "case"), CASES.items(), ids=CASES)
def test_the_default_layer(name, case, tmp_path):
    side, default, grid, channels = case
    torch.manual_seed(0)
    net = architectures.build(name, 1000, tmp_path).eval().requires_grad_(False)
    probe = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    found = find_default(net, find_layers(net, probe, None), probe)
    assert (found.name, found.grid, found.channels) == (default, grid, channels)


def test_vision_transformers_name_their_layer(tmp_path):
    net = architectures.build("timm/vit_tiny_patch16_224", 10, tmp_path).eval()
    row = architectures.tokens("timm/vit_tiny_patch16_224", net)
    assert row.layer == "blocks.11.norm1"
    layers = find_layers(net, torch.zeros(1, 3, 224, 224), row)
    assert layers["blocks.11.norm1"].grid == (14, 14)
    assert layers["patch_embed.proj"].grid == (14, 14)  # a convolution, laid out in space already


def test_a_module_that_runs_several_times_counts_its_calls():
    assert find_layers(network("shared module"), inputs(1), None)["act"].calls == 3


class Opposite(torch.nn.Module):
    """Two classes whose logits are each other's negative: their plain sum is always zero."""

    def __init__(self):
        super().__init__()
        self.features = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU())
        self.head = torch.nn.Linear(8, 1)

    def forward(self, x):
        score = self.head(self.features(x).mean((2, 3)))
        return torch.cat([-score, score], 1)


def test_logits_that_cancel_do_not_hide_a_layer():
    net = seeded(Opposite)
    assert find_default(net, find_layers(net, inputs(1), None), inputs(1)).name == "features"


@pytest.mark.parametrize(
    ("name", "classes", "default"),
    [
        ("torchvision/resnet18", 512, "layer4"),
        ("torchvision/densenet121", 1024, "features"),
        ("torchvision/squeezenet1_1", 512, "features"),
        ("torchvision/squeezenet1_1", 64, "features"),
    ],
)
def test_as_many_classes_as_channels_hide_no_layer(name, classes, default, tmp_path):
    torch.manual_seed(0)
    net = architectures.build(name, classes, tmp_path).eval().requires_grad_(False)
    probe = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    assert find_default(net, find_layers(net, probe, None), probe).name == default

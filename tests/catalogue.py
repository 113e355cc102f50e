"""The networks that are proven, what is expected of each, and how it is measured.

test_networks.py asserts what `examine` finds; benchmarks/networks.py writes it down in docs/networks.md.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reference
from camserve.cam.engine import Engine
from camserve.cam.gates import BATCHES, prove
from camserve.model import architectures
from camserve.records import ClassMap, Task

FOLDER = Path(__file__).parent
"""Where FILE.py:CLASS is looked for: the networks of one's own are those of networks.py."""
CLASSES = 1000


@dataclass(frozen=True, slots=True)
class Network:
    """One network and what an explanation of it should find.

    `layer` is the last one with a grid before anything is pooled, `other` an earlier one to compare as well;
    `why` says why the map completes to the logit, or why it cannot.
    """

    architecture: str
    side: int
    layer: str
    channels: int
    grid: int
    exact: bool
    why: str
    other: str
    by_hand: str = "maps"
    """How the layer's output becomes evidence, a row of `BY_HAND`."""
    classes: int = CLASSES


POOLED = "global average pool, linear head"
RECTIFIED = "ReLU by a function, global average pool, linear head"
TOKENS_POOLED = "mean of the normed tokens, linear head"
HIDDEN = "a hidden layer between pool and head"
FLATTENED = "pooled and flattened, hidden layers before the head"
RECTIFIED_SCORES = "class scores rectified before the pool, no linear head"
NORMED = "layer norm between pool and head"
CLASS_TOKEN = "the head reads the class token, not the patches"

NETWORKS = (
    # architecture, side, default layer, channels, grid, exact, why, another layer
    # VGG: the last ReLU; its max-pool and the adaptive pool that changes nothing come behind.
    Network("torchvision/vgg16", 224, "features.29", 512, 14, False, FLATTENED, "features.22"),
    Network("torchvision/vgg19", 224, "features.35", 512, 14, False, FLATTENED, "features.26"),
    # The last stage as a whole: its final ReLU's output.
    Network("torchvision/resnet18", 224, "layer4", 512, 7, True, POOLED, "layer3"),
    Network("torchvision/resnet50", 224, "layer4", 2048, 7, True, POOLED, "layer3"),
    # `features` ends in a batch norm; forward rectifies what it returns.
    Network("torchvision/densenet121", 224, "features", 1024, 7, True, RECTIFIED, "features.denseblock3", "rectified"),
    Network("torchvision/densenet201", 224, "features", 1920, 7, True, RECTIFIED, "features.denseblock3", "rectified"),
    # The block that joins the last branches: no branch of it alone.
    Network("torchvision/inception_v3", 299, "Mixed_7c", 2048, 8, True, POOLED, "Mixed_6e"),
    Network("torchvision/googlenet", 224, "inception5b", 1024, 7, True, POOLED, "inception4e"),
    # `features` ends in the last convolution with its norm and activation.
    Network("torchvision/mobilenet_v2", 224, "features", 1280, 7, True, POOLED, "features.13"),
    Network("torchvision/mobilenet_v3_large", 224, "features", 960, 7, False, HIDDEN, "features.12"),
    Network("torchvision/mobilenet_v3_small", 224, "features", 576, 7, False, HIDDEN, "features.8"),
    Network("torchvision/efficientnet_b0", 224, "features", 1280, 7, True, POOLED, "features.5"),
    Network("torchvision/regnet_y_400mf", 224, "trunk_output", 440, 7, True, POOLED, "trunk_output.block3"),
    Network("torchvision/shufflenet_v2_x1_0", 224, "conv5", 1024, 7, True, POOLED, "stage3"),
    Network("torchvision/mnasnet1_0", 224, "layers", 1280, 7, True, POOLED, "layers.11"),
    # Behind `features` come the maps of class scores, which are results and no evidence.
    Network("torchvision/squeezenet1_0", 224, "features", 512, 13, False, RECTIFIED_SCORES, "features.10"),
    Network("torchvision/squeezenet1_1", 224, "features", 512, 13, False, RECTIFIED_SCORES, "features.7"),
    Network("torchvision/convnext_tiny", 224, "features", 768, 7, False, NORMED, "features.5"),
    # The norm before the last attention: behind it only the class token reaches the head.
    Network(
        "torchvision/vit_b_16",
        224,
        "encoder.layers.encoder_layer_11.ln_1",
        768,
        14,
        False,
        CLASS_TOKEN,
        "encoder.layers.encoder_layer_10.ln_1",
        "patches",
    ),
    Network("torchvision/swin_t", 224, "norm", 768, 7, True, TOKENS_POOLED, "features.5", "channels last"),
    # The activation behind the last separable convolution.
    Network("timm/legacy_xception", 299, "act4", 2048, 10, True, POOLED, "block11"),
    # `bn2` holds norm and activation in one.
    Network("timm/tf_efficientnet_lite0", 224, "bn2", 1280, 7, True, POOLED, "blocks.4"),
    Network("timm/tf_efficientnet_lite1", 240, "bn2", 1280, 8, True, POOLED, "blocks.4"),
    Network("timm/tf_efficientnet_lite2", 260, "bn2", 1280, 9, True, POOLED, "blocks.4"),
    Network(
        "timm/vit_base_patch16_224", 224, "blocks.11.norm1", 768, 14, False, CLASS_TOKEN, "blocks.10.norm1", "patches"
    ),
    Network("timm/swin_tiny_patch4_window7_224", 224, "norm", 768, 7, True, TOKENS_POOLED, "layers.2", "channels last"),
    # Networks of one's own.
    Network("networks.py:Pooled", 32, "features", 16, 8, True, POOLED, "early", classes=10),
    Network("networks.py:Tail", 32, "features.2", 12, 16, False, FLATTENED, "early", classes=10),
)


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found of a network; errors of scores are relative to max(1, |logit|)."""

    layer: str
    channels: int
    grid: tuple[int, ...]
    exact: bool
    other_exact: bool
    same_logits: bool
    """Bit for bit, in batches with rows that are explained and rows that are not."""
    ledger: float
    """|mean(map) + bias - logit| of the worst class; without a bias of its own, the least a bias could leave."""
    head_width: bool
    """Whether a linear module leads from as many channels to as many classes."""
    nearest: float
    """The same for the better of two formulas by hand: head-weighted and gradient-weighted maps."""
    deviation: float
    """From Grad-CAM by hand in float64, of the layer and the other: largest difference over largest value."""


def built(network: Network) -> nn.Module:
    """With seeded random weights that leave something to see in the logits; eval mode, frozen.

    Norms get affine parts that are not trivial and the statistics of a batch of noise, or the activations of
    deep networks would fade; heads, which some libraries fill with zeros, are drawn so that logits are near 1.
    """
    torch.manual_seed(0)
    net = architectures.build(network.architecture, network.classes, FOLDER)
    for name, parameter in net.named_parameters():
        if "layer_scale" in name:
            nn.init.uniform_(parameter, 0.1, 0.5)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            module.momentum = 1.0
    linear = [module for module in net.modules() if isinstance(module, nn.Linear)]
    if linear:
        nn.init.normal_(linear[-1].weight, 0, linear[-1].in_features ** -0.5)
        nn.init.normal_(linear[-1].bias, 0, 0.3)
    if any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        with torch.no_grad():
            net.train()(noise(network, 2, seed=2))
    return net.eval().requires_grad_(False)


def noise(network: Network, rows: int, seed: int) -> Tensor:
    """Inputs of the network's size."""
    return torch.randn(rows, 3, network.side, network.side, generator=torch.Generator().manual_seed(seed))


def proven(network: Network, net: nn.Module) -> Engine:
    """As a worker does it when it starts, without a layer named by the user."""
    layout = architectures.tokens(network.architecture, net)
    layer = layout.layer if layout else None
    return prove(net, noise(network, max(BATCHES), seed=0), network.classes, layer, layout)


def examine(network: Network) -> Findings:
    """Build, prove and explain a network, and do the same by hand in float64.

    Raises:
        SetupError: a gate refuses it.
    """
    net = built(network)
    engine = proven(network, net)
    inputs = noise(network, 3, seed=1)
    late, early = (Task("gradcam", layer, 3, None, "positive") for layer in (engine.default, network.other))
    trace = engine.forward(inputs, [None, late, early])
    with torch.inference_mode():
        plain, plain_pair = net(inputs), net(inputs[:2])
    pair = engine.forward(inputs[:2], [None, late]).logits
    _, maps, other_maps = engine.maps(trace, [None, late, early])

    double = copy.deepcopy(net).double()
    scale = math.prod(maps[0].map.shape) if engine.is_exact("gradcam", engine.default) else 1
    A, logits, gradients = state(double, engine.default, inputs[1], maps, network.by_hand)
    other_A, _, other_gradients = state(double, network.other, inputs[2], other_maps, _plainer(network.by_hand))
    deviations = [
        *(_deviation(one.map, scale * reference.gradcam(A, G)) for one, G in zip(maps, gradients, strict=True)),
        *(_deviation(m.map, reference.gradcam(other_A, G)) for m, G in zip(other_maps, other_gradients, strict=True)),
    ]
    head = _head(double, len(A), network.classes)
    layer = engine.layers[engine.default]
    return Findings(
        layer.name,
        layer.channels,
        maps[0].map.shape,
        engine.is_exact("gradcam", layer.name),
        engine.is_exact("gradcam", network.other),
        torch.equal(plain, trace.logits.detach()) and torch.equal(plain_pair, pair.detach()),
        max(_error(one.map.mean(dtype=float) + (one.bias or 0), float(plain[1, one.class_id])) for one in maps),
        head is not None,
        nearest(A, gradients, head, [float(logits[one.class_id]) for one in maps], [one.class_id for one in maps]),
        max(deviations),
    )


def _patches(tokens: Tensor) -> Tensor:
    """Without the class token: row by row, C x h x w."""
    _, *patches = tokens[0]
    side = math.isqrt(len(patches))
    return torch.stack([torch.stack(patches[side * row : side * (row + 1)], 1) for row in range(side)], 1)[None]


BY_HAND: Mapping[str, Callable[[Tensor], Tensor]] = {
    "maps": lambda output: output,
    "rectified": lambda output: output,  # by `_evidence`, before the rest of the network sees it
    "patches": _patches,
    "channels last": lambda output: output.movedim(-1, 1),
}
"""A layer's output to 1 x C x h x w, written a second time."""


def _plainer(by_hand: str) -> str:
    """Only the end of a DenseNet is rectified by a function."""
    return "maps" if by_hand == "rectified" else by_hand


def state(
    net: nn.Module, layer: str, one: Tensor, maps: list[ClassMap], by_hand: str
) -> tuple[reference.Array, Tensor, list[reference.Array]]:
    """The evidence at the layer (C x h x w), the logits, and the gradients of the logits of `maps` at the evidence."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept[:] = [F.relu(output) if by_hand == "rectified" else output]
        return kept[0].clone()  # so that nothing behind it works in place on the evidence

    handle = net.get_submodule(layer).register_forward_hook(keep)
    try:
        logits = net(one[None].double().requires_grad_(True))[0]
    finally:
        handle.remove()
    found = [torch.autograd.grad(logits[each.class_id], kept, retain_graph=True)[0] for each in maps]
    A, *gradients = (BY_HAND[by_hand](tensor)[0].detach().numpy() for tensor in (*kept, *found))
    return A, logits.detach(), gradients


def _head(net: nn.Module, channels: int, classes: int) -> nn.Linear | None:
    """A linear module from the layer's channels to the classes."""
    linear = (module for module in net.modules() if isinstance(module, nn.Linear))
    return next((one for one in linear if (one.in_features, one.out_features) == (channels, classes)), None)


def nearest(
    A: reference.Array, gradients: list[reference.Array], head: nn.Linear | None, logits: list[float], ids: list[int]
) -> float:
    """How far the mean of a map by hand, plus the head's bias, stays from the logit; the better formula's worst."""
    cells = math.prod(A.shape[1:])
    biases = [float(head.bias[k]) if head else 0.0 for k in ids]
    formulas = [[cells * reference.gradcam(A, G) for G in gradients]]
    if head:
        formulas.append([reference.cam(A, head.weight[k].numpy()) for k in ids])
    return min(
        max(_error(m.mean() + bias, logit) for m, bias, logit in zip(maps, biases, logits, strict=True))
        for maps in formulas
    )


def _error(total: float, logit: float) -> float:
    return float(abs(total - logit) / max(1.0, abs(logit)))


def _deviation(mine: np.ndarray, by_hand: reference.Array) -> float:
    return float(np.abs(mine - by_hand).max() / np.abs(by_hand).max())

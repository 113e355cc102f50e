"""The networks that are proven, what is expected of each, and how it is measured.

test_networks.py asserts what `examine` finds; benchmarks/networks.py writes it down in docs/networks.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
    layout: str = "maps"
    """How the layer's output lies in space, a row of `LAYOUTS`."""
    rectified: bool = False
    """Whether a function rectifies the layer's output before it is pooled."""
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
    Network(
        "torchvision/densenet121", 224, "features", 1024, 7, True, RECTIFIED, "features.denseblock3", rectified=True
    ),
    Network(
        "torchvision/densenet201", 224, "features", 1920, 7, True, RECTIFIED, "features.denseblock3", rectified=True
    ),
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
    """Of the map itself."""
    exact: bool
    other_exact: bool
    same_logits: bool
    """Bit for bit, in batches with rows that are explained and rows that are not."""
    ledger: float | None
    """|mean(map) + bias - logit| of the worst class, where the map is exact."""
    nearest: float
    """The same by hand in float64: head-weighted maps or gradient-weighted ones, whichever come nearer."""
    deviation: float
    """Of the layer's maps from Grad-CAM by hand in float64: largest difference over largest value."""
    other_deviation: float
    """The same for the other layer, with the engine in float64 too."""


def examine(network: Network, probe: int = max(BATCHES)) -> Findings:
    """Build, prove and explain a network, and do the same by hand in float64; `probe` rows are used for the proof.

    Raises:
        SetupError: a gate refuses it.
    """
    net = built(network)
    engine = proven(network, net, probe)
    inputs = noise(network, 3, seed=1)
    with torch.inference_mode():
        plain = net(inputs)
    ids = spread(plain[1])
    exact = engine.is_exact("gradcam", engine.default)
    same, maps = explained(network, engine, inputs, plain, ids)

    net.double()  # and with it the engine's
    one = inputs[1:2].double()
    hand = by_hand(network, net, engine.default, one, ids)
    scale = math.prod(hand.A.shape[1:]) if exact else 1
    grad_cams = [reference.gradcam(hand.A, G) for G in hand.gradients]
    return Findings(
        layer=engine.default,
        channels=engine.layers[engine.default].channels,
        grid=maps[0].map.shape,
        exact=exact,
        other_exact=engine.is_exact("gradcam", network.other),
        same_logits=same,
        ledger=max(_error(one.map.mean() + one.bias, plain[1, one.class_id]) for one in maps) if exact else None,
        nearest=nearest(hand, net, grad_cams, ids),
        deviation=max(_deviation(one.map, scale * m) for one, m in zip(maps, grad_cams, strict=True)),
        other_deviation=_deviation(
            in_float64(network, engine, one, ids), reference.gradcam(hand.other_activations, hand.other_gradient)
        ),
    )


def built(network: Network) -> nn.Module:
    """With seeded random weights that leave something to see in the logits; eval mode, frozen.

    Norms get affine parts that are not trivial and the statistics of a batch of noise, or the activations of
    deep networks would fade. Linear layers, which some libraries fill with zeros or nearly, are drawn so that
    hidden layers bend and logits are near 1.
    """
    torch.manual_seed(0)
    net = architectures.build(network.architecture, network.classes, FOLDER)
    for name, parameter in net.named_parameters():
        if "layer_scale" in name:  # ConvNeXt's blocks begin as next to nothing
            nn.init.uniform_(parameter, 0.1, 0.5)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            module.momentum = 1.0  # the next batch's statistics are taken as they are
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, module.in_features**-0.5)
    head = scorer(net, network.classes)
    nn.init.normal_(head.weight, 0, head.weight[0].numel() ** -0.5)
    nn.init.normal_(head.bias, 0, 0.3)
    if any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        with torch.no_grad():
            net.train()(noise(network, 2, seed=2))
    return net.eval().requires_grad_(False)


def scorer(net: nn.Module, classes: int) -> nn.Linear | nn.Conv2d:
    """The last module with weights, which makes the class scores."""
    *_, last = (module for module in net.modules() if isinstance(module, nn.Linear | nn.Conv2d))
    assert len(last.weight) == classes
    return last


def noise(network: Network, rows: int, seed: int) -> Tensor:
    """Inputs of the network's size."""
    return torch.randn(rows, 3, network.side, network.side, generator=torch.Generator().manual_seed(seed))


def proven(network: Network, net: nn.Module, probe: int) -> Engine:
    """As a worker does it when it starts, where the user names no layer."""
    layout = architectures.tokens(network.architecture, net)
    layer = layout.layer if layout else None
    return prove(net, noise(network, probe, seed=0), network.classes, layer, layout)


def spread(logits: Tensor) -> tuple[int, ...]:
    """The likeliest class and two that are less so."""
    order = logits.argsort(descending=True)
    return tuple(int(order[len(order) * eighths // 8]) for eighths in (0, 1, 2))


def explained(
    network: Network, engine: Engine, inputs: Tensor, plain: Tensor, ids: tuple[int, ...]
) -> tuple[bool, list[ClassMap]]:
    """Whether explanations leave the logits as they are, and the maps of the second of three rows.

    The first row is plain, the second asks for the default layer, the third for another one, with its gradient.
    """
    late, early = (Task("gradcam", layer, ids, None, "positive") for layer in (engine.default, network.other))
    batches = [[None, late, early]]
    if engine.closed_form:  # without the third row nothing needs a gradient: another way through the engine
        batches.append([None, late, None])
    traces = [engine.forward(inputs, tasks) for tasks in batches]
    same = all(torch.equal(plain, trace.logits.detach()) for trace in traces)
    return same, engine.maps(traces[-1], batches[-1])[1]


def in_float64(network: Network, engine: Engine, one: Tensor, ids: tuple[int, ...]) -> np.ndarray:
    """The engine's map of the other layer for a network in float64.

    In float32 a few of the many rectifiers behind an early layer end up on the other side of zero. The gradient
    jumps there, so that two right answers may differ by a hundredth.
    """
    task = Task("gradcam", network.other, ids[:1], None, "positive")
    ((found,),) = engine.maps(engine.forward(one, [task]), [task])
    return found.map


@dataclass(frozen=True, slots=True)
class Hand:
    """Logits (K), evidence at a layer and each class's gradient there (C x h x w), and one more of the other layer."""

    logits: Tensor
    A: reference.Array
    gradients: list[reference.Array]
    other_activations: reference.Array
    other_gradient: reference.Array


def by_hand(network: Network, net: nn.Module, layer: str, one: Tensor, ids: tuple[int, ...]) -> Hand:
    """One forward with hooks and the autograd of plain torch."""
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            kept[name] = output
            return output.clone()  # so that nothing behind it works in place on what was kept

        return hook

    handles = [net.get_submodule(name).register_forward_hook(keep(name)) for name in (layer, network.other)]
    try:
        maps = one.requires_grad_(True)
        if network.rectified:  # torchvision's DenseNet.forward, line by line
            kept[layer] = F.relu(net.features(maps))
            logits = net.classifier(F.adaptive_avg_pool2d(kept[layer], (1, 1)).flatten(1))
        else:
            logits = net(maps)
    finally:
        for handle in handles:
            handle.remove()

    def laid_out(tensor: Tensor) -> reference.Array:
        return LAYOUTS[network.layout](tensor)[0].detach().numpy()

    def gradient(class_id: int, name: str) -> reference.Array:
        return laid_out(torch.autograd.grad(logits[0, class_id], kept[name], retain_graph=True)[0])

    return Hand(
        logits[0].detach(),
        laid_out(kept[layer]),
        [gradient(class_id, layer) for class_id in ids],
        laid_out(kept[network.other]),
        gradient(ids[0], network.other),
    )


def _patches(tokens: Tensor) -> Tensor:
    """Without the class token, row by row."""
    _, *patches = tokens[0]
    side = math.isqrt(len(patches))
    rows = [torch.stack(patches[side * row : side * (row + 1)], 1) for row in range(side)]
    return torch.stack(rows, 1)[None]


LAYOUTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "maps": lambda output: output,
    "patches": _patches,
    "channels last": lambda output: output.movedim(-1, 1),
}
"""A layer's output to 1 x C x h x w, written a second time."""


def nearest(hand: Hand, net: nn.Module, grad_cams: Sequence[reference.Array], ids: tuple[int, ...]) -> float:
    """How far the mean of a map by hand plus the class's bias is from the logit: the better formula's worst class."""
    head = scorer(net, len(hand.logits))
    formulas = [[hand.A[0].size * one for one in grad_cams]]
    if head.weight.shape[1:] == hand.A.shape[:1]:
        formulas.append([reference.cam(hand.A, head.weight[k].numpy()) for k in ids])
    return min(
        max(_error(one.mean() + float(head.bias[k]), hand.logits[k]) for one, k in zip(maps, ids, strict=True))
        for maps in formulas
    )


def _error(total: float, logit: Tensor) -> float:
    return abs(float(total) - float(logit)) / max(1.0, abs(float(logit)))


def _deviation(mine: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(mine - theirs).max() / np.abs(theirs).max())

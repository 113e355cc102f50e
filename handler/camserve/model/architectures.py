"""Names to networks: where each comes from, how it wants its pictures, how its tokens lie in space."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import timm.data
import torchvision
from torch import Tensor, nn

from camserve.errors import SetupError
from camserve.settings import Preprocessing

Reshape = Callable[[Tensor], Tensor]
"""Token layout to N x C x h x w, differentiable."""


@dataclass(frozen=True, slots=True)
class Source:
    """A library of networks: how to build one, and what is published for its name."""

    build: Callable[[str, int], nn.Module]
    preprocessing: Callable[[str], Preprocessing | None]
    weights: Callable[[str], Mapping[str, Tensor]]


def _timm_model(name: str, classes: int) -> nn.Module:
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes)
    return model


def _timm_preprocessing(name: str) -> Preprocessing | None:
    card = timm.get_pretrained_cfg(name)
    if card is None:
        return None
    config = timm.data.resolve_data_config(pretrained_cfg=card.to_dict())
    _, height, side = config["input_size"]
    if config["crop_mode"] == "border" or height != side or config["crop_pct"] > 1:
        return None  # padded, or not square: more than Preprocessing can say
    return Preprocessing(
        resize=math.floor(side / config["crop_pct"]),
        crop=side,
        squash=config["crop_mode"] == "squash",
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
    )


def _torchvision_model(name: str, classes: int) -> nn.Module:
    extra: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # Their training heads have no part in a prediction; published weights expect transform_input.
        extra = {"init_weights": False, "aux_logits": False, "transform_input": True}
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes, **extra)
    return model


def _torchvision_preprocessing(name: str) -> Preprocessing | None:
    preset = torchvision.models.get_model_weights(name)["DEFAULT"].transforms()
    return Preprocessing(
        resize=preset.resize_size[0],
        crop=preset.crop_size[0],
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def _timm_weights(name: str) -> Mapping[str, Tensor]:
    weights: Mapping[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
    return weights


def _torchvision_weights(name: str) -> Mapping[str, Tensor]:
    weights: Mapping[str, Tensor] = torchvision.models.get_model_weights(name)["DEFAULT"].get_state_dict()
    return weights


SOURCES: Mapping[str, Source] = {
    "timm": Source(_timm_model, _timm_preprocessing, _timm_weights),
    "torchvision": Source(_torchvision_model, _torchvision_preprocessing, _torchvision_weights),
}


def _patches(tokens: Tensor) -> Tensor:
    """N x (1 + h·w) x C with a class token first, a square grid."""
    side = math.isqrt(tokens.shape[1] - 1)
    return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, side, side)


def _channels_last(maps: Tensor) -> Tensor:
    """N x h x w x C."""
    return maps.permute(0, 3, 1, 2)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Where a network of tokens is explained: the default layer, and how its tokens become a map.

    `{last}` in the layer's name stands for the last child of the module before it.
    """

    layer: str
    reshape: Reshape
    dimensions: int
    """Of the token layout; outputs with another number are left as they are."""


TOKENS: Mapping[str, Tokens] = {
    # A ViT block's output has no gradient on its patches, only on the class token: use the norm before it.
    "torchvision/vit_": Tokens("encoder.layers.{last}.ln_1", _patches, 3),
    "timm/vit_": Tokens("blocks.{last}.norm1", _patches, 3),
    "torchvision/swin_": Tokens("norm", _channels_last, 4),
    "timm/swin_": Tokens("norm", _channels_last, 4),
}
"""By the beginning of the architecture's name. All other networks yield N x C x h x w."""


def tokens(architecture: str, network: nn.Module) -> Tokens | None:
    """The row of TOKENS for an architecture, its layer named in full, or None."""
    row = next((row for prefix, row in TOKENS.items() if architecture.startswith(prefix)), None)
    if row is None or "{last}" not in row.layer:
        return row
    parent = network.get_submodule(row.layer.partition(".{last}")[0])
    last = [name for name, _ in parent.named_children()][-1]
    return replace(row, layer=row.layer.format(last=last))


def build(architecture: str, classes: int, folder: Path) -> nn.Module:
    """A network without weights.

    Args:
        architecture: `timm/NAME`, `torchvision/NAME` or `FILE.py:CLASS`, a file in `folder`.
        classes: size of the head; a class of one's own decides that itself.
        folder: where the archive was unpacked.

    Raises:
        SetupError: there is no such network.
    """
    library, _, name = architecture.partition("/")
    if library in SOURCES:
        try:
            return SOURCES[library].build(name, classes)
        except (ValueError, RuntimeError, KeyError) as error:
            raise SetupError(f"No network {name!r} in {library}: {ascii(str(error))[1:-1]}.") from error
    return _own(architecture, folder)


def published_preprocessing(architecture: str) -> Preprocessing | None:
    """The preprocessing a library publishes for its weights, or None."""
    library, _, name = architecture.partition("/")
    return SOURCES[library].preprocessing(name) if library in SOURCES else None


def published_weights(architecture: str) -> Mapping[str, Tensor]:
    """The published state dict of a library's network; downloads it."""
    library, _, name = architecture.partition("/")
    if library not in SOURCES:
        raise SetupError(f"{architecture} has no published weights; give a state dict with --weights FILE.")
    return SOURCES[library].weights(name)


def _own(architecture: str, folder: Path) -> nn.Module:
    """A class without constructor arguments from a Python file."""
    file, _, name = architecture.partition(":")
    path = folder / file
    if not (file.endswith(".py") and name.isidentifier() and path.is_file()):
        raise SetupError(
            f"Expected an architecture like timm/NAME, torchvision/NAME or FILE.py:CLASS, got {architecture!r}."
        )
    # A name that hides no other module; dataclasses look their own module up by name.
    spec = importlib.util.spec_from_file_location(f"camserve_own_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    network = getattr(module, name, None)
    if not (isinstance(network, type) and issubclass(network, nn.Module)):
        raise SetupError(f"Expected a torch.nn.Module named {name!r} in {file}, found {type(network).__name__}.")
    return network()

"""A weights file to a checked network in eval mode on its device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from camserve.errors import SetupError
from camserve.model import architectures
from camserve.model.labels import Labels
from camserve.settings import Settings

LONGEST_LABEL = 1_000
LONGEST_LABELS = 1_000_000
"""Characters. TorchServe kills a worker whose answer is too long, and labels cannot be dropped from one."""


def load_network(settings: Settings, folder: Path, classes: int, device: torch.device) -> nn.Module:
    """Build the architecture, load its weights, switch to eval mode and freeze the parameters.

    Raises:
        SetupError: the file is no plain state dict, or does not fit the architecture.
    """
    # torchvision's attention takes a fused path that changes logits by 2e-6 when gradients are on.
    torch.backends.mha.set_fastpath_enabled(False)
    network = architectures.build(settings.architecture, classes, folder)
    fill(network, state_dict(folder / settings.weights), settings.architecture)
    return network.eval().requires_grad_(False).to(device)


def in_fast_order(network: nn.Module) -> None:
    """Put the weights of convolutions into memory channels last, the order in which oneDNN and cuDNN are faster."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def state_dict(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a weights file; nothing in it is executed.

    Raises:
        SetupError: there is no such file, or it holds more than tensors by name.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise SetupError(f"Weights not found: {path.name}; build the archive with a file of a state dict.") from error
    except OSError as error:
        raise SetupError(f"{path.name} cannot be read: {error.strerror}.") from error
    except Exception as error:  # on text and broken files the unpickler trips over KeyError, IndexError and more
        raise SetupError(
            f"{path.name} is not a plain state dict: save it with torch.save(model.state_dict(), ...); "
            "files that would run code when loaded are refused."
        ) from error
    if not isinstance(loaded, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in loaded.items()
    ):
        raise SetupError(f"{path.name} must hold tensors by name (a state dict), not {type(loaded).__name__}.")
    return loaded


def fill(network: nn.Module, weights: Mapping[str, Tensor], architecture: str) -> None:
    """Load a state dict that must fit tensor by tensor.

    Raises:
        SetupError: names the first tensors that are missing, left over or of another shape.
    """
    own = network.state_dict()
    # GoogLeNet's and Inception's training heads are in published files and in no served network.
    given = {name: tensor for name, tensor in weights.items() if not _training_only(name, own)}
    missing, extra = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    wrong = [name for name in own.keys() & given.keys() if own[name].shape != given[name].shape]
    if missing or extra or wrong:
        raise SetupError(
            f"The weights do not fit {architecture}: missing {missing[:3]}, left over {extra[:3]}, "
            f"of another shape {sorted(wrong)[:3]}; build the archive with this network's own."
        )
    network.load_state_dict(given)


def _training_only(name: str, own: Mapping[str, Tensor]) -> bool:
    return name.startswith(("aux1.", "aux2.", "AuxLogits.")) and name not in own


def load_labels(path: Path) -> Labels:
    """Class names, one a line.

    Raises:
        SetupError: no such file, it is not UTF-8 text, or too long for an answer to carry.
    """
    try:
        names = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise SetupError(f"Labels not found: {path.name}.") from error
    except UnicodeDecodeError as error:
        raise SetupError(f"{path.name} must be UTF-8 text, one class name a line.") from error
    longest, whole = max(map(len, names), default=0), sum(map(len, names))
    if longest > LONGEST_LABEL or whole > LONGEST_LABELS:
        raise SetupError(
            f"{path.name}: expected names of at most {LONGEST_LABEL} characters and {LONGEST_LABELS} in all, "
            f"the longest has {longest} and all have {whole}."
        )
    return Labels(names)


def choose_device(settings: Settings, gpu_id: int | None) -> torch.device:
    """The device to serve on; `gpu_id` is the GPU that the server assigned, if any.

    Raises:
        SetupError: a GPU is demanded and there is none.
    """
    cuda = torch.cuda.is_available()
    if settings.device == "cuda" and not cuda:
        raise SetupError("The setting 'device' asks for cuda, but no GPU is visible; use auto or cpu.")
    if settings.device == "cpu" or not cuda or (settings.device == "auto" and gpu_id is None):
        return torch.device("cpu")
    return torch.device("cuda", gpu_id or 0)

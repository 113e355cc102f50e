"""A network in bfloat16 up to the layer that is explained, and in float32 behind it: maps stay exact there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from camserve.errors import SetupError


def to_bfloat16(network: nn.Module, layer: nn.Module, probe: Tensor) -> None:
    """Compute in bfloat16 from the input to the output of `layer`, in place; what leaves the layer is float32 again.

    Args:
        network: in eval mode, float32, on its device.
        layer: one of its modules, called once in a forward.
        probe: N x 3 x H x W, to see which modules run up to the layer.

    Raises:
        SetupError: the processor has no arithmetic for it.
    """
    device = probe.device.type
    if not _is_native(probe.device):
        raise SetupError(
            "The setting 'precision' asks for bfloat16 and this processor has no arithmetic for it: use float32."
        )
    for module in _before(network, layer, probe):
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(torch.bfloat16)  # autocast would do it anew in every forward
    forward = network.forward

    def cast(*inputs: Any) -> Any:
        with torch.autocast(device, torch.bfloat16):
            return forward(*inputs)

    def leave(module: nn.Module, _: object, output: Tensor) -> Tensor:
        torch.set_autocast_enabled(device, False)  # until the forward ends
        return output.float()

    network.forward = cast
    layer.register_forward_hook(leave)


def _is_native(device: torch.device) -> bool:
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(bool(capabilities.get(name)) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def _before(network: nn.Module, layer: nn.Module, probe: Tensor) -> set[nn.Module]:
    """The modules called before the layer, up to itself, and not after it.

    Others look into a module without calling it (attention, into its last projection), wherever they stand.
    """
    order: list[nn.Module] = []
    handles = [one.register_forward_hook(lambda module, *_: order.append(module)) for one in network.modules()]
    try:
        with torch.inference_mode():
            network(probe)
    finally:
        for handle in handles:
            handle.remove()
    end = order.index(layer) + 1
    return set(order[:end]) - set(order[end:])

"""How much of a GPU is in use."""

from __future__ import annotations

import torch


def reading(device: torch.device) -> tuple[str, int, float | None] | None:
    """Name of the device, bytes this process holds there, and how busy it is from 0 to 1; None for a CPU.

    How busy is None where NVIDIA's management library is not installed.
    """
    if device.type != "cuda":
        return None
    try:
        busy = torch.cuda.utilization(device) / 100
    except Exception:  # no library, or one that does not know it of this device, and says so in its own ways
        busy = None
    return str(device), torch.cuda.memory_reserved(device), busy

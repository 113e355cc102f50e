"""Which of torch's threads work on something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def alone() -> Iterator[None]:
    """Run a block without torch's other threads.

    For work so small that waking them takes longer, and waiting for one that another process has displaced: where the
    machine is busy, the map arithmetic of a batch takes 2 ms alone and 27 in two threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

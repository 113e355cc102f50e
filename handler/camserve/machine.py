"""What a process that runs networks asks of its machine: threads, and memory that it keeps."""

from __future__ import annotations

import ctypes
import gc
import os

import cv2
import torch
from threadpoolctl import threadpool_limits

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _ARENAS = -3, -1, -8
"""Numbers of mallopt(3)."""

_KEPT = 2**30
"""Bytes of freed memory that stay with the process."""


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare(threads: int) -> None:
    """Set the threads of one forward, and keep the memory of the last forward for the next.

    Left alone, glibc hands each large buffer back to the system and asks for it anew, and the system fills it with
    zeros page by page: a fifth to a half of a convolutional network's time on a CPU. What is kept is kept in one place
    for all threads; with a place for each, memory grew twice as fast under pictures of many sizes. Other C libraries
    are left as they are.
    """
    torch.set_num_threads(threads)
    # Rows run in threads of our own. A small product that wakes a thread waits for it where the machine is busy.
    cv2.setNumThreads(1)
    threadpool_limits(1, user_api="blas")  # NumPy's and OpenCV's; torch has its own
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # on a GPU: float32 is float32
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it at its first large tensor: huge pages
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_THRESHOLD, _KEPT)
    mallopt(_TRIM_THRESHOLD, _KEPT)
    mallopt(_ARENAS, 1)


def settle() -> None:
    """Once all is loaded: the garbage collector need not look through it again and again while requests wait."""
    gc.collect()
    gc.freeze()
    gc.collect()  # its next full look comes after a quarter more than it found in the last: now of nothing

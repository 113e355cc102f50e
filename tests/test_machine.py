"""What a process asks of its machine."""

from __future__ import annotations

import gc
import subprocess
import sys

import torch

from camserve import machine

FAULTS = """
import resource, sys, torch
from camserve import machine
if sys.argv[1] == "kept":
    machine.prepare(1)
torch.set_num_threads(1)
convolution = torch.nn.Conv2d(32, 32, 3, padding=1)
inputs = torch.zeros(1, 32, 256, 256)
with torch.inference_mode():
    convolution(inputs)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        convolution(inputs)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(kind: str) -> int:
    """Pages that the system had to fill during 20 convolutions of 8 MB each."""
    done = subprocess.run([sys.executable, "-c", FAULTS, kind], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_memory_is_not_asked_for_again():
    assert faults("kept") < 0.2 * faults("given back")


def test_the_threads_are_set():
    before = torch.get_num_threads()
    try:
        machine.prepare(3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_small_products_stay_in_their_thread():
    code = (
        "import cv2, numpy, threadpoolctl; from camserve import machine; machine.prepare(2);"
        "print({pool['num_threads'] for pool in threadpoolctl.threadpool_info() if pool['user_api'] == 'blas'})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "{1}\n"


def test_another_c_library_is_left_alone(monkeypatch):
    class Other:
        pass

    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: Other())
    machine.prepare(torch.get_num_threads())


def full_collections(objects: int) -> int:
    """How often the collector looks through everything while so many cyclic objects are made and dropped."""
    before = gc.get_stats()[2]["collections"]
    for _ in range(objects):
        one: list[object] = []
        one.append(one)
    return gc.get_stats()[2]["collections"] - before


def test_what_was_loaded_is_not_looked_through_again():
    before = gc.get_freeze_count()
    try:
        machine.settle()
        assert gc.get_freeze_count() > before
        assert full_collections(objects=200_000) > 0, "garbage that outlived two collections is never looked for"
    finally:
        gc.unfreeze()

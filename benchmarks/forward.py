"""What each step gains that makes the network itself fast: times of one forward, as ratios to the network as built.

    python benchmarks/forward.py [--rounds 9] [--batch 8] [--compile]

Variants take turns. Whether freed memory is kept is a property of a process, so each network is measured in two:
one as it is, one after `camserve.machine.prepare`; they alternate too. `--compile` adds torch.compile, which needs a
C++ compiler and a minute or more for each network.
"""

from __future__ import annotations

import argparse
import copy
import os
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import orjson
import torch
import torch._inductor.config
from torch import Tensor, nn
from tqdm import tqdm

import report
from camserve import machine
from camserve.cam.gates import BATCHES
from camserve.cam.layers import find_default, find_layers
from camserve.cam.tape import record
from camserve.errors import SetupError
from camserve.model.fold import fold
from camserve.model.fuse import fuse
from camserve.model.load import in_fast_order
from camserve.model.pack import pack
from camserve.model.precision import to_bfloat16
from engine import NETWORKS, SIDE, built

MEASURED = ("ResNet-50", "EfficientNet-Lite0", "DenseNet-201", "MobileNetV3-Large", "ConvNeXt-Tiny")
THREADS = min(2, os.cpu_count() or 1)
REPEATS = 3
"""Pairs of processes a network."""

STEPS = {
    "folded": "folded",
    "folded, channels last": "and channels last",
    "folded, channels last, memory kept": "and memory kept",
    "packed, memory kept": "and packed",
    "fused, memory kept": "and fused",
    "on a tape, memory kept": "and on a tape",
    "fused in bfloat16, memory kept": "and bfloat16",
    "compiled, memory kept": "torch.compile instead",
}
"""What is measured, and the column it stands in."""


def variants(network: nn.Module, inputs: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The same network and inputs, one step further each."""
    last = inputs.contiguous(memory_format=torch.channels_last)
    folded = copy.deepcopy(network)
    fold(folded, inputs)
    fast = copy.deepcopy(folded)
    in_fast_order(fast)
    rounded, packed, fused = (copy.deepcopy(fast) for _ in range(3))
    pack(packed, last)
    pack(fused, last)
    fuse(fused, last)
    layer = find_default(fused, find_layers(fused, last[:1], None), last[:1])
    noise = torch.randn(max(BATCHES), *inputs.shape[1:]).contiguous(memory_format=torch.channels_last)
    tape = record(fused, layer, noise)
    assert tape is not None
    found = {
        "as built": lambda: network(inputs),
        "folded": lambda: folded(inputs),
        "folded, channels last": lambda: fast(last),
        "packed": lambda: packed(last),
        "fused": lambda: fused(last),
        "on a tape": lambda: tape(last)[0],
    }
    layer = find_default(rounded, find_layers(rounded, last[:1], None), last[:1])
    try:
        to_bfloat16(rounded, layer.module, last)
    except SetupError:  # this processor has no bfloat16
        return found
    pack(rounded, last)
    fuse(rounded, last)
    return {**found, "fused in bfloat16": lambda: rounded(last)}


def compiled(network: nn.Module, inputs: Tensor) -> Callable[[], Tensor]:
    """The network folded and in channels last, as torch.compile makes it, which packs and fuses on its own."""
    torch._inductor.config.freezing = True
    fast, last = copy.deepcopy(network), inputs.contiguous(memory_format=torch.channels_last)
    fold(fast, inputs)
    in_fast_order(fast)
    optimised = torch.compile(fast)
    return lambda: optimised(last)


def child(name: str, rounds: int, batch: int, kept: bool, compile: bool) -> None:
    """Print the median milliseconds of every variant as JSON."""
    if kept:
        machine.prepare(THREADS)
    torch.set_num_threads(THREADS)
    noise = torch.Generator().manual_seed(1)
    network, inputs = built(NETWORKS[name]).requires_grad_(False), torch.randn(batch, 3, SIDE, SIDE, generator=noise)
    jobs = variants(network, inputs)
    if compile and kept:
        jobs["compiled"] = compiled(network, inputs)
    times: dict[str, list[float]] = {what: [] for what in jobs}
    with torch.inference_mode():
        for _ in range(rounds + 2):
            for what, job in jobs.items():
                start = time.perf_counter()
                job()
                times[what].append((time.perf_counter() - start) * 1e3)
    print(orjson.dumps({what: median(values[2:]) for what, values in times.items()}).decode())


def measured(name: str, rounds: int, batch: int, compile: bool) -> list[str]:
    """One row: milliseconds as built, then how many times as fast each further step is."""
    found: dict[str, list[float]] = {}
    for kept in (False, True) * REPEATS:
        command = [sys.executable, __file__, f"--child={name}", f"--rounds={rounds}", f"--batch={batch}"]
        flags = ["--kept"] * kept + ["--compile"] * compile
        done = subprocess.run([*command, *flags], stdout=subprocess.PIPE, check=True)
        for what, ms in orjson.loads(done.stdout).items():
            found.setdefault(f"{what}, memory kept" if kept else what, []).append(ms)
    base = median(found["as built"])
    gains = [f"{base / median(found[step]):.2f}" if step in found else "" for step in STEPS]
    return [name, f"{base:.0f} ms", *gains]


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="in each process (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="pictures (default: %(default)s)")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(MEASURED), metavar="NAME")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--kept", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.rounds, options.batch, options.kept, options.compile)
        return
    todo = tqdm(options.networks, unit="net")
    rows = [measured(name, options.rounds, options.batch, options.compile) for name in todo]
    head = ["network", "as built", *STEPS.values()]
    print(report.table(head, rows))
    many = "one picture" if options.batch == 1 else f"{options.batch} pictures"
    report.write(
        f"The forward of {many}, step by step",
        f"`python benchmarks/forward.py --batch {options.batch}{' --compile' * options.compile}`: one forward on "
        f"{THREADS} threads, then how many times as fast it is after each step; medians of {REPEATS} processes of "
        f"{options.rounds} rounds.\n\n{report.table(head, rows)}",
    )


if __name__ == "__main__":
    main()

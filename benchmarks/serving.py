"""Throughput over HTTP: explained against plain, ours against TorchServe's own handlers, and where the time goes.

    python benchmarks/serving.py [--seconds 5] [--rounds 8] [--warm 20] [--patience 10] [--networks ResNet-50 ...]

All servers of a network are up at once, each with one worker, two torch threads and batches of eight. Eight clients ask
one kind of request for some seconds, then the next kind; every round does all of them, the next one in reverse, and a
ratio is that of two values of the same round. Before them each kind is asked for a while: Java compiles what it runs
often, for a minute or two, and takes up to a thirtieth of a request's time for it. The captum row is one client's
time, for the record.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

from tqdm import tqdm

import load
import meter
import report
from camserve.stack import Stack
from contenders import BATCH, LITE, NETWORKS, RESNET, UNSHED, camserve, ours, peer, precisions, prepare, theirs
from photographs import LARGE, SMALL, Size, photographs, told, weight
from quiet import TOLD, Quiet

CLIENTS = 8
QUERIES = {"plain": "", "explained": "?explain=true", "grid": "?explain=true&maps=grid"}
EXACT = "float32"
"""The precision that is compared in full; another one has its own plain and explained."""

CAPTUM_PAIRS = 3


class Bar(NamedTuple):
    """Two kinds of requests, and what the first's rate over the second's should be at least."""

    kind: str
    base: str
    asked: float | None = None


BARS = (
    Bar("explained", "plain", 0.90),
    Bar("grid", "plain", 0.97),
    Bar("bfloat16 explained", "bfloat16 plain"),
    Bar("plain", "stock plain", 1.6),
    Bar("explained", "stock plain", 1.5),
    Bar("explained", "naive explained", 8.0),
    Bar("explained", "naive_batched explained"),
    Bar("bfloat16 plain", "stock plain", 2.5),
    Bar("bfloat16 explained", "stock plain", 2.5),
    Bar("naive explained", "stock plain"),
)
SPECIAL = {(LITE, LARGE, "explained"): 0.80, (LITE, LARGE, "grid"): None}
"""What is asked where drawing and decoding are most of the work."""

Rates = dict[str, list[float]]
"""Answers a second of each kind, one value a round."""


class Found(NamedTuple):
    """Of one network at one size: rates, the service's own sums, the batches of pictures, captum's and our time."""

    rates: Rates
    stages: dict[str, meter.Sums]
    batches: dict[str, list[int]]
    captum: list[tuple[float, float]]


def targets(network: str, folder: Path, running: ExitStack) -> tuple[dict[str, load.Target], Stack]:
    """What is compared, all of it up; and the stack whose metrics are read."""
    found: dict[str, load.Target] = {}
    stacks = {}
    for name, settings in precisions().items():
        stack = stacks[name] = running.enter_context(camserve(network, folder, name, settings))
        kinds = QUERIES if name == EXACT else ("plain", "explained")
        found |= {kind if name == EXACT else f"{name} {kind}": ours(stack, QUERIES[kind]) for kind in kinds}
    if network == RESNET:
        stock = running.enter_context(peer("stock", folder))
        found["stock plain"], found["captum"] = theirs(stock), theirs(stock, "explanations")
        for name in ("naive", "naive_batched"):
            found[f"{name} explained"] = theirs(running.enter_context(peer(name, folder)))
    return found, stacks[EXACT]


def one_turn(
    target: load.Target, stack: Stack, pictures: Sequence[bytes], seconds: float
) -> tuple[meter.Sums, load.Load, meter.Sums]:
    """What the clients saw, between two looks at the service's own sums."""
    before = meter.sums(stack)
    return before, load.closed(target, pictures, CLIENTS, seconds), meter.sums(stack)


def measured(
    every: Mapping[str, load.Target], stack: Stack, pictures: Sequence[bytes], seconds: float, rounds: int, quiet: Quiet
) -> Found:
    """Rounds of turns, every second one in reverse."""
    kinds = [kind for kind in every if kind != "captum"]
    found = Found({kind: [] for kind in kinds}, {kind: {} for kind in QUERIES}, {kind: [] for kind in kinds}, [])
    for kind in kinds:
        load.closed(every[kind], pictures, CLIENTS, seconds / 2)  # the first are of another size
    order = [kind for number in range(rounds) for kind in (reversed(kinds) if number % 2 else kinds)]
    for kind in tqdm(order, unit="turn", leave=False):
        before, turn, after = quiet.undisturbed(partial(one_turn, every[kind], stack, pictures, seconds))
        found.rates[kind].append(turn.rate)
        found.batches[kind] += [answer.batch for answer in turn.answers]
        if kind in found.stages:
            found.stages[kind] = meter.added(before, after, found.stages[kind])
    if "captum" in every:
        found.captum.extend(load.paired(every["captum"], every["explained"], pictures, CAPTUM_PAIRS, warm=1))
    return found


def compared(network: str, size: Size, found: Found) -> list[list[str]]:
    """The lines of the first table."""
    lines = []
    for bar in BARS:
        if bar.kind not in found.rates or bar.base not in found.rates:
            continue
        ratios = [one / other for one, other in zip(found.rates[bar.kind], found.rates[bar.base], strict=True)]
        asked = SPECIAL.get((network, size, bar.kind), bar.asked) if bar.base == "plain" else bar.asked
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        wanted = "" if asked is None else f"at least {asked:.2f}"
        lines.append([told(size), f"{bar.kind} / {bar.base}", wanted, f"{median(ratios):.2f}", spread])
    if found.captum:
        ratio = median(its / own for its, own in found.captum)
        what = f"captum / explained, time of one client ({median(its for its, _ in found.captum):.1f} s for captum)"
        lines.append([told(size), what, "", f"{ratio:.0f}", ""])
    return lines


def spent(size: Size, found: Found) -> list[list[str]]:
    """The lines of the second table."""
    lines = []
    for kind, sums in found.stages.items():
        batch = mean(found.batches[kind])
        stages = [f"{meter.milliseconds(sums, stage, batch):.1f}" for stage in meter.STAGES]
        lines.append([told(size), kind, f"{batch:.1f}", *stages, f"{1e3 / median(found.rates[kind]):.1f}"])
    return lines


def write(network: str, ratios: list[list[str]], stages: list[list[str]], how: str) -> None:
    """The sections of a network."""
    first = report.table(["picture", "rates", "asked", "median", "rounds"], ratios)
    second = report.table(["picture", "kind", "batch", *meter.STAGES, "between answers"], stages)
    print(f"{first}\n\n{second}")
    report.write(
        f"Serving: throughput of {network}",
        f"`python benchmarks/serving.py`: answers a second, as ratios of turns of the same round. {how} `stock` is "
        "TorchServe's own image classifier, `naive` the same with pytorch-grad-cam picture by picture, `naive_batched` "
        "with one call of it a batch (`benchmarks/peers/`), `captum` "
        f"TorchServe's own explanations.\n\n{first}",
    )
    report.write(
        f"Serving: where the time goes with {network}",
        "`python benchmarks/serving.py`: milliseconds a picture, from the service's own metrics over the same turns. "
        f"{how} `batch` is the batch a picture was in, on average; forward, explain and total are the times of whole "
        "batches divided by that. The others are a picture's own, of which two at a time are worked on; preprocess "
        "contains the batch's normalisation. The last column is what clients see: 1 s over their rate."
        f"\n\n{second}",
    )


def main() -> None:
    """Measure and write the sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5, help="of a turn (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=8, help="default: %(default)s")
    parser.add_argument(
        "--warm", type=float, default=20, help="seconds of each kind before the first round (default: %(default)s)"
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    Quiet.add_option(parser)
    options = parser.parse_args()
    quiet = Quiet(options.patience)
    prepare()
    pictures = {size: photographs(size) for size in (SMALL, LARGE)}
    files = ", ".join(f"{told(size)} ({weight(files)} on average)" for size, files in pictures.items())
    how = (
        f"{CLIENTS} clients in a closed loop with eight photographs, JPEG, {files}; medians of {options.rounds} rounds "
        f"of turns of {options.seconds:g} s, after {options.warm:g} s of each kind. Every server has one worker, two "
        f"threads and batches of up to {BATCH}; clients and servers share two cores. {TOLD} {UNSHED}"
    )
    for network in options.networks:
        ratios, stages = [], []
        with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
            every, stack = targets(network, Path(folder), running)
            for kind in every.keys() - {"captum"}:
                load.closed(every[kind], pictures[SMALL], CLIENTS, options.warm)
            for size in tqdm(pictures, desc=network, unit="size"):
                found = measured(every, stack, pictures[size], options.seconds, options.rounds, quiet)
                ratios += compared(network, size, found)
                stages += spent(size, found)
        write(network, ratios, stages, how)


if __name__ == "__main__":
    main()

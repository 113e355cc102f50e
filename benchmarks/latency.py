"""How long an answer takes: plain requests beside explained ones, one client alone, batching, the gateway.

    python benchmarks/latency.py [--seconds 30] [--rounds 6] [--pairs 200] [--patience 10] [--networks ResNet-50 ...]

Each comparison alternates: requests at given times in blocks of so many seconds, all plain and half explained, with the
same arrivals in both; one client alone in pairs of single requests. Times of requests at given times count from when
they were due.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import load
import report
from camserve.stack import Stack
from contenders import BATCH, NETWORKS, RESNET, UNSHED, camserve, direct, ours, prepare
from photographs import SMALL, photographs, told, weight
from quiet import TOLD, Quiet

CLIENTS = 8
FILLING = 2 * BATCH
"""Clients that keep all batches full, to find the capacity."""

SHARE = 0.6
"""Of the capacity: how much is asked for."""

PAIRS = 20
"""Of a turn of one client alone."""

WARM_SECONDS, FULL_SECONDS = 3, 10
EXPLAINED = "?explain=true"


class Line(NamedTuple):
    """One line of the table."""

    network: str
    what: str
    asked: str
    measured: str


class Plan(NamedTuple):
    """How long everything is measured, and with what."""

    seconds: float
    rounds: int
    pairs: int
    pictures: Sequence[bytes]
    quiet: Quiet


def capacity(stack: Stack, plan: Plan) -> float:
    """Plain answers a second with full batches."""
    load.closed(ours(stack), plan.pictures, FILLING, WARM_SECONDS)
    seconds = min(FULL_SECONDS, plan.seconds)
    return plan.quiet.undisturbed(partial(load.closed, ours(stack), plan.pictures, FILLING, seconds)).rate


def block(stack: Stack, plan: Plan, rate: float, share: float, seed: int) -> list[float]:
    """Seconds of the plain requests of a block in which a share is explained."""
    chance = random.Random(seed)
    due = load.arrivals(rate, plan.seconds, seed)
    kinds = [ours(stack, EXPLAINED if chance.random() < share else "") for _ in due]
    answers = load.open_loop(list(zip(due, kinds, strict=True)), plan.pictures)
    return [answer.seconds for answer in answers if not answer.explained]


def tail(network: str, stack: Stack, plan: Plan) -> Line:
    """The 99th percentile of plain requests while half are explained, over that without."""
    rate = SHARE * capacity(stack, plan)
    alone: list[float] = []
    beside: list[float] = []
    for seed in tqdm(range(plan.rounds), desc="p99", unit="round", leave=False):
        turns = [(alone, 0.0), (beside, 0.5)]
        for pool, share in turns if seed % 2 else reversed(turns):
            pool += plan.quiet.undisturbed(partial(block, stack, plan, rate, share, seed))
    ratio = np.percentile(beside, 99) / np.percentile(alone, 99)
    what = f"p99 of plain requests, half the traffic explained / all plain ({len(beside)} and {len(alone)} requests)"
    return Line(network, what, "at most 1.20", f"{ratio:.2f}")


def lone(network: str, stack: Stack, single: Stack, plan: Plan) -> list[Line]:
    """One client alone: what an explanation, batching and the gateway add."""
    explained = paired(ours(stack, EXPLAINED), ours(stack), plan)
    ratio = median(one for one, _ in explained) / median(other for _, other in explained)
    batching = paired(ours(stack), ours(single), plan)
    gateway = paired(ours(stack), direct(stack), plan)
    return [
        Line(network, "one client alone: explained / plain", "at most 1.10", f"{ratio:.2f}"),
        Line(network, f"one client alone: batches of {BATCH} - of 1", "at most 1 ms", f"{more(batching):.2f} ms"),
        Line(network, "one client alone: through the gateway - direct", "at most 1 ms", f"{more(gateway):.2f} ms"),
    ]


def paired(one: load.Target, other: load.Target, plan: Plan) -> list[tuple[float, float]]:
    """Seconds of both, pair by pair, in short turns."""
    turn = partial(load.paired, one, other, plan.pictures, PAIRS)
    return [pair for _ in range(0, plan.pairs, PAIRS) for pair in plan.quiet.undisturbed(turn)]


def more(pairs: Sequence[tuple[float, float]]) -> float:
    """Milliseconds by which the first of a pair is slower."""
    return median(one - other for one, other in pairs) * 1e3


def passing(network: str, stack: Stack, plan: Plan) -> Line:
    """What the gateway costs in throughput."""
    through, past = ours(stack), direct(stack)
    ratios = []
    for number in tqdm(range(plan.rounds), desc="gateway", unit="round", leave=False):
        order = (through, past) if number % 2 else (past, through)
        turns = {one: partial(load.closed, one, plan.pictures, CLIENTS, plan.seconds / 3) for one in order}
        rates = {one: plan.quiet.undisturbed(turn).rate for one, turn in turns.items()}
        ratios.append(rates[through] / rates[past])
    what = f"throughput, {CLIENTS} clients: through the gateway / direct"
    return Line(network, what, "at least 0.95", f"{median(ratios):.2f}")


def measured(network: str, plan: Plan) -> list[Line]:
    """All lines of one network."""
    with (
        tempfile.TemporaryDirectory() as folder,
        camserve(network, Path(folder), "batches") as stack,
        camserve(network, Path(folder), "single", batchSize=1) as single,
    ):
        found = [*lone(network, stack, single, plan), tail(network, stack, plan)]
        return [*found, passing(network, stack, plan)] if network == RESNET else found


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="of a block (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=6, help="of blocks (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=200, help="of a client alone (default: %(default)s)")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    Quiet.add_option(parser)
    options = parser.parse_args()
    prepare()
    plan = Plan(options.seconds, options.rounds, options.pairs, photographs(SMALL), Quiet(options.patience))
    lines = list(chain.from_iterable(measured(name, plan) for name in tqdm(options.networks, unit="network")))
    table = report.table(["network", "what", "asked", "measured"], lines)
    print(table)
    report.write(
        "Serving: latency",
        f"`python benchmarks/latency.py`: eight photographs, JPEG, {told(SMALL)}, {weight(list(plan.pictures))} on "
        f"average; one worker, two threads, clients and servers on two cores. {UNSHED} p99: Poisson arrivals at "
        f"{SHARE:.0%} of the rate that {FILLING} clients reach in a closed loop, {plan.rounds} alternating blocks of "
        f"{plan.seconds:g} s each, pooled. One client alone: medians of {plan.pairs} alternating pairs; differences "
        f"are medians of the pairs' own. Throughput: medians of {plan.rounds} alternating turns. "
        f"{TOLD}\n\n{table}",
    )


if __name__ == "__main__":
    main()

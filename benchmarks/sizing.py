"""Workers, threads, batch size and delay: requests a second and latency of the embedded model, through the gateway.

    python benchmarks/sizing.py [--seconds 5] [--rounds 5]

A stack for each setting, all of them up at once: nine workers, some 10 GB of memory. In every round each in turn, the
next round in reverse, is asked for the sample picture by clients in a closed loop, plain and then explained, and by
one client alone. The figures compare settings on one machine; set the defaults by your own.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

from tqdm import tqdm

import load
import report
from camserve.stack import Stack
from contenders import LITE, UNSHED, camserve, ours, prepare

ROOT = Path(__file__).parents[1]
CAT = (ROOT / "handler" / "camserve" / "page" / "samples" / "cat.jpg").read_bytes()
CLIENTS = 8
EXPLAINED = "?explain=true"


class Setting(NamedTuple):
    """The first columns of a row; the delay is in milliseconds."""

    workers: int
    threads: int
    batch: int
    delay: int


class Turn(NamedTuple):
    """What a stack did in one round: answers a second, and seconds of the plain ones."""

    plain: float
    explained: float
    p99: float
    alone: float


SETTINGS = (
    Setting(2, 1, 8, 1),
    Setting(1, 2, 8, 1),
    Setting(2, 2, 8, 1),
    Setting(2, 1, 1, 1),
    Setting(2, 1, 8, 20),
)


def started(setting: Setting, folder: Path, running: ExitStack) -> Stack:
    """The stack with a setting, ready."""
    server = {
        "minWorkers": setting.workers,
        "maxWorkers": setting.workers,
        "batchSize": setting.batch,
        "maxBatchDelay": setting.delay,
    }
    name = "sizing_" + "_".join(map(str, setting))
    return running.enter_context(camserve(LITE, folder, name, {"threads": setting.threads}, **server))


def turn(stack: Stack, seconds: float) -> Turn:
    """Many clients, plain and then explained, and one client alone."""
    plain = load.closed(ours(stack), [CAT], CLIENTS, seconds)
    explained = load.closed(ours(stack, EXPLAINED), [CAT], CLIENTS, seconds)
    alone = load.closed(ours(stack), [CAT], 1, seconds / 2)
    p99 = quantiles([answer.seconds for answer in plain.answers], n=100)[-1]
    return Turn(plain.rate, explained.rate, p99, median(answer.seconds for answer in alone.answers))


def measured(stacks: Mapping[Setting, Stack], seconds: float, rounds: int) -> dict[Setting, list[Turn]]:
    """Rounds of turns, every second one in reverse."""
    found: dict[Setting, list[Turn]] = {setting: [] for setting in stacks}
    for stack in stacks.values():
        turn(stack, seconds / 2)  # warm
    order = [setting for number in range(rounds) for setting in (reversed(stacks) if number % 2 else stacks)]
    for setting in tqdm(order, unit="turn"):
        found[setting].append(turn(stacks[setting], seconds))
    return found


def row(setting: Setting, turns: list[Turn]) -> list[str]:
    """One line of the table: the medians of the rounds."""
    plain, explained, p99, alone = (median(values) for values in zip(*turns, strict=True))
    return [*map(str, setting), f"{plain:.0f}", f"{explained:.0f}", f"{p99 * 1e3:.0f} ms", f"{alone * 1e3:.0f} ms"]


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    options = parser.parse_args()
    prepare()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        stacks = {one: started(one, Path(folder), running) for one in tqdm(SETTINGS, desc="starting", unit="stack")}
        found = measured(stacks, options.seconds, options.rounds)
    head = ["workers", "threads", "batch", "delay (ms)", "plain/s", "explained/s", "plain p99", "one client, median"]
    table = report.table(head, [row(setting, turns) for setting, turns in found.items()])
    print(table)
    report.write(
        "Workers, threads, batches",
        f"`python benchmarks/sizing.py`: the embedded model behind the gateway, {CLIENTS} clients in a closed loop "
        f"with a 451x300 JPEG; medians of {options.rounds} alternating rounds, {options.seconds:g} s for each kind of "
        f"request. All stacks are up, the others idle; clients and servers share two cores. {UNSHED}\n\n{table}",
    )


if __name__ == "__main__":
    main()

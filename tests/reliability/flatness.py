"""What a running stack holds and how quickly it answers, sampled at intervals; and whether that stays flat."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil
from traffic import Seen

from camserve.stack import Stack

FAMILIES = ("workers", "TorchServe", "gateway")

_WARM = 0.1
"""The share of the time that is left out at the beginning: memory is still being filled."""

_PACE_BYTES = bytes(32_000_000)
_PACES = 5
"""Looks at the machine's pace in an interval."""

MORE_HANDLES = 4
"""By so much the most threads or file descriptors of a family may differ: connections come and go."""

MORE_FILES = 2


@dataclass(frozen=True)
class Tolerance:
    """By how much memory and latency may grow from the first third after the warm-up to the last."""

    share: float
    megabytes: Mapping[str, float]
    """Memory of a family: this share and so much."""
    time: float
    """Latency, as a factor. One that doubles steadily over the whole time grows by 1.5 between those thirds."""


@dataclass(frozen=True)
class Holding:
    """What the processes of one family hold."""

    pids: tuple[int, ...]
    megabytes: float
    threads: int
    descriptors: int
    seconds: float
    """Of processor time, since they began."""


@dataclass(frozen=True)
class Sample:
    """One interval, and what was held at its end."""

    at: float
    """Seconds since the first."""
    requests: int
    median: float
    worst: float
    """The 99th percentile; both in milliseconds."""
    pace: float
    """How long a fixed piece of work took meanwhile, in milliseconds: how fast this machine was just then."""
    holding: Mapping[str, Holding]
    files: int
    file_megabytes: float


@dataclass(frozen=True)
class Measure:
    """One number of a sample, what stands for several, and by which share and how much it may grow."""

    what: str
    of: Callable[[Sample], float]
    several: Callable[[list[float]], float]
    share: float
    more: float

    def compare(self, first: Sequence[Sample], last: Sequence[Sample]) -> str | None:
        """A sentence where it grew by more than that."""
        before, after = (self.several([self.of(one) for one in third]) for third in (first, last))
        if after <= before * (1 + self.share) + self.more:
            return None
        return f"{self.what} grew from {before:.0f} to {after:.0f}"


def families(stack: Stack) -> dict[str, list[psutil.Process]]:
    """The processes of a stack. TorchServe's are Java and the launcher, its workers counted apart."""
    noted = json.loads((stack.state / "processes.json").read_text())["processes"]
    (_, torchserve, gateway) = (psutil.Process(pid) for pid, _ in noted)
    below = torchserve.children(recursive=True)
    workers = [one for one in below if "model_service_worker" in " ".join(one.cmdline())]
    others = [one for one in below if one not in workers]
    return {
        "workers": workers,
        "TorchServe": [torchserve, *others],
        "gateway": [gateway, *gateway.children(recursive=True)],
    }


def holding(processes: Sequence[psutil.Process]) -> Holding:
    """The sums of a family."""
    times = [one.cpu_times() for one in processes]
    return Holding(
        tuple(sorted(one.pid for one in processes)),
        sum(one.memory_info().rss for one in processes) / 1e6,
        sum(one.num_threads() for one in processes),
        sum(one.num_fds() for one in processes),
        sum(one.user + one.system for one in times),
    )


def files(stack: Stack) -> tuple[int, float]:
    """Files in the stack's temporary folder, and their megabytes; the logs lie elsewhere."""
    folder = Path(json.loads((stack.state / "processes.json").read_text())["folder"])
    count, size = 0, 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += (Path(place) / name).lstat().st_size
                count += 1
    return count, size / 1e6


def pace() -> float:
    """Milliseconds for a fixed piece of work that takes its turn among the service's own."""
    start = time.perf_counter()
    hashlib.sha256(_PACE_BYTES).digest()
    return (time.perf_counter() - start) * 1e3


class Watch:
    """Takes a sample of the stack every so many seconds, from entering the block to leaving it."""

    def __init__(self, stack: Stack, seen: Sequence[Seen], every: float) -> None:
        """`seen` grows while requests are answered."""
        self.samples: list[Sample] = []
        self._stack, self._seen, self._every = stack, seen, every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        began, counted = time.monotonic(), 0
        while not self._over.is_set():
            paces = [pace() for _ in range(_PACES) if not self._over.wait(self._every / (_PACES + 1))]
            self._over.wait(began + (len(self.samples) + 1) * self._every - time.monotonic())
            known = len(self._seen)
            times = sorted(one.seconds * 1e3 for one in self._seen[counted:known])
            counted = known
            if paces and times:
                self.samples.append(self._sample(time.monotonic() - began, times, statistics.median(paces)))

    def _sample(self, at: float, times: Sequence[float], paced: float) -> Sample:
        found = {name: holding(processes) for name, processes in families(self._stack).items()}
        worst = times[min(len(times) - 1, int(len(times) * 0.99))]
        return Sample(at, len(times), statistics.median(times), worst, paced, found, *files(self._stack))


def thirds(samples: Sequence[Sample]) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """The first and the last third of what comes after the warm-up."""
    steady = samples[int(len(samples) * _WARM) :]
    third = len(steady) // 3
    assert third, f"expected at least three samples after the warm-up, got {len(samples)} in all"
    return steady[:third], steady[-third:]


def growth(samples: Sequence[Sample], allowed: Tolerance) -> list[str]:
    """What is not flat, each in a sentence."""
    first, last = thirds(samples)
    measures = [measure for name in FAMILIES for measure in _held(name, allowed)]
    measures += [
        Measure("temporary files", lambda one: one.files, min, 0, MORE_FILES),
        Measure("megabytes of temporary files", lambda one: one.file_megabytes, min, 0.02, 1),
    ]
    found = [complaint for measure in measures if (complaint := measure.compare(first, last))]
    return found + slower(first, last, allowed.time) + restarts(samples)


def _held(name: str, allowed: Tolerance) -> list[Measure]:
    return [
        Measure(
            f"megabytes of the {name}",
            lambda one: one.holding[name].megabytes,
            statistics.median,
            allowed.share,
            allowed.megabytes[name],
        ),
        Measure(f"threads of the {name}", lambda one: one.holding[name].threads, max, 0, MORE_HANDLES),
        Measure(f"file descriptors of the {name}", lambda one: one.holding[name].descriptors, max, 0, MORE_HANDLES),
    ]


def slower(first: Sequence[Sample], last: Sequence[Sample], allowed: float) -> list[str]:
    """Whether latency grew by the clock, and also in units of the machine's pace: not because a neighbour came."""
    clock = [statistics.median(s.median for s in third) for third in (first, last)]
    paced = [statistics.median(s.median / s.pace for s in third) for third in (first, last)]
    if min(clock[1] / clock[0], paced[1] / paced[0]) <= allowed:
        return []
    return [
        f"latency grew from {clock[0]:.0f} to {clock[1]:.0f} ms, in the machine's own pace by {paced[1] / paced[0]:.1f}"
    ]


def restarts(samples: Sequence[Sample]) -> list[str]:
    """Families whose processes changed."""
    known = {name: {s.holding[name].pids for s in samples} for name in FAMILIES}
    return [f"processes of the {name} changed: {sorted(pids)}" for name, pids in known.items() if len(pids) > 1]


def table(samples: Sequence[Sample], rows: int = 12) -> str:
    """So many of the samples, evenly apart, and the last."""
    step = max(1, -(-len(samples) // rows))
    chosen = list(samples[step - 1 :: step])
    if chosen[-1] is not samples[-1]:
        chosen.append(samples[-1])
    titles = ("at", "requests", "median, p99 (ms)", "pace (ms)", *FAMILIES, "threads", "descriptors", "files")
    head = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    return "\n".join(head + [_line(one) for one in chosen])


def _line(one: Sample) -> str:
    own = [one.holding[name] for name in FAMILIES]
    cells = [
        f"{one.at / 60:.1f} min",
        str(one.requests),
        f"{one.median:.0f}, {one.worst:.0f}",
        f"{one.pace:.0f}",
        *(f"{part.megabytes:.0f} MB" for part in own),
        " + ".join(str(part.threads) for part in own),
        " + ".join(str(part.descriptors) for part in own),
        f"{one.files}, {one.file_megabytes:.1f} MB",
    ]
    return f"| {' | '.join(cells)} |"


def picture(samples: Sequence[Sample], file: Path) -> None:
    """Memory and latency over time, as a small PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    minutes = [one.at / 60 for one in samples]
    figure = Figure(figsize=(7, 4), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    for name in FAMILIES:
        upper.plot(minutes, [one.holding[name].megabytes for one in samples], label=name)
    lower.plot(minutes, [one.median for one in samples], label="median")
    lower.plot(minutes, [one.worst for one in samples], label="99th percentile")
    upper.set_ylabel("memory, MB")
    lower.set_ylabel("latency, ms")
    lower.set_xlabel("minutes")
    for axes in (upper, lower):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small", frameon=False)
    FigureCanvasAgg(figure).print_png(str(file))

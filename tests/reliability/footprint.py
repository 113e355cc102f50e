"""What the processes of a running stack hold: memory, open files, bodies and answers on disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil

from camserve.stack import Stack

MIB = 1 << 20


def workers_of_nginx(pid: int) -> list[psutil.Process]:
    """The processes that serve; the one of this number only starts them."""
    return psutil.Process(pid).children()


def processes(stack: Stack) -> dict[str, list[psutil.Process]]:
    """The gateway's, TorchServe's own (Java and what started it), and the model's workers."""
    launcher = psutil.Process(stack._children["TorchServe"].pid)
    java = [one for one in launcher.children(recursive=True) if one.name() == "java"]
    workers = [one for each in java for one in each.children()]
    found = {"gateway": workers_of_nginx(stack._children["gateway"].pid), "Java": java, "workers": workers}
    assert all(found.values()), found
    return found


def resident(group: Iterable[psutil.Process]) -> float:
    """MiB of memory, all together."""
    return sum(one.memory_info().rss for one in group) / MIB


def open_files(group: Iterable[psutil.Process]) -> int:
    """Sockets, files and all else that has a descriptor."""
    return sum(one.num_fds() for one in group)


def files_without_a_name(group: Iterable[psutil.Process]) -> int:
    """How many files are open that no folder holds: where nginx keeps bodies and answers."""
    links = [link for one in group for link in Path(f"/proc/{one.pid}/fd").iterdir()]
    count = 0
    for link in links:
        with suppress(FileNotFoundError):  # closed meanwhile
            count += str(link.readlink()).endswith(" (deleted)")
    return count


class Watch:
    """Looks at the memory of groups of processes, ten times a second, while the block runs."""

    def __init__(self, groups: dict[str, list[psutil.Process]]) -> None:
        self._groups = groups
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.before = self._now()
        self.peak = dict(self.before)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join()

    @property
    def growth(self) -> dict[str, float]:
        """MiB at the peak beyond those before."""
        return {name: self.peak[name] - self.before[name] for name in self.peak}

    def _now(self) -> dict[str, float]:
        return {name: resident(group) for name, group in self._groups.items()}

    def _look(self) -> None:
        while not self._over.wait(0.1):
            now = self._now()
            self.peak = {name: max(self.peak[name], now[name]) for name in now}


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether it comes to hold in that time."""
    wait = threading.Event()
    for _ in range(round(seconds / 0.05)):
        if condition():
            return True
        wait.wait(0.05)
    return False

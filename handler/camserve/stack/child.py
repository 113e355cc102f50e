"""A process of the stack with all that it starts in turn: begun, begun again, ended."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from camserve.stack import register

FIRST_PAUSE = 0.5  # seconds before the second start in a row; the first is at once
LONGEST_PAUSE = 8.0  # seconds; each pause is twice the one before, up to this
POLL = 0.05  # seconds between two looks at a process that was asked to end
IDLE = 10.0  # seconds that it may take for nothing in particular
STEADY = 10.0  # seconds; a process that ran so long ended by chance, not because it cannot run


class Child:
    """Runs `command` in `folder`, in a session of its own; what it prints goes to the file `console`."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path, console: Path
    ) -> None:
        self.name = name
        self._command, self._environment, self._folder, self._console = command, environment, folder, console
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._ends = 0  # in a row

    @property
    def pid(self) -> int:
        """Of the process, and of the group with all that it started."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process itself is gone; what it started may still run."""
        return self._process is None or self._process.poll() is not None

    @property
    def fate(self) -> str:
        """How it ended, in its own last words."""
        status = self._process and self._process.returncode
        return f"{self.name} ended: {_last_line(self._console)} (status {status}, see {self._console})"

    def start(self) -> None:
        """Raises OSError. What an earlier run printed stays."""
        mode = "wb" if self._process is None else "ab"
        self._began = time.monotonic()
        with self._console.open(mode) as console:
            self._process = subprocess.Popen(  # noqa: S603  # our own command
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def pause(self) -> float:
        """Seconds to wait before it is started again: none at first, longer each time it ends soon after."""
        self._ends = 1 if time.monotonic() - self._began >= STEADY else self._ends + 1
        self._began = time.monotonic()  # for a start that cannot even be tried
        return 0.0 if self._ends == 1 else min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (self._ends - 2))

    def orphans(self) -> list[psutil.Process]:
        """What the process started and left behind."""
        return [process for process in register.group(self.pid) if process.pid != self.pid]

    def end(
        self, ask: Callable[[psutil.Process], None], timeout: float, busy: Callable[[], bool] = lambda: True
    ) -> None:
        """Asks it to end, and kills what is left after so many seconds, or sooner where it is not `busy`."""
        if self._process is None:
            return
        if not self.ended:
            with suppress(psutil.NoSuchProcess):
                ask(psutil.Process(self.pid))
            self._wait(timeout, busy)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def _wait(self, timeout: float, busy: Callable[[], bool]) -> None:
        began = time.monotonic()
        while not self.ended and (waited := time.monotonic() - began) < timeout:
            if waited > IDLE and not busy():
                return
            time.sleep(POLL)


def _last_line(file: Path) -> str:
    lines = file.read_text(errors="replace").split("\n") if file.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")

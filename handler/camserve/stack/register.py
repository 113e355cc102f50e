"""Which processes belong to a stack: found, written down in its state folder, ended."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

KILL_TIMEOUT = 5.0  # seconds until a killed process is gone


def write(state: Path, pids: Sequence[int]) -> None:
    """Notes the serving process, then its children, each with its start time: numbers are used again."""
    _file(state).write_text(json.dumps([[pid, psutil.Process(pid).create_time()] for pid in pids]))


def read(state: Path) -> list[psutil.Process]:
    """Those noted that still run, in the same order."""
    try:
        entries = json.loads(_file(state).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return []
    return [process for pid, started in entries if (process := _find(pid, started))]


def forget(state: Path) -> None:
    """Removes the note."""
    _file(state).unlink(missing_ok=True)


def descendants(pids: Sequence[int]) -> list[psutil.Process]:
    """All that these processes started, directly or not."""
    found: list[psutil.Process] = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            found += psutil.Process(pid).children(recursive=True)
    return found


def kill(processes: Sequence[psutil.Process]) -> None:
    """Ends those that still run; returns when they are gone."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=KILL_TIMEOUT)


def _file(state: Path) -> Path:
    return state / "processes.json"


def _find(pid: int, started: float) -> psutil.Process | None:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if process.create_time() == started:
            return process
    return None

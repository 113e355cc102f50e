"""What belongs to a stack, processes and a temporary folder: written down in its state folder, found, ended."""

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from camserve.errors import StackError

KILL_TIMEOUT = 5.0  # seconds until a killed process is gone


def write(state: Path, folder: Path, pids: Sequence[int]) -> None:
    """Notes the serving process, then its children, each with when it began: numbers are used again."""
    processes = [[pid, _began(psutil.Process(pid))] for pid in pids]
    new = _file(state).with_suffix(".new")
    new.write_text(json.dumps({"folder": str(folder), "processes": processes}))
    new.replace(_file(state))  # on a full disk the old note stays


def read(state: Path) -> list[psutil.Process]:
    """Those noted that still run, in the same order."""
    processes = _noted(state).get("processes", [])
    return [process for pid, started in processes if (process := _find(pid, started))]


def check_free(state: Path) -> None:
    """Raises StackError where something noted still runs: its keys, logs and this note are not another's to use."""
    running = read(state)
    if running:
        raise StackError(
            f"A service already runs with the folder {state} (process {running[0].pid}): "
            "stop it with `camserve stop`, or give this one another folder with --state."
        )


def keys(state: Path) -> Path:
    """The folder of TorchServe's keys."""
    return state / "keys"


def forget(state: Path) -> None:
    """Removes the temporary folder, the keys and the note."""
    shutil.rmtree(keys(state), ignore_errors=True)
    folder = _noted(state).get("folder")
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
    _file(state).unlink(missing_ok=True)


def descendants(pids: Sequence[int]) -> list[psutil.Process]:
    """All that these processes started, directly or not."""
    found: list[psutil.Process] = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            found += psutil.Process(pid).children(recursive=True)
    return found


def group(leader: int) -> list[psutil.Process]:
    """All processes of the group that this one began, whether it still runs or not."""
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == leader:
                found.append(process)
    return found


def kill(processes: Sequence[psutil.Process]) -> None:
    """Ends those that still run; returns when they are gone."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=KILL_TIMEOUT)


def _file(state: Path) -> Path:
    return state / "processes.json"


def _noted(state: Path) -> dict[str, Any]:
    try:
        noted: dict[str, Any] = json.loads(_file(state).read_text())
    except (OSError, json.JSONDecodeError):
        return {}  # nothing was started, or its start was cut short
    return noted


def _find(pid: int, started: float) -> psutil.Process | None:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if _began(process) == started:
            return process
    return None


def _began(process: psutil.Process) -> float:
    """Seconds from the machine's start, which stay the same when its clock is set."""
    return round(process.create_time() - psutil.boot_time(), 2)

"""What the command line offers: serve in the foreground, start in the background, stop."""

import base64
import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from camserve.errors import StackError
from camserve.stack import register
from camserve.stack.errors import system_errors
from camserve.stack.processes import DRAIN_TIMEOUT, EXIT_TIMEOUT, POLL, READY_TIMEOUT, Stack

FIRST_ANSWER = 30.0  # seconds; the gateway gives up then
BUSY = 10.0  # seconds in which workers that still load may keep the machine too busy to explain
PROGRESS_LINE = 5.0  # seconds between two lines where a line cannot be rewritten


def serve(stack: Stack, picture: Path, overlay: Path, timeout: float = READY_TIMEOUT) -> None:
    """Runs until Ctrl-C or SIGTERM; once ready, explains the picture and writes the overlay (a JPEG).

    Raises StackError.
    """
    with suppress(KeyboardInterrupt), _interrupting(stack), stack:
        stack.wait_ready(timeout, progress_printer())
        answer = first_request(stack, picture)
        seen = str(overlay)
        try:
            drawn = overlay_in(answer)
        except LookupError as error:
            seen = str(error)
        else:
            with system_errors():
                overlay.write_bytes(drawn)
        print(f"\n{summary(stack, answer, picture, seen)}", flush=True)
        with _flag(_ready_file(stack.state)):
            stack.watch(_say)


def start(command: Sequence[str], state: Path, timeout: float = READY_TIMEOUT) -> None:
    """Runs `command`, which has to call `serve` with this state folder, in the background until it is ready.

    What it says is shown. Raises StackError when something runs already with this state folder, when it ends before it
    is ready, or is not after `timeout` seconds.
    """
    register.check_free(state)
    state.mkdir(parents=True, exist_ok=True)
    _ready_file(state).unlink(missing_ok=True)
    console = state / "serve.log"
    with console.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603  # our own command
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _follow(child, console, _ready_file(state), time.monotonic() + timeout)
    except BaseException:
        child.terminate()
        child.wait()
        raise


def stop(state: Path) -> bool:
    """Ends what `serve` or `start` began with this state folder; False if nothing runs."""
    processes = register.read(state)
    started = register.descendants([process.pid for process in processes])
    for process in processes[:1]:
        process.terminate()
        psutil.wait_procs([process], timeout=DRAIN_TIMEOUT + 2 * EXIT_TIMEOUT)
    # Something is left only when the serving process was killed, or hangs.
    register.kill([*processes, *started])
    register.forget(state)
    return bool(processes)


def first_request(stack: Stack, picture: Path, busy: float = BUSY) -> dict[str, Any]:
    """The answer for the picture; a shed explanation is asked for again for `busy` seconds.

    Raises StackError with the message of any error.
    """
    deadline = time.monotonic() + busy
    while (answer := _ask(stack, picture))["explanation"]["status"] == "shed" and time.monotonic() < deadline:
        time.sleep(POLL)
    return answer


def overlay_in(answer: dict[str, Any]) -> bytes:
    """The overlay of the first class. Raises LookupError that says why there is none; the prediction is there."""
    first = next(iter(answer["explanation"].get("classes", [])), None)
    if first is None:
        raise LookupError("not drawn, because requests wait; ask again")
    if "overlay" not in first:
        raise LookupError(f"not drawn: {first['reason']}")
    return base64.b64decode(first["overlay"]["data"])


def _ask(stack: Stack, picture: Path) -> dict[str, Any]:
    path = f"/predictions/{stack.model}?explain=true"
    try:
        status, body = stack.entrance.ask("POST", path, picture.read_bytes(), FIRST_ANSWER)
        answer: dict[str, Any] = json.loads(body)
    except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
        raise StackError(f"The first request, with {picture}, got no answer: {error}.") from error
    if status != 200:
        raise StackError(f"The first request, with {picture}, was answered {status}: {answer['message']}")
    return answer


def summary(stack: Stack, answer: dict[str, Any], picture: Path, overlay: str) -> str:
    """The predictions as a table, where the overlay lies or why there is none, and what to try next."""
    rows = [f"  {each['probability']:7.1%}  {each['class_id']:5}  {each['label']}" for each in answer["predictions"]]
    url = f"{stack.url}/predictions/{stack.model}?explain=true"
    keys = stack.entrance.tokens
    token = f'-H "Authorization: Bearer $(jq -r .inference.key {keys})" ' if keys else ""
    return "\n".join(
        [
            f"Ready at {stack.url}. The first request, {picture}:",
            *rows,
            f"What it looked at: {overlay}",
            f"Next: curl {token}--data-binary @{picture} '{url}'",
        ]
    )


def progress_printer() -> Callable[[float], None]:
    """Says how long it has taken: in one line on a terminal, elsewhere in a new line every few seconds."""
    shown = -PROGRESS_LINE

    def show(seconds: float) -> None:
        nonlocal shown
        if sys.stdout.isatty():
            print(f"\rWaiting for the model: {seconds:.0f} s ", end="", flush=True)
        elif seconds >= shown + PROGRESS_LINE:
            shown = seconds
            print(f"Waiting for the model: {seconds:.0f} s", flush=True)

    return show


def _say(line: str) -> None:
    with suppress(OSError):  # a console on a full disk, or one that is gone, stops nothing
        print(f"camserve: {line}", flush=True)


@contextmanager
def _interrupting(stack: Stack) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP end the waiting, and nothing else: a second one does not cut the stopping short."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        stack.interrupt()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it: the terminal may go
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _flag(file: Path) -> Iterator[None]:
    file.touch()
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _ready_file(state: Path) -> Path:
    return state / "ready"


def _follow(child: subprocess.Popen[bytes], console: Path, ready: Path, deadline: float) -> None:
    """Shows what the child writes until it is ready."""
    with console.open(errors="replace") as lines:
        while not ready.exists():
            ended = child.poll() is not None
            print(lines.read(), end="", flush=True)
            if ended:
                raise StackError(f"It ended before it was ready, with status {child.returncode}; see {console}.")
            if time.monotonic() > deadline:
                raise StackError(f"It was not ready in time; see {console}.")
            time.sleep(POLL)
        print(lines.read(), end="", flush=True)

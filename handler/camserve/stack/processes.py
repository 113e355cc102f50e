"""The two processes and everything they start.

Both are children in sessions of their own, so Ctrl-C reaches only this process, which then stops them in
order: the gateway first, once its open requests are answered, because TorchServe drops what it works on. One that ends
by itself once they ran is started again.
"""

import http.client
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from camserve.errors import StackError
from camserve.stack import gateway, register, torchserve
from camserve.stack.child import Child
from camserve.stack.entrance import Entrance
from camserve.stack.errors import check_archive, load_failure, system_errors
from camserve.stack.ports import Ports

POLL = 0.25  # seconds between two looks at the processes
READY_TIMEOUT = 180.0  # seconds; from a cold disk, importing torch alone takes a minute
READY_ANSWER = 3.0  # seconds; the gateway itself gives up after 2
DRAIN_TIMEOUT = 35.0  # seconds for requests that are being answered; the gateway itself gives them 30
EXIT_TIMEOUT = 10.0  # seconds from asking a process to end to killing it
LOOK = 5.0  # seconds between two questions whether TorchServe still tries to run its workers
LARGEST_LOG = 10_000_000  # bytes of the gateway's log, of which there are two
LONGEST_TEMP_DIR = 60  # characters; with a worker's socket in it, the path has to stay below 108


class Stack:
    """One TorchServe with one model, and the gateway in front of it.

    archive_store/archive is served under the name `model`; `config` holds config.properties, log4j2.xml and
    nginx.conf.template; logs and the list of processes go to the folder `state`. `environment` (default: this
    process's) is what the processes see; its CAMSERVE_MAX_BODY (default 20m), CAMSERVE_ALLOWED_ORIGIN
    (default empty: CORS off), CAMSERVE_CLIENT_TIMEOUT (30s), CAMSERVE_IDLE_TIMEOUT (75s), CAMSERVE_CLIENT_REQUESTS
    (512), CAMSERVE_CLIENT_ADDRESS ($remote_addr) and what Entrance reads are the gateway's.

    As a context manager it starts on entry and stops on exit.
    """

    def __init__(
        self,
        archive_store: Path,
        model: str,
        archive: str,
        ports: Ports,
        config: Path,
        state: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.model = model
        self.ports = ports
        self.state = state.resolve()
        self.logs = self.state / "logs"
        self._archive = archive_store.resolve() / archive
        self._config = config.resolve()
        self._environment = dict(os.environ if environment is None else environment)
        self._keys = register.keys(self.state)
        self.entrance = Entrance.from_environment(self._environment, ports.gateway, self._keys / "key_file.json")
        self._children: dict[str, Child] = {}
        self._due: dict[str, float] = {}  # when a process that ended is started again
        self._next_look = 0.0
        self._left: list[psutil.Process] = []  # what was left to finish its work
        self._private: Path | None = None
        self._log_start = 0
        self._interrupted = threading.Event()

    @property
    def url(self) -> str:
        """The gateway's address, without a slash at the end."""
        return self.entrance.url

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts both processes and returns at once. Raises StackError, leaving nothing behind."""
        check_archive(self._archive)
        register.check_free(self.state)
        self.ports.check_free()
        try:
            with system_errors():
                self._start(self._prepare())
        except BaseException:
            self.stop()
            raise

    def wait_ready(
        self, timeout: float = READY_TIMEOUT, on_progress: Callable[[float], None] = lambda seconds: None
    ) -> None:
        """Returns when a worker answers through the gateway; on_progress gets the seconds waited so far.

        Raises StackError when the model refuses to load, a process ends, or `timeout` seconds have passed,
        and KeyboardInterrupt after `interrupt`.
        """
        began = time.monotonic()
        while not self._is_ready():
            self._check_alive()
            self._check_model()
            waited = time.monotonic() - began
            if waited > timeout:
                raise StackError(f"The model was not ready after {timeout:.0f} seconds: see {self.logs}.")
            on_progress(waited)
            self._pause()

    def watch(self, say: Callable[[str], None] = print) -> None:
        """Blocks; starts a process that ends again, and says so. Raises KeyboardInterrupt after `interrupt`."""
        while True:
            for child in self._children.values():
                self._keep(child, say)
            self._turn_over_log()
            self._pause()

    def interrupt(self) -> None:
        """Makes `wait_ready` and `watch` raise KeyboardInterrupt; for signal handlers and other threads."""
        self._interrupted.set()

    def stop(self) -> None:
        """Lets open requests finish, ends all processes, and removes their temporary folder."""
        started = register.descendants([child.pid for child in self._children.values() if not child.ended])
        if "gateway" in self._children:
            self._children["gateway"].end(_quit, DRAIN_TIMEOUT, self._is_answering)
        if "TorchServe" in self._children:
            self._children["TorchServe"].end(_terminate_java, EXIT_TIMEOUT)
        register.kill([*started, *self._left])
        self._children.clear()
        if self._private:
            shutil.rmtree(self._private, ignore_errors=True)
            self._private = None
            register.forget(self.state)

    def _is_answering(self) -> bool:
        """Whether the gateway has open requests at TorchServe; it waits for silent clients too, like a browser."""
        try:
            workers = psutil.Process(self._children["gateway"].pid).children()
            open_ones = [one for worker in workers for one in worker.net_connections("tcp") if one.raddr]
        except psutil.Error:
            return True  # ended just now, or nothing can be told
        return any(one.raddr.port == self.ports.inference for one in open_ones)

    def _prepare(self) -> Path:
        """The logs folder, and the private one with the gateway's configuration in it."""
        self.logs.mkdir(parents=True, exist_ok=True)
        self._log_start = _size(self._model_log)
        # Private, because two TorchServes in one temporary folder take each other's sockets.
        self._private = Path(tempfile.mkdtemp(prefix="camserve-", dir=_short_temp_dir()))
        # nginx, started by root, works as "nobody", who has to get through here to its own folders.
        self._private.chmod(0o711)
        shutil.rmtree(self._keys, ignore_errors=True)
        self._keys.mkdir(mode=0o700)
        template = self._config / "nginx.conf.template"
        gateway.write_configuration(self._private, self.logs, template, self._gateway_values(), self.entrance)
        return self._private

    def _gateway_values(self) -> dict[str, str]:
        return {
            "CAMSERVE_LISTEN": f"{self.ports.gateway}{' ssl' if self.entrance.certificate else ''}",
            "CAMSERVE_TOKENS": "true" if self.entrance.tokens else "false",
            "CAMSERVE_TORCHSERVE": f"127.0.0.1:{self.ports.inference}",
            "CAMSERVE_MODEL": self.model,
            "CAMSERVE_PAGE": "page",  # where nginx's other paths lie
            "CAMSERVE_MAX_BODY": self._environment.get("CAMSERVE_MAX_BODY", "20m"),
            "CAMSERVE_ALLOWED_ORIGIN": self._environment.get("CAMSERVE_ALLOWED_ORIGIN", ""),
            "CAMSERVE_CLIENT_TIMEOUT": self._environment.get("CAMSERVE_CLIENT_TIMEOUT", "30s"),
            "CAMSERVE_IDLE_TIMEOUT": self._environment.get("CAMSERVE_IDLE_TIMEOUT", "75s"),
            "CAMSERVE_CLIENT_REQUESTS": self._environment.get("CAMSERVE_CLIENT_REQUESTS", "512"),
            "CAMSERVE_CLIENT_ADDRESS": self._environment.get("CAMSERVE_CLIENT_ADDRESS", "$remote_addr"),
        }

    def _start(self, private: Path) -> None:
        self._temporary.mkdir(mode=0o700)
        environment = torchserve.environment(self._environment, self.ports, self.logs, self._temporary)
        environment["TS_DISABLE_TOKEN_AUTHORIZATION"] = "false" if self.entrance.tokens else "true"
        command = torchserve.command(self._archive, self.model, self._config)
        self._add("TorchServe", command, environment, self._keys)  # where it writes them
        self._add("gateway", gateway.command(private), self._environment, private)
        self._note()

    def _add(self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        console = self.logs / f"{name.lower()}_console.log"
        child = Child(name, command, environment, folder, console)
        child.start()
        self._children[name] = child

    def _note(self) -> None:
        assert self._private is not None
        running = [child.pid for child in self._children.values() if not child.ended]
        register.write(self.state, self._private, [os.getpid(), *running])

    def _keep(self, child: Child, say: Callable[[str], None]) -> None:
        """Starts the process again when it ended: at once, and after a pause where it ends again and again."""
        if child.name not in self._due:
            if child.name == "TorchServe" and not child.ended and self._has_given_up():
                child.end(_terminate_java, EXIT_TIMEOUT)
                self._plan(child, f"TorchServe gave up its workers: see {self._model_log}", say)
            elif child.ended:
                self._plan(child, child.fate, say)
            else:
                return
        if time.monotonic() < self._due[child.name]:
            return
        try:
            with system_errors():
                self._make_room(child)
                child.start()
        except StackError as error:
            self._plan(child, str(error).rstrip("."), say)
            return
        del self._due[child.name]
        with suppress(OSError):  # `stop` asks this process first
            self._note()

    def _plan(self, child: Child, reason: str, say: Callable[[str], None]) -> None:
        pause = child.pause()
        self._due[child.name] = time.monotonic() + pause
        say(f"{reason}; {child.name} is started again {f'in {pause:g} s' if pause else 'now'}.")

    def _has_given_up(self) -> bool:
        """Whether no worker answers, and TorchServe says that it does not try to start them any more."""
        if time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + LOOK
        inside = Entrance(self.ports.inference, tokens=self.entrance.tokens)
        return self._status(inside, "/ping") == 500 and not self._is_ready()

    def _turn_over_log(self) -> None:
        """Begins the gateway's log anew where it is too large: nginx, unlike TorchServe, does not."""
        log = self.logs / "gateway.log"
        if _size(log) > LARGEST_LOG:
            with suppress(OSError):
                # Copied, because nginx's workers may not have the right to open another one.
                shutil.copyfile(log, log.with_name("gateway.log.1"))
                os.truncate(log, 0)

    def _make_room(self, child: Child) -> None:
        """Ends and removes what the one before left: processes on its ports, sockets, files."""
        orphans = child.orphans()
        if child.name == "gateway":
            # nginx's workers answer what is open, and let go of the port at once.
            self._left = [process for process in [*self._left, *orphans] if process.is_running()]
            for worker in orphans:
                with suppress(psutil.NoSuchProcess):
                    _quit(worker)
        else:
            register.kill(orphans)
            check_archive(self._archive)
            torchserve.clear(self._temporary)

    @property
    def _temporary(self) -> Path:
        """TorchServe's own."""
        assert self._private is not None
        return self._private / "torchserve"

    @property
    def _model_log(self) -> Path:
        return self.logs / "model_log.log"

    def _is_ready(self) -> bool:
        return self._status(self.entrance, f"/ready/{self.model}") == 200

    def _status(self, entrance: Entrance, path: str) -> int | None:
        """What a GET is answered, or None where it is not."""
        try:
            return entrance.ask("GET", path, None, READY_ANSWER)[0]
        except (OSError, http.client.HTTPException):
            return None

    def _check_alive(self) -> None:
        for child in self._children.values():
            if child.ended:
                raise StackError(child.fate)

    def _check_model(self) -> None:
        # Smaller than at the start: the log was rotated since.
        start = self._log_start if _size(self._model_log) >= self._log_start else 0
        with suppress(FileNotFoundError), self._model_log.open("rb") as file:
            file.seek(start)
            reason = load_failure(file.read().decode(errors="replace"))
            if reason:
                raise StackError(f"The model did not load: {reason} (see {self._model_log})")

    def _pause(self) -> None:
        if self._interrupted.wait(POLL):
            raise KeyboardInterrupt


def _quit(nginx: psutil.Process) -> None:
    """Lets nginx answer what is open; only the master, which tells its workers."""
    nginx.send_signal(signal.SIGQUIT)


def _terminate_java(launcher: psutil.Process) -> None:
    """The launcher passes no signal on, but ends with its child."""
    for process in launcher.children() or [launcher]:
        process.terminate()


def _short_temp_dir() -> str | None:
    return None if len(tempfile.gettempdir()) <= LONGEST_TEMP_DIR else "/tmp"  # noqa: S108  # mkdtemp is safe there


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0

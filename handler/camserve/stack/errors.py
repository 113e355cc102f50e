"""What can keep the processes from running, as one sentence for the person at the terminal."""

import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from camserve.errors import StackError, quoted


@contextmanager
def system_errors() -> Iterator[None]:
    """Turns an OSError (full disk, no permission, ...) into a StackError that names the file."""
    try:
        yield
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        raise StackError(f"The processes could not be started: {error.strerror}{place}.") from error


def check_archive(archive: Path) -> None:
    """Raises StackError unless the file is a complete zip archive that may be read and stays in its folder."""
    try:
        with zipfile.ZipFile(archive) as packed:
            _check_members(archive, packed.namelist())
    except FileNotFoundError as error:
        raise StackError(f"There is no model archive {archive}: build it with `camserve archive`.") from error
    except zipfile.BadZipFile as error:
        raise StackError(f"{archive} is not a model archive, or only a part of one: build it again.") from error
    except OSError as error:
        raise StackError(f"{archive} cannot be read: {error.strerror}.") from error


def _check_members(archive: Path, names: Sequence[str]) -> None:
    """TorchServe writes no file outside either, but then waits for ever for a model that it could not unpack."""
    for name in names:
        if name.startswith("/") or ".." in name.replace("\\", "/").split("/"):
            raise StackError(
                f"{archive} is refused: {quoted(name)} in it would be written outside of the model's folder."
            )


def require(module: str, package: str) -> None:
    """Raises StackError, with the command that installs it, unless the module can be imported."""
    if find_spec(module) is None:
        raise StackError(f"{package} is not installed: run `{sys.executable} -m pip install {package}`.")


def load_failure(log: str) -> str | None:
    """Why a worker did not load its model, or None if nothing in TorchServe's model log says so.

    A line `camserve: ...` is the handler's own refusal. Otherwise the first error of a traceback counts: the
    last one is often TorchServe's misleading "No module named 'ts.torch_handler...'".
    """
    messages = [line.partition(" MODEL_LOG - ")[2] for line in log.splitlines()]
    for message in messages:
        if message.startswith("camserve: "):
            return message.removeprefix("camserve: ")
    if not any(message.startswith("Backend worker process died") for message in messages):
        return None
    return next((message for message in messages if re.match(r"[\w.]+(Error|Exception|Exit)\b", message)), None)

"""The ports of TorchServe and the gateway."""

import errno
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import Self

from camserve.errors import StackError


@dataclass(frozen=True)
class Ports:
    """TCP ports. All but the gateway's are bound to the loopback interface."""

    gateway: int = 8080
    inference: int = 8085
    management: int = 8081
    metrics: int = 8082
    grpc: int = 7070
    grpc_management: int = 7071
    scrape: int = 8083

    @classmethod
    def free(cls) -> Self:
        """Ports that nothing listens on right now."""
        with ExitStack() as held:
            # Held together, so that no number comes twice.
            probes = [held.enter_context(socket.socket()) for _ in fields(cls)]
            for probe in probes:
                probe.bind(("127.0.0.1", 0))
            return cls(*(probe.getsockname()[1] for probe in probes))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """The defaults, overridden by CAMSERVE_GATEWAY_PORT, CAMSERVE_INFERENCE_PORT and so on.

        Raises StackError for a value that is no port number.
        """
        variables = {field.name: _variable(field.name) for field in fields(cls)}
        given = {name: variable for name, variable in variables.items() if environment.get(variable)}
        return cls(**{name: _number(variable, environment[variable]) for name, variable in given.items()})

    def check_free(self) -> None:
        """Raises StackError for the first port that cannot be listened on."""
        for field in fields(self):
            address = "" if field.name == "gateway" else "127.0.0.1"
            _check_free(address, getattr(self, field.name), _variable(field.name))


def _variable(name: str) -> str:
    return f"CAMSERVE_{name.upper()}_PORT"


def _number(variable: str, value: str) -> int:
    if value.isascii() and value.isdecimal() and 1 <= int(value) <= 65535:
        return int(value)
    raise StackError(f"{variable} is {value!r}: a port is a number from 1 to 65535.")


def _check_free(address: str, port: int, variable: str) -> None:
    with socket.socket() as probe:
        # As the servers do it: a port whose last connections are still closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise StackError(
                    f"Port {port} is in use: stop what listens there, or set {variable} to another port."
                ) from error
            raise StackError(f"Port {port} cannot be used ({error.strerror}): set {variable} to another.") from error

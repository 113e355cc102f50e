"""How the gateway is entered: under which name, by TLS or not, with a token or without."""

import http.client
import json
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from camserve.errors import StackError

TLS = ("CAMSERVE_HOST", "CAMSERVE_TLS_CERTIFICATE", "CAMSERVE_TLS_KEY")


@dataclass(frozen=True)
class Entrance:
    """The gateway's port on this machine and what it asks of who enters.

    With `certificate` and `key` (PEM files) it speaks TLS under the name `host`. With `tokens`, TorchServe's file of
    keys, it wants the inference key in it.
    """

    port: int
    host: str = "127.0.0.1"
    certificate: Path | None = None
    key: Path | None = None
    tokens: Path | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], port: int, tokens: Path) -> Self:
        """What CAMSERVE_HOST, CAMSERVE_TLS_CERTIFICATE, CAMSERVE_TLS_KEY and CAMSERVE_TOKENS say.

        Raises StackError where they cannot be meant so.
        """
        keys = tokens if _is_true(environment, "CAMSERVE_TOKENS") else None
        host, certificate, key = (environment.get(name, "") for name in TLS)
        if not (host or certificate or key):
            return cls(port, tokens=keys)
        if not (host and certificate and key):
            raise StackError(
                f"TLS needs {', '.join(TLS)} together: the name that clients use, and two PEM files. "
                "A certificate is fetched for a name only by the containers: see docs/operations.md."
            )
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", host):
            raise StackError(f"CAMSERVE_HOST is {host!r}: expected a host name like example.org.")
        _check_pair(certificate, key)
        return cls(port, host, Path(certificate).resolve(), Path(key).resolve(), keys)

    @property
    def url(self) -> str:
        """The address for clients, without a slash at the end."""
        return f"http{'s' if self.certificate else ''}://{self.host}:{self.port}"

    def ask(self, method: str, path: str, body: bytes | None, timeout: float) -> tuple[int, bytes]:
        """Status and body of an answer. Raises OSError, HTTPException, or StackError for a wrong certificate."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            if self.certificate:
                connection.sock = self._secured(self.certificate, timeout)
            connection.request(method, path, body, self.headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _secured(self, certificate: Path, timeout: float) -> ssl.SSLSocket:
        """Trusts the gateway's own certificate and no other, and sees what a client would: name and dates."""
        context = ssl.create_default_context(cafile=certificate)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        plain = socket.create_connection(("127.0.0.1", self.port), timeout)
        try:
            return context.wrap_socket(plain, server_hostname=self.host)
        except ssl.SSLCertVerificationError as error:
            raise StackError(f"Clients would refuse {certificate}: {error.verify_message}.") from error

    @property
    def headers(self) -> dict[str, str]:
        """The token, once TorchServe has written its keys."""
        if not self.tokens or not self.tokens.exists():
            return {}
        try:
            return {"Authorization": f"Bearer {json.loads(self.tokens.read_text())['inference']['key']}"}
        except json.JSONDecodeError:  # half written
            return {}


def _is_true(environment: Mapping[str, str], name: str) -> bool:
    value = environment.get(name) or "false"
    if value not in ("true", "false"):
        raise StackError(f"{name} is {value!r}: expected true or false.")
    return value == "true"


def _check_pair(certificate: str, key: str) -> None:
    """Raises StackError unless both files can be read and belong together; nobody is asked for a password."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except OSError as error:  # ssl.SSLError too
        reason = getattr(error, "reason", None) or error.strerror
        raise StackError(
            f"{certificate} and {key} cannot be used for TLS ({reason}): expected a certificate and its key, not "
            "encrypted, as PEM files."
        ) from error

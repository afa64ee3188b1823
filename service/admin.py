"""Speaks to Envoy's admin: on its socket, as its supervisor does, or through the operator listener, as people do."""

import http.client
import os
import socket
import ssl
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from service.deployment import Endpoint


class AdminError(Exception):
    """The admin cannot be reached or refuses; the text says which."""


class AdminSocket:
    """Envoy's admin on its socket; whoever can open that may do anything."""

    def __init__(self, path: Path, *, timeout_s: float = 5.0) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def request(self, method: str, target: str) -> str:
        """The answer's text; AdminError when there is none, or one that is no success."""
        return _exchange(_SocketConnection(self._path, self._timeout_s), method, target, str(self._path))


@dataclass(frozen=True)
class OperatorListener:
    """Envoy's admin through the gateway's operator listener, which asks for an operator's certificate.

    Attributes
    ----------
    endpoint
        Where the listener is.
    authority, certificate, key
        PEM files: who vouches for the gateway, and who we are.
    """

    endpoint: Endpoint
    authority: Path
    certificate: Path
    key: Path
    timeout_s: float = 5.0

    @classmethod
    def of_state(cls, endpoint: Endpoint, certificates: Path) -> "OperatorListener":
        """The listener at `endpoint` with the operator's certificate of a deployment's own folder."""
        return cls(
            endpoint, certificates / "gateway-ca.pem", certificates / "operator.pem", certificates / "operator.key"
        )

    def request(self, method: str, target: str) -> str:
        """The answer's text; AdminError when there is none, or one that is no success."""
        try:
            context = ssl.create_default_context(cafile=str(self.authority))
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise AdminError(f"operator certificate {self.certificate}: {error}") from error
        connection = http.client.HTTPSConnection(
            self.endpoint.host, self.endpoint.port, timeout=self.timeout_s, context=context
        )
        return _exchange(connection, method, target, str(self.endpoint))


def _exchange(connection: http.client.HTTPConnection, method: str, target: str, where: str) -> str:
    with closing(connection):
        try:
            connection.request(method, target)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise AdminError(f"admin at {where}: {error}") from error
    if response.status != http.HTTPStatus.OK:
        raise AdminError(f"admin at {where}: {method} {target}: {response.status} {text.strip()}")
    return text


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, wherever in the file system it is."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        # The path of a socket may have 107 bytes at most; through the folder's descriptor it is always short.
        folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock.connect(f"/proc/self/fd/{folder}/{self._path.name}")
        finally:
            os.close(folder)
